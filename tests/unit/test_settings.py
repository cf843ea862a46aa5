"""What the operator tells running workers, on real SQLite and PostgreSQL."""

from typing import Any

import optuna
import pytest

from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.settings import record_settings
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import Assignment, TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.support.builders import spec
from tests.unit.stored import NAME, opened, snapshot_of


def take(loop: TrialLoop) -> Assignment:
    assigned = loop.next()
    assert isinstance(assigned, Assignment), assigned
    return assigned


def complete(loop: TrialLoop, trial: Assignment) -> None:
    loop.tell(trial, Outcome(values=(1.0,)))


def told(url: str, **changed: Any) -> StudySpec:
    """As the operator, which saw the study changed."""
    now = spec(**changed)
    with opened(url) as storage:
        record_settings(optuna.load_study(study_name=NAME, storage=storage), now)
    return now


def next_of(loop: TrialLoop) -> Next:
    answer = loop.next()
    assert isinstance(answer, Verdict), answer
    return answer.next


def test_a_group_that_runs_heeds_a_budget_that_is_lowered_and_one_that_is_raised(storage_url: str) -> None:
    with TrialLoop(spec(budget={"maxTrials": 10}), storage_url, NAME) as loop:
        complete(loop, take(loop))
        in_hand = take(loop)
        lowered = told(storage_url, budget={"maxTrials": 2})
        assert next_of(loop) is Next.WAIT, "the trial in hand is the last"
        complete(loop, in_hand)
        assert next_of(loop) is Next.SUCCEEDED
        assert snapshot_of(storage_url, lowered).counts.total == 2
        told(storage_url, budget={"maxTrials": 3})
        complete(loop, take(loop))
        assert next_of(loop) is Next.SUCCEEDED


def test_the_failures_that_it_survives_are_those_of_now(storage_url: str) -> None:
    with TrialLoop(spec(budget={"maxTrials": 9, "maxFailedTrials": 5}), storage_url, NAME) as loop:
        loop.tell(take(loop), Outcome(failure=Failure.ERROR, message="boom"))
        told(storage_url, budget={"maxTrials": 9, "maxFailedTrials": 0})
        assert next_of(loop) is Next.FAILED


@pytest.mark.parametrize(
    "written",
    [
        {"retries": {"error": 1}},  # by an operator that knew of nothing else
        {"retries": {"error": 1, "sorrow": 2}, "budget": {"maxTrials": 7, "patience": 3}, "mood": "good"},
    ],
)
def test_operators_of_other_versions_are_understood(written: dict[str, Any], url: str) -> None:
    with TrialLoop(spec(budget={"maxTrials": 1}), url, NAME) as loop:
        loop.study.set_user_attr(attributes.SETTINGS, written)
        first = take(loop)
        loop.tell(first, Outcome(failure=Failure.ERROR, message="boom"))
        again = take(loop)
        assert again.parameters == first.parameters
        complete(loop, again)
        answer = loop.next()
        if "budget" in written:
            assert isinstance(answer, Assignment), "of seven"
        else:
            assert isinstance(answer, Verdict), "the budget is what the worker read"
