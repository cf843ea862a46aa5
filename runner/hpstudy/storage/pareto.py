"""The Pareto front of trials, and how much it dominates."""

from collections.abc import Sequence
from typing import Literal

import numpy
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _is_pareto_front

Direction = Literal["minimize", "maximize"]

# Points of a front whose hypervolume takes a third of a second at most on one core (measured on random fronts); the
# time is quadratic with three objectives, and grows exponentially with their number.
_MAX_POINTS = {2: 100_000, 3: 3000, 4: 200, 5: 100}
_MAX_POINTS_OF_MANY = 30


def pareto_front(values: Sequence[Sequence[float]] | numpy.ndarray, directions: Sequence[Direction]) -> list[int]:
    """Indices of the points that no other point dominates, best in the first objective first.

    A point dominates another when it is at least as good in every objective and better in one (Deb 2001, ch. 2).
    Equal points are all kept, as in Optuna.

    Args:
        values: shape (points, objectives).
        directions: one for each objective.
    """
    losses = _losses(values, directions)
    if not len(losses):
        return []
    front = numpy.flatnonzero(_is_pareto_front(losses, assume_unique_lexsorted=False))
    return [int(index) for index in front[numpy.lexsort(losses[front].T[::-1])]]


def hypervolume(
    front: Sequence[Sequence[float]] | numpy.ndarray, reference: Sequence[float], directions: Sequence[Direction]
) -> float | None:
    """Volume of what the front dominates up to the reference point (Zitzler & Thiele 1998), or None where the front is
    too large for it to be computed in a moment.

    A point that is worse than the reference in some objective adds nothing.

    Args:
        front: shape (points, objectives).
    """
    if len(front) > _MAX_POINTS.get(len(reference), _MAX_POINTS_OF_MANY):
        return None
    points, limit = _losses(front, directions), _losses([reference], directions)[0]
    return float(compute_hypervolume(points[(points <= limit).all(axis=1)], limit))


def _losses(values: Sequence[Sequence[float]] | numpy.ndarray, directions: Sequence[Direction]) -> numpy.ndarray:
    """The values where less is better."""
    signs = numpy.array([1.0 if direction == "minimize" else -1.0 for direction in directions])
    losses: numpy.ndarray = numpy.asarray(values, dtype=float).reshape(-1, len(directions)) * signs
    return losses
