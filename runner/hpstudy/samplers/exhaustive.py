"""Optuna's exhaustive samplers, over many groups and trials that run again.

Optuna's own end ``Study.optimize`` when all is tried, which nobody calls here, propose a running point a second time
near the end, and trip over trials that ended before they had all of their parameters.
"""

import itertools
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import _brute_force
from optuna.trial import FrozenTrial, TrialState

from hpstudy.samplers.hooks import Hooks, hooks
from hpstudy.storage import attributes

MAX_GRID_POINTS = 100_000
"""Optuna keeps the list of all points in memory, and goes through it at each trial."""


class GridSampler(optuna.samplers.GridSampler, Hooks):
    """A point counts as tried by its values, whichever trial had them: one that was given, or run again."""

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Nothing: see ``is_exhausted``."""

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether no point is left that was neither tried nor is running."""
        return not self._open_points(study)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Assign a point."""
        if attributes.FIXED in trial.system_attrs:
            return
        left = self._open_points(study) or range(len(self._all_grids))
        index = trial.number if trial.number in left else int(self._rng.rng.choice(list(left)))
        study._storage.set_trial_system_attr(trial._trial_id, "search_space", self._search_space)
        study._storage.set_trial_system_attr(trial._trial_id, "grid_id", index)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The point's value; for a trial that came with some of its values, any of the grid's."""
        if "grid_id" in trial.system_attrs or param_name not in self._search_space:
            return super().sample_independent(study, trial, param_name, param_distribution)
        values = self._search_space[param_name]
        return values[self._rng.rng.choice(len(values))]

    def _open_points(self, study: optuna.Study) -> set[int]:
        left = set(range(self._n_min_trials))
        for trial in study._storage.get_all_trials(study._study_id, deepcopy=False):
            if trial.state is TrialState.WAITING or attributes.runs_again(trial.user_attrs):
                continue
            if "grid_id" in trial.system_attrs:
                left.discard(trial.system_attrs["grid_id"])
            elif all(name in trial.params for name in self._param_names):
                point = _key([trial.params[name] for name in self._param_names])
                left.discard(self._places.get(point, -1))
        return left

    @cached_property
    def _places(self) -> dict[tuple[Any, ...], int]:
        return {_key(point): index for index, point in enumerate(self._all_grids)}


class BruteForceSampler(optuna.samplers.BruteForceSampler, Hooks):
    """Goes by the points that were tried or are running, not by the trials that run again."""

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Nothing: see ``is_exhausted``."""

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether no point is left that was neither tried nor is running."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)
        tree = _brute_force._TreeNode()
        self._populate_tree(tree, study._storage.get_all_trials(study._study_id, deepcopy=False, states=states), {})
        return not tree.is_any_expandable(exclude_running=True)

    @property
    def in_turn(self) -> bool:
        """A trial without parameters is no point yet."""
        return True

    @staticmethod
    def _populate_tree(tree: Any, trials: list[FrozenTrial], params: dict[str, Any]) -> None:
        populate = optuna.samplers.BruteForceSampler._populate_tree
        known = [trial for trial in trials if trial.params and not attributes.runs_again(trial.user_attrs)]
        populate(tree, [trial for trial in known if trial.state is not TrialState.FAIL], params)
        for trial in known:
            if trial.state is TrialState.FAIL:
                with suppress(ValueError):  # it may have ended half-way: no point, and Optuna's tree refuses it
                    populate(tree, [trial], params)


class PartialFixedSampler(optuna.samplers.PartialFixedSampler, Hooks):
    """Over an exhaustive sampler it is one."""

    def is_exhausted(self, study: optuna.Study) -> bool:
        """As of the sampler below."""
        return hooks(self._base_sampler).is_exhausted(study)

    @property
    def in_turn(self) -> bool:
        """As the sampler below."""
        return hooks(self._base_sampler).in_turn


def grid_values(distribution: BaseDistribution) -> list[Any] | None:
    """All values, as the storage records them; None where they are infinitely many."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return list(choices)
        case IntDistribution(low=low, high=high, step=step):
            return list(range(low, high + 1, step))
        case FloatDistribution(low=low, high=high, step=float(step)):
            first, last, between = (Decimal(str(number)) for number in (low, high, step))
            return [float(first + between * index) for index in range(int((last - first) / between) + 1)]
    return None


def count_points(values: Sequence[Sequence[Any]]) -> int:
    """Points of the grid of these values."""
    return int(numpy.prod([len(column) for column in values], dtype=object))


def _key(point: Sequence[Any]) -> tuple[Any, ...]:
    """Equal for equal points; True is not 1, and a number may have lost a digit on its way through the storage."""
    return tuple(
        itertools.chain.from_iterable(
            (isinstance(value, bool), round(value, 12) if isinstance(value, float) else value) for value in point
        )
    )
