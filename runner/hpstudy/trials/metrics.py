"""What the storage keeps of a trial's metrics, however it ended."""

import optuna

from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.errors import StorageRefusedError, storage_errors
from hpstudy.trials.outcome import Outcome


def record_metrics(storage: optuna.storages.RDBStorage, trial_id: int, outcome: Outcome) -> Outcome:
    """Write metrics, violations of constraints and scores to the trial, which has not ended yet.

    Returns:
        How it ends then: a trial whose metrics the storage does not take, because they are too long for it, has failed.
    """
    try:
        with storage_errors():
            _write(storage, trial_id, outcome)
    except StorageRefusedError as error:
        failure, message = outcome.failure or Failure.ERROR, outcome.message or f"its metrics: {error.message}"
        return Outcome(failure=failure, message=message, alone=outcome.alone)
    return outcome


def _write(storage: optuna.storages.RDBStorage, trial_id: int, outcome: Outcome) -> None:
    if outcome.metrics:
        storage.set_trial_user_attr(trial_id, attributes.METRICS, dict(outcome.metrics))
    for name, violation in outcome.violations.items():
        storage.set_trial_system_attr(trial_id, attributes.CONSTRAINT_PREFIX + name, violation)
    if outcome.scores:
        storage.set_trial_system_attr(trial_id, attributes.CV_SCORES, list(outcome.scores))
