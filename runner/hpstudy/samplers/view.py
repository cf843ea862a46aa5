"""A study as its sampler and pruner see it, where that is not as the storage has it.

With ``scalarize`` they see one objective: the storage keeps all values of a trial, and what stands between turns them
into their weighted sum as they are read. Of trials taken from other studies most see only whole ones. So every sampler
and pruner of every backend works on it, and none has to know.
"""

import copy
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpstudy.api.metrics import find_metric
from hpstudy.api.study import StudySpec
from hpstudy.space.dimensions import SearchSpace
from hpstudy.storage import attributes


def reported_value(spec: StudySpec, metrics: Mapping[str, Any]) -> float | None:
    """What a pruner sees of an evaluation's metrics; None where they lack it, or it is not one number that could be
    compared (NaN)."""
    if not spec.is_scalar:
        return None
    values = [find_metric(metrics, objective.metric) for objective in spec.objectives]
    try:
        comparable = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    except OverflowError:  # a whole number that no float can hold
        comparable = False
    if not comparable:
        return None
    return float(values[0]) if len(values) == 1 else spec.weighted_sum([float(value) for value in values])


def study_view(study: optuna.Study, storage: RDBStorage, spec: StudySpec, space: SearchSpace | None) -> optuna.Study:
    """The study as its sampler sees it; the study itself where there is no difference.

    Args:
        spec: with the sampler named that was chosen.
    """
    # The others model the parameters that all trials have, and draw the rest at random: one trial without a value would
    # keep them from ever learning it. Engines of other backends are told of whole points alone as well: see engine.py.
    partial_trials = spec.backend != "optuna" or (spec.sampler is not None and spec.sampler.name == "TPESampler")
    hiding = space if spec.warm_start_from and not partial_trials else None
    if spec.scalarize is None and hiding is None:
        return study
    return _StudyView(study.study_name, _ViewStorage(storage, spec, hiding), spec)


class _StudyView(optuna.Study):
    """``tell`` takes the values of all objectives."""

    def __init__(self, study_name: str, storage: "_ViewStorage", spec: StudySpec) -> None:
        self._spec = spec
        self._view = storage
        super().__init__(study_name, storage)

    def tell(
        self,
        trial: optuna.Trial | int,
        values: float | Sequence[float] | None = None,
        state: TrialState | None = None,
        skip_if_finished: bool = False,
    ) -> FrozenTrial:
        if values is None or self._spec.scalarize is None:
            return super().tell(trial, values, state, skip_if_finished)
        assert isinstance(values, Sequence)
        number = trial if isinstance(trial, int) else trial.number
        trial_id = self._view.get_trial_id_from_study_id_trial_number(self._study_id, number)
        self._view.told[trial_id] = values
        return super().tell(trial, self._spec.weighted_sum(values), state, skip_if_finished)


class _ViewStorage(_CachedStorage):
    """Where ``whole`` is given, trials taken from other studies are seen if they have all parameters of that space."""

    def __init__(self, backend: RDBStorage, spec: StudySpec, whole: SearchSpace | None) -> None:
        super().__init__(backend)
        self._spec = spec
        self._whole = whole
        self._seen: dict[int, FrozenTrial | None] = {}
        """Finished trials, by id; None is not shown."""
        self.told: dict[int, Sequence[float]] = {}
        """Values of the trial that is being told, by its id."""

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return super().get_study_directions(study_id) if self._spec.scalarize is None else [StudyDirection.MINIMIZE]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return optuna.storages.BaseStorage.get_best_trial(self, study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        trial = super().get_trial(trial_id)
        return self._show(trial) or trial

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = [self._show(trial) for trial in super().get_all_trials(study_id, deepcopy=False, states=states)]
        trials = [trial for trial in found if trial is not None]
        return copy.deepcopy(trials) if deepcopy else trials

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if self._spec.scalarize is not None:
            # Optuna gives a pruned trial its last report as value: one, where readers of the storage expect several.
            values = self.told.get(trial_id) if state is TrialState.COMPLETE else None
        changed = super().set_trial_state_values(trial_id, state, values)
        self.told.pop(trial_id, None)
        return changed

    def _show(self, trial: FrozenTrial) -> FrozenTrial | None:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return trial
        if trial._trial_id not in self._seen:
            self._seen[trial._trial_id] = None if self._is_hidden(trial) else self._scalar(trial)
        return self._seen[trial._trial_id]

    def _is_hidden(self, trial: FrozenTrial) -> bool:
        if self._whole is None or attributes.TAKEN_FROM not in trial.user_attrs:
            return False
        return not self._whole.is_whole(self._whole.decode(trial.params))

    def _scalar(self, trial: FrozenTrial) -> FrozenTrial:
        if self._spec.scalarize is None:
            return trial
        made = copy.copy(trial)
        if trial.state is TrialState.COMPLETE:
            made.values = [self._spec.weighted_sum(trial.values)]
        elif trial.last_step is not None:
            made.values = [trial.intermediate_values[trial.last_step]]
        return made
