"""What the operator tells running workers, on real SQLite and PostgreSQL."""

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpstudy.api.revision import revision
from hpstudy.api.status import TrialCounts
from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.opening import open_storage
from hpstudy.storage.settings import record_settings
from hpstudy.storage.urls import parse_url
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.storage.stored import NAME, snapshot_of, trials_of
from tests.support.builders import spec
from tests.support.trials import finish, take


def told(url: str, **changed: Any) -> StudySpec:
    """As the operator, which saw the study changed."""
    now = spec(**changed)
    storage = open_storage(url)
    try:
        record_settings(optuna.load_study(study_name=NAME, storage=storage), now)
    finally:
        storage.engine.dispose()
    return now


def plain(url: str) -> str:
    """As Optuna itself takes it."""
    return parse_url(url).render_as_string(hide_password=False)


def next_of(loop: TrialLoop) -> Next:
    answer = loop.next()
    assert isinstance(answer, Verdict), answer
    return answer.next


def test_a_group_that_runs_heeds_a_budget_that_is_lowered_and_one_that_is_raised(storage_url: str) -> None:
    with TrialLoop(spec(budget={"maxTrials": 10}), storage_url, NAME) as loop:
        finish(loop, take(loop))
        in_hand = take(loop)
        lowered = told(storage_url, budget={"maxTrials": 2})
        assert next_of(loop) is Next.WAIT, "the trial in hand is the last"
        finish(loop, in_hand)
        assert next_of(loop) is Next.SUCCEEDED
        assert snapshot_of(plain(storage_url), lowered).counts.total == 2
        told(storage_url, budget={"maxTrials": 3})
        finish(loop, take(loop))
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
        finish(loop, again)
        answer = loop.next()
        if "budget" in written:
            assert isinstance(answer, Assignment), "of seven"
        else:
            assert isinstance(answer, Verdict), "the budget is what the worker read"


@pytest.mark.parametrize(
    ("changed", "group", "why"),
    [
        ({"suspend": True}, 0, "the study is suspended"),
        ({"parallelism": 1}, 1, "the study has fewer worker groups now"),
        ({"parallelism": 2, "trialTimeout": "1h"}, 1, "the study has changed: the group starts again"),
    ],
)
def test_a_group_that_is_wanted_no_more_finishes_its_trials_and_asks_for_none(
    storage_url: str, changed: dict[str, Any], group: int, why: str
) -> None:
    before = spec(parallelism=2)
    with TrialLoop(before, storage_url, NAME, group, revision=revision(before)) as loop:
        told(storage_url, parallelism=2)
        in_hand = take(loop)
        told(storage_url, **changed)
        assert loop.next() == Verdict(Next.LEAVE, message=why)
        finish(loop, in_hand)
        assert loop.next() == Verdict(Next.LEAVE, message=why)
        told(storage_url, parallelism=2)
        take(loop)  # somebody thought better of it
    assert [trial.state for trial in trials_of(plain(storage_url))] == [TrialState.COMPLETE, TrialState.RUNNING]


@pytest.mark.parametrize("changed", [{"parallelism": 1}, {"retries": {"error": 2}}, {"budget": {"maxTrials": 7}}])
def test_what_workers_take_on_while_they_run_is_no_reason_to_leave(url: str, changed: dict[str, Any]) -> None:
    with TrialLoop(spec(parallelism=2), url, NAME, revision=revision(spec())) as loop:
        told(url, **changed)
        take(loop)


def test_a_study_that_is_over_is_so_for_a_group_that_is_wanted_no_more_too(url: str) -> None:
    with TrialLoop(spec(budget={"maxTrials": 1}), url, NAME, 3) as loop:
        finish(loop, take(loop))
        told(url, parallelism=1, budget={"maxTrials": 1})
        assert next_of(loop) is Next.SUCCEEDED


def test_a_trial_runs_again_however_often_the_study_is_suspended_under_it(storage_url: str) -> None:
    study = spec(budget={"maxTrials": 1, "maxFailedTrials": 0}, retries={"preempted": 0})
    with TrialLoop(study, storage_url, NAME) as loop:
        first = trial = take(loop)
        for _ in range(4):
            told(storage_url, suspend=True)
            loop.tell(trial, Outcome(failure=Failure.PREEMPTED, message="the worker was told to stop"))
            told(storage_url)
            trial = take(loop)
            assert trial.parameters == first.parameters
        finish(loop, trial)
        told(storage_url, budget={"maxTrials": 1})
        assert next_of(loop) is Next.SUCCEEDED
    assert snapshot_of(plain(storage_url), study).counts == TrialCounts(total=5, complete=1, preempted=4)
    ended = trials_of(plain(storage_url))[0].user_attrs
    assert (ended[attributes.FAILURE], ended[attributes.MESSAGE]) == ("suspended", "the study is suspended")


def test_a_preemption_that_nobody_asked_for_counts(url: str) -> None:
    with TrialLoop(spec(retries={"preempted": 0}, budget={"maxFailedTrials": 0}), url, NAME) as loop:
        trial = take(loop)
        told(url, retries={"preempted": 0}, budget={"maxFailedTrials": 0})
        loop.tell(trial, Outcome(failure=Failure.PREEMPTED, message="the worker was told to stop"))
        assert next_of(loop) is Next.FAILED
