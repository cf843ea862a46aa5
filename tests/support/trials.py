"""What tests do with a trial loop and the trials in a storage, in a worker group's place."""

import optuna

from hpstudy.storage.opening import open_storage
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome


def take(loop: TrialLoop, gpus: int = 0, sharing: int = 1) -> Assignment:
    """The next trial, of which there must be one."""
    assigned = loop.next(gpus, sharing)
    assert isinstance(assigned, Assignment), assigned
    return assigned


def finish(loop: TrialLoop, trial: Assignment, value: float = 1.0) -> None:
    """Tell that a trial went well."""
    loop.tell(trial, Outcome(values=(value,)))


def complete(value: float = 1.0) -> Outcome:
    """A trial that went well."""
    return Outcome(values=(value,), metrics={"loss": value})


def stored_trials(url: str, name: str = "study") -> list[optuna.trial.FrozenTrial]:
    """Trials as anybody would read them."""
    storage = open_storage(url)
    try:
        return optuna.load_study(study_name=name, storage=storage).trials
    finally:
        storage.engine.dispose()
