"""A study of several objectives as samplers and pruners of one see it (``scalarize``).

The storage keeps all values of a trial; what stands between turns them into their weighted sum as they are read. So
every sampler and pruner of every backend works on it, and none has to know.
"""

import copy
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpstudy.api.metrics import find_metric
from hpstudy.api.study import StudySpec


def scalar_value(spec: StudySpec, values: Sequence[float]) -> float:
    """The weighted sum of a trial's values, lower is better.

    Args:
        values: one for each objective, in order.
    """
    assert spec.scalarize is not None
    weights = spec.scalarize.weights
    return sum(
        weights[objective.metric] * (value if objective.direction == "minimize" else -value)
        for objective, value in zip(spec.objectives, values, strict=True)
    )


def reported_value(spec: StudySpec, metrics: Mapping[str, Any]) -> float | None:
    """What a pruner sees of an evaluation's metrics; None where they do not have it, or there is no one number."""
    if not spec.is_scalar:
        return None
    values = [find_metric(metrics, objective.metric) for objective in spec.objectives]
    if not all(isinstance(value, int | float) for value in values):
        return None
    return float(values[0]) if len(values) == 1 else scalar_value(spec, [float(value) for value in values])


class ScalarStudy(optuna.Study):
    """The study under its own name, with one objective to minimise. ``tell`` takes the values of all."""

    def __init__(self, study_name: str, storage: RDBStorage, spec: StudySpec) -> None:
        self._spec = spec
        self._view = _ScalarStorage(storage, spec)
        super().__init__(study_name, self._view)

    def tell(
        self,
        trial: optuna.Trial | int,
        values: float | Sequence[float] | None = None,
        state: TrialState | None = None,
        skip_if_finished: bool = False,
    ) -> FrozenTrial:
        """As of any study; ``values`` are those of the objectives, in order."""
        if values is None:
            return super().tell(trial, None, state, skip_if_finished)
        assert isinstance(values, Sequence)
        number = trial if isinstance(trial, int) else trial.number
        trial_id = self._view.get_trial_id_from_study_id_trial_number(self._study_id, number)
        self._view.told[trial_id] = values
        return super().tell(trial, scalar_value(self._spec, values), state, skip_if_finished)


class _ScalarStorage(_CachedStorage):
    def __init__(self, backend: RDBStorage, spec: StudySpec) -> None:
        super().__init__(backend)
        self._spec = spec
        self._finished: dict[int, FrozenTrial] = {}
        self.told: dict[int, Sequence[float]] = {}
        """Values of the trial that is being told, by its id."""

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MINIMIZE]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return optuna.storages.BaseStorage.get_best_trial(self, study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._scalar(super().get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [self._scalar(trial) for trial in super().get_all_trials(study_id, deepcopy=False, states=states)]
        return copy.deepcopy(trials) if deepcopy else trials

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        # Optuna gives a pruned trial its last report as value: one, where other readers of the storage expect several.
        given = self.told.get(trial_id) if state is TrialState.COMPLETE else None
        changed = super().set_trial_state_values(trial_id, state, given)
        self.told.pop(trial_id, None)
        return changed

    def _scalar(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return trial
        if trial._trial_id not in self._finished:
            made = copy.copy(trial)
            if trial.state is TrialState.COMPLETE:
                made.values = [scalar_value(self._spec, trial.values)]
            elif trial.last_step is not None:
                made.values = [trial.intermediate_values[trial.last_step]]
            self._finished[trial._trial_id] = made
        return self._finished[trial._trial_id]
