"""What an Optuna storage says about the time that trials took, whoever ran them."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import optuna
from optuna.trial import TrialState

from hpstudy.storage import attributes


@dataclass(frozen=True)
class Recorded:
    """A study's trials, in order.

    Attributes:
        cycles: seconds from the start of one trial to the start of the next: what a trial costs, all in all.
        trials: seconds from each trial's start to its end.
        values: the objective's values.
        params: suggested values.
        seconds: from the start of the first trial to the end of the last.
    """

    cycles: list[float]
    trials: list[float]
    values: list[float]
    params: list[dict[str, Any]] = field(repr=False)
    seconds: float


def read(url: str, study_name: str) -> Recorded:
    """Read a study of one objective. The cycles have that meaning where trials ran one after the other."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    try:
        trials = optuna.load_study(study_name=study_name, storage=storage).get_trials()
    finally:
        storage.engine.dispose()
        optuna.logging.set_verbosity(verbosity)
    failed = [trial for trial in trials if trial.state is not TrialState.COMPLETE]
    if failed:
        words = "; ".join(
            f"{trial.number}: {trial.user_attrs.get(attributes.MESSAGE, trial.state)}" for trial in failed
        )
        raise RuntimeError(f"trials of {study_name} did not complete, there is nothing to compare: {words}")
    starts = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    return Recorded(
        cycles=[later - earlier for earlier, later in pairwise(starts)],
        trials=[trial.duration.total_seconds() for trial in trials if trial.duration],
        values=[trial.value for trial in trials if trial.value is not None],
        params=[trial.params for trial in trials],
        seconds=max(trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete) - min(starts),
    )
