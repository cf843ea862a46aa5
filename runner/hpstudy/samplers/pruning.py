"""What a pruner is asked, and which trials it compares: each once, however often its parameters ran.

Optuna's successive halving, Hyperband with it, records on a trial what that had reached at each rung, and does so as it
is asked. A trial that goes on from a checkpoint is shown to it report by report, as it was when it ran; the run before
that is shown no more.
"""

import copy
from collections.abc import Container, Iterable
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpstudy.samplers.hooks import WholeCurvePruner
from hpstudy.storage import attributes


def competing(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Without those that run again: the run that follows them has their place."""
    return [trial for trial in trials if not attributes.runs_again(trial.user_attrs)]


def should_prune(trial: optuna.Trial, *, past: bool = False) -> bool:
    """Whether the study's pruner ends a trial at its latest report.

    Args:
        past: the trial that this one continues made the report. The answer is no, whatever the pruner says.
    """
    study = trial.study
    if isinstance(study.pruner, WholeCurvePruner):
        return not past and trial.should_prune()
    view = copy.copy(study)
    view._storage = cast(BaseStorage, _CompetingTrials(study._storage))
    asking = copy.copy(trial)
    asking.study = view
    return asking.should_prune() and not past


class _CompetingTrials:
    """A storage that lists these alone. A view of its storage and not of the study, past which Hyperband reads."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = competing(self._storage.get_all_trials(study_id, deepcopy=False, states=states))
        return copy.deepcopy(trials) if deepcopy else trials


class HyperbandPruner(optuna.pruners.HyperbandPruner):
    """Draws the bracket of a trial that runs another's parameters again as that one's, by the number of the first."""

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        number = attributes.first_run(trial.number, trial.user_attrs)
        if number != trial.number:
            trial = copy.copy(trial)
            trial.number = number
        return super()._get_bracket_id(study, trial)
