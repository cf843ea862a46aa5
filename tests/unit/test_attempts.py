"""How a trial ended, from all that the driver has heard of it."""

from typing import Any

import optuna
import pytest

from hpstudy.storage.attributes import Failure
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.causes import Cause, Kind
from hpstudy.trials.messages import Result
from hpstudy.worker.attempts import PREEMPTED, Attempt
from tests.support.builders import spec

STUDY = spec()
TIMEOUT = Failure.TIMEOUT, "took longer than trialTimeout 8s"
GONE = "the pod of node 1 is gone"
RESULT = Result(metrics={"loss": 0.5})
RAISED = Cause(rank=1, kind=Kind.RAISED, message="ValueError: no luck", at=3)
MEMORY = Cause(rank=1, kind=Kind.RAISED, failure=Failure.OOM, message="MemoryError: ", at=3)
KILLED = Cause(rank=1, kind=Kind.KILLED, message="rank 1 was ended by SIGKILL", at=2)
PEER = Cause(rank=0, kind=Kind.SECONDARY, message="RuntimeError: gloo/transport", at=1)


def judged(**heard: Any) -> tuple[Any, ...]:
    """Values, or class and message of the failure."""
    trial = optuna.create_study().ask()
    attempt = Attempt(Assignment(0, {}, None, False, trial), slot=0, waiting_for=set(), launch=0)
    for name, value in heard.items():
        setattr(attempt, name, value)
    outcome = attempt.judge(STUDY)
    if outcome.pruned:
        return ("pruned",)
    return outcome.values if outcome.values is not None else (outcome.failure, outcome.message)


@pytest.mark.parametrize(
    ("heard", "ended"),
    [
        ({}, (Failure.ERROR, "the ranks ended without a result")),
        ({"causes": [PEER, RAISED]}, (Failure.ERROR, RAISED.message)),
        ({"causes": [PEER, MEMORY]}, (Failure.OOM, MEMORY.message)),
        ({"causes": [PEER, KILLED], "lost": GONE}, (Failure.LOST, GONE)),
        ({"causes": [PEER, RAISED], "lost": GONE}, (Failure.ERROR, RAISED.message)),
        ({"causes": [PEER, RAISED], "decided": TIMEOUT}, TIMEOUT),
        ({"stopping": True}, PREEMPTED),
        ({"causes": [KILLED], "stopping": True}, PREEMPTED),
    ],
)
def test_without_a_result_it_is_what_ended_it(heard: dict[str, Any], ended: tuple[Any, ...]) -> None:
    assert judged(**heard) == ended


@pytest.mark.parametrize(
    "after",
    [
        {},
        {"decided": TIMEOUT},
        {"decided": PREEMPTED},
        {"decided": PREEMPTED, "stopping": True, "causes": [KILLED]},
        {"stopping": True},
        {"stopping": True, "causes": [PEER]},
        {"lost": GONE},
        {"lost": GONE, "causes": [PEER]},
        {"lost": GONE, "causes": [PEER, KILLED]},
        {"causes": [PEER]},
    ],
)
def test_a_result_counts_when_the_ranks_are_ended_after_it(after: dict[str, Any]) -> None:
    assert judged(result=RESULT, **after) == (0.5,)
    assert judged(result=Result(metrics={}, pruned=True), **after) == ("pruned",)
    assert judged(result=Result(metrics={"loss": float("nan")}), **after)[0] is Failure.METRIC_MISSING


@pytest.mark.parametrize(
    ("after", "ended"),
    [
        ({"causes": [RAISED]}, (Failure.ERROR, RAISED.message)),
        ({"causes": [PEER, RAISED], "lost": GONE}, (Failure.ERROR, RAISED.message)),
        ({"causes": [RAISED], "decided": TIMEOUT}, TIMEOUT),
        ({"causes": [PEER, KILLED]}, (Failure.ERROR, KILLED.message)),
    ],
)
def test_a_rank_that_fails_after_rank_zero_s_result_fails_the_trial(
    after: dict[str, Any], ended: tuple[Any, ...]
) -> None:
    assert judged(result=RESULT, **after) == ended
