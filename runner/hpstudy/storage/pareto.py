"""The Pareto front of trials, and how much it dominates."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy
from optuna._hypervolume import compute_hypervolume

Direction = Literal["minimize", "maximize"]

# Points of a front whose hypervolume takes a third of a second at most on one core (measured on random fronts); the
# time is quadratic with three objectives, and grows exponentially with their number.
_MAX_POINTS = {2: 100_000, 3: 3000, 4: 200, 5: 100}
_MAX_POINTS_OF_MANY = 30


def pareto_front(values: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
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


@lru_cache(maxsize=128)
def hypervolume(
    front: tuple[tuple[float, ...], ...], reference: tuple[float, ...], directions: tuple[Direction, ...]
) -> float | None:
    """Volume of what the front dominates up to the reference point (Zitzler & Thiele 1998), or None where the front is
    too large for it to be computed in a moment.

    A point that is worse than the reference in some objective adds nothing. Remembered: the operator asks every few
    seconds, and fronts change seldom.

    Args:
        front: shape (points, objectives).
    """
    if len(front) > _MAX_POINTS.get(len(reference), _MAX_POINTS_OF_MANY):
        return None
    signs = numpy.array([1.0 if direction == "minimize" else -1.0 for direction in directions])
    limit = signs * numpy.array(reference, dtype=float)
    points = signs * numpy.array(front, dtype=float).reshape(-1, len(reference))
    return float(compute_hypervolume(points[(points <= limit).all(axis=1)], limit))


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
