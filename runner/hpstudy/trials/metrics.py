"""What the storage keeps of a trial's metrics, however it ended."""

import optuna

from hpstudy.storage import attributes
from hpstudy.trials.outcome import Outcome


def record_metrics(storage: optuna.storages.RDBStorage, trial_id: int, outcome: Outcome) -> None:
    """Write metrics, violations of constraints and scores to the trial, which has not ended yet."""
    if outcome.metrics:
        storage.set_trial_user_attr(trial_id, attributes.METRICS, dict(outcome.metrics))
    for name, violation in outcome.violations.items():
        storage.set_trial_system_attr(trial_id, attributes.CONSTRAINT_PREFIX + name, violation)
    if outcome.scores:
        storage.set_trial_system_attr(trial_id, attributes.CV_SCORES, list(outcome.scores))
