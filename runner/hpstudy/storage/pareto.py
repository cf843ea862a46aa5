"""The Pareto front of trials."""

from collections.abc import Sequence
from typing import Literal


def pareto_front(values: Sequence[Sequence[float]], directions: Sequence[Literal["minimize", "maximize"]]) -> list[int]:
    """Indices of the points that no other point dominates, best in the first objective first.

    A point dominates another when it is at least as good in every objective and better in one (Deb 2001, ch. 2).
    Equal points are all kept, as in Optuna.

    Args:
        values: shape (points, objectives).
        directions: one for each objective.
    """
    signs = [1.0 if direction == "minimize" else -1.0 for direction in directions]
    points = [tuple(sign * value for sign, value in zip(signs, row, strict=True)) for row in values]
    front: list[int] = []
    # In lexicographic order a point can only be dominated by an earlier one.
    for index in sorted(range(len(points)), key=points.__getitem__):
        candidate = points[index]
        if not any(_dominates(points[kept], candidate) for kept in front):
            front.append(index)
    return front


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
