"""What a lost trial died of, from what the operator saw of its pod."""

import time
from collections.abc import Sequence
from dataclasses import replace

import optuna
from optuna.trial import FrozenTrial

from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.ends import read_end
from hpstudy.trials.outcome import Outcome

PATIENCE = 10.0
"""Seconds to wait for the operator's word. It comes a fraction of a second after the pod's end is known, and the pod's
replacement takes longer to start: the wait is seldom noticed, and a node that vanished, of which there is no word,
costs no more."""
_INTERVAL = 0.5  # seconds


def await_end(study: optuna.Study, group: int, trials: Sequence[FrozenTrial]) -> None:
    """Give the operator, where one looks after the study, the time to say how the pod ended that ran these trials."""
    deadline = time.monotonic() + PATIENCE
    while trials and time.monotonic() < deadline and attributes.SETTINGS in study.user_attrs:
        end = read_end(study, group)
        if end is not None and all(map(end.ended, trials)):
            return
        time.sleep(_INTERVAL)


def explain(study: optuna.Study, group: int, trial: FrozenTrial, lost: Outcome, *, shared_by: int) -> Outcome:
    """The outcome with the class and the message of its pod's end, where that is known.

    Args:
        shared_by: trials that ran in the pod. Of several, nobody knows whose memory it was: each stays lost and runs
            again by itself, so that the one that needs too much is the one that fails.
    """
    end = read_end(study, group)
    if end is None or not end.ended(trial):
        return lost
    if end.failure is Failure.OOM and shared_by > 1:
        return replace(lost, message=f"{end.message}; {shared_by} trials ran in it", alone=True)
    return replace(lost, failure=end.failure, message=end.message)
