"""Ends by time, GPU hours and goals, on real SQLite and PostgreSQL."""

from datetime import UTC, datetime, timedelta
from typing import Any

import optuna
import pytest
from sqlalchemy import text

from hpstudy.api import reasons
from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.limits import Spent, read_spent
from hpstudy.storage.settings import record_settings
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Next, Verdict, judge
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome, conclude
from tests.storage.stored import NAME, opened, snapshot_of, trials_of
from tests.support.builders import spec
from tests.support.trials import take

ROUNDED = timedelta(seconds=1)
"""MySQL's columns have whole seconds: MariaDB cuts the rest off, MySQL rounds."""
TWO = [{"metric": "f1", "direction": "maximize"}, {"metric": "size", "direction": "minimize"}]


class Clock:
    """The time, which a test sets forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def study(objectives: list[dict[str, Any]] | None = None, **fields: Any) -> StudySpec:
    more = {} if objectives is None else {"objectives": objectives}
    return spec(sampler={"name": "RandomSampler"}, **more, **fields)


def complete(loop: TrialLoop, given: StudySpec, trial: Assignment | None = None, **metrics: float) -> None:
    loop.tell(trial or take(loop), conclude(metrics or {"loss": 1.0}, given))


def end(loop: TrialLoop) -> tuple[Next, str]:
    verdict = loop.next()
    assert isinstance(verdict, Verdict), verdict
    return verdict.next, verdict.reason


def seen(url: str, given: StudySpec, now: datetime) -> tuple[Next, str]:
    """As the operator."""
    verdict = judge(snapshot_of(url, given), given.budget, now)
    return verdict.next, verdict.reason


def test_no_trial_begins_after_the_timeout_and_what_runs_is_finished(storage_url: str) -> None:
    given, clock = study(budget={"maxTrials": 5, "timeout": "1h"}), Clock()
    with TrialLoop(given, storage_url, NAME, clock=clock) as loop:
        clock.ahead = timedelta(hours=2)
        running = take(loop)  # the first, with which the time begins
        clock.ahead = timedelta(minutes=59)
        second = take(loop)
        clock.ahead = timedelta(minutes=60) + ROUNDED
        complete(loop, given, running)
        assert end(loop) == (Next.SUCCEEDED, reasons.TIMEOUT_REACHED)
        complete(loop, given, second)
        assert end(loop) == (Next.SUCCEEDED, reasons.TIMEOUT_REACHED)
    assert snapshot_of(storage_url, given).counts.complete == 2
    slow = datetime.now(UTC)
    assert seen(storage_url, given, slow) == (Next.SUCCEEDED, reasons.TIMEOUT_REACHED), "also by a clock that is behind"
    raised = study(budget={"maxTrials": 5, "timeout": "2h"})
    assert seen(storage_url, raised, slow) == (Next.ASK, "")
    assert seen(storage_url, raised, slow + timedelta(hours=2) + ROUNDED) == (Next.SUCCEEDED, reasons.TIMEOUT_REACHED)
    with TrialLoop(raised, storage_url, NAME) as loop:
        complete(loop, raised)


def test_who_waits_for_the_trial_of_another_notices_the_timeout(url: str) -> None:
    given, clock = study(budget={"maxTrials": 1, "timeout": "1h"}), Clock()
    with TrialLoop(given, url, NAME, 0) as first, TrialLoop(given, url, NAME, 1, clock=clock) as second:
        running = take(first)
        assert end(second) == (Next.WAIT, "")
        clock.ahead = timedelta(hours=1)
        assert end(second) == (Next.FAILED, reasons.TIMEOUT_REACHED), "as far as is known"
        complete(first, given, running)
        assert end(second) == (Next.SUCCEEDED, reasons.MAX_TRIALS_REACHED), "that trial was the last of the budget"


def test_a_study_without_a_complete_trial_has_failed_at_its_timeout(url: str) -> None:
    given, clock = study(budget={"timeout": "1h"}), Clock()
    with TrialLoop(given, url, NAME, clock=clock) as loop:
        loop.tell(take(loop), Outcome(failure=Failure.PREEMPTED, message="told to stop"))
        clock.ahead = timedelta(hours=1)
        assert end(loop) == (Next.FAILED, reasons.TIMEOUT_REACHED), "what waits to run again does not begin"
    assert snapshot_of(url, given).counts.waiting == 1


def age(url: str, number: int, begun: timedelta, took: timedelta | None) -> None:
    """Have a trial begun so long ago."""
    start = datetime.now(UTC).replace(tzinfo=None) - begun
    with opened(url) as storage, storage.engine.begin() as connection:
        query = text("update trials set datetime_start = :start, datetime_complete = :end where number = :number")
        connection.execute(query, {"start": str(start), "end": took and str(start + took), "number": number})


def test_gpu_hours_are_those_of_all_trials_whatever_became_of_them(storage_url: str) -> None:
    given = study(budget={"maxTrials": 20, "maxFailedTrials": 5, "gpuHours": 12})
    hour = timedelta(hours=1)
    with TrialLoop(given, storage_url, NAME, 0) as loop, TrialLoop(given, storage_url, NAME, 1) as other:
        complete(loop, given, take(loop, 2))
        loop.tell(take(loop, 4), Outcome(failure=Failure.ERROR, message="boom"))
        loop.tell(take(loop, 1), Outcome(failure=Failure.PREEMPTED, message="told to stop"))
        loop.tell(take(loop, 1), Outcome(pruned=True))  # the preempted one's
        half = take(loop, 1, 2)
        running = take(other, 3)
        for number, took in enumerate((hour, hour / 2, 2 * hour, hour)):
            age(storage_url, number, 5 * hour, took)  # 2 + 2 + 2 + 1 of the ended
        age(storage_url, half.number, 2 * hour, None)  # 1
        age(storage_url, running.number, hour, None)  # 3
        with opened(storage_url) as storage, storage.engine.connect() as connection:
            spent = read_spent(connection, NAME)
        now = datetime.now(UTC)
        assert spent.gpu_seconds == pytest.approx(7 * 3600, abs=20)
        assert spent.gpus == 3.5
        assert spent.gpu_hours(now) == pytest.approx(11, abs=0.01)
        assert spent.elapsed(now).total_seconds() == pytest.approx(5 * 3600, abs=60)
        due = spent.due(given.budget)
        assert due is not None
        assert (due - now).total_seconds() == pytest.approx(3600 / 3.5, abs=60)
        take(loop, 1, 2)
        age(storage_url, running.number, 4 * hour / 3 + ROUNDED, None)  # 4
        assert end(loop) == (Next.SUCCEEDED, reasons.GPU_HOURS_REACHED)
        assert end(other) == (Next.SUCCEEDED, reasons.GPU_HOURS_REACHED)
    more = study(budget={"maxTrials": 20, "maxFailedTrials": 5, "gpuHours": 13})
    with TrialLoop(more, storage_url, NAME, 0) as loop:
        take(loop)


def test_trials_without_gpus_have_no_such_attribute_and_use_none(url: str) -> None:
    given, clock = study(budget={"gpuHours": 0.001}), Clock()
    with TrialLoop(given, url, NAME, clock=clock) as loop:
        complete(loop, given)
        clock.ahead = timedelta(days=9)
        take(loop)
    assert not any(attributes.GPUS in trial.user_attrs for trial in trials_of(url))


@pytest.mark.parametrize(("direction", "values"), [("minimize", (3, 1.5, 1.0)), ("maximize", (0.5, 0.99, 1.0))])
def test_a_value_at_the_goal_ends_the_study(storage_url: str, direction: str, values: tuple[float, ...]) -> None:
    given = study([{"metric": "loss", "direction": direction, "goal": 1}])
    with TrialLoop(given, storage_url, NAME, 0) as loop, TrialLoop(given, storage_url, NAME, 1) as other:
        running = take(other)
        for value in values:
            complete(loop, given, loss=value)
        assert end(loop) == end(loop) == (Next.SUCCEEDED, reasons.GOAL_REACHED)
        other.tell(running, Outcome(failure=Failure.ERROR, message="boom"))  # what runs is waited for
        assert end(other) == (Next.SUCCEEDED, reasons.GOAL_REACHED)
    compares = ">=" if direction == "maximize" else "<="
    assert snapshot_of(storage_url, given).goal == f"trial 3 reached the goal: loss 1 {compares} 1"
    for goal in (None, -5 if direction == "minimize" else 5):
        stricter = study([{"metric": "loss", "direction": direction, "goal": goal}])
        with TrialLoop(stricter, storage_url, NAME) as loop:
            loop.tell(take(loop), Outcome(pruned=True))


def test_of_several_goals_one_trial_has_to_meet_all(storage_url: str) -> None:
    given = study([TWO[0] | {"goal": 0.9}, TWO[1] | {"goal": 20}])
    with TrialLoop(given, storage_url, NAME) as loop:
        complete(loop, given, f1=0.95, size=30)
        complete(loop, given, f1=0.5, size=10)
        complete(loop, given, f1=0.9, size=20)
        assert end(loop) == (Next.SUCCEEDED, reasons.GOAL_REACHED)
    assert snapshot_of(storage_url, given).goal == "trial 2 reached the goals: f1 0.9 >= 0.9, size 20 <= 20"
    one = study([TWO[0], TWO[1] | {"goal": 15}])
    assert snapshot_of(storage_url, one).goal == "trial 1 reached the goal: size 10 <= 15"


def test_only_a_complete_trial_within_the_constraints_reaches_it(storage_url: str) -> None:
    small = study(TWO[:1], constraints=[{"metric": "size", "max": 20}])
    with TrialLoop(small, storage_url, "other") as loop:
        complete(loop, small, f1=0.99, size=10)
    given = study(
        [TWO[0] | {"goal": 0.9}],
        constraints=[{"metric": "size", "max": 20}],
        warmStartFrom=[{"study": "other"}],
    )
    with TrialLoop(given, storage_url, NAME) as loop:
        with opened(storage_url) as storage, storage.engine.connect() as connection:
            assert read_spent(connection, NAME) == Spent(), "what another study spent is not this one's"
        complete(loop, given, f1=0.95, size=30)
        pruned = take(loop)
        loop.report(pruned, 1, {"f1": 0.99})
        loop.tell(pruned, Outcome(pruned=True))
        complete(loop, given, f1=0.89, size=10)
        complete(loop, given, f1=0.91, size=10)
        assert end(loop) == (Next.SUCCEEDED, reasons.GOAL_REACHED)


def test_a_group_that_runs_heeds_goals_and_limits_as_the_operator_tells_them(storage_url: str) -> None:
    objective, clock = {"metric": "loss", "direction": "minimize"}, Clock()

    def told(**changed: Any) -> None:
        with opened(storage_url) as storage:
            record_settings(optuna.load_study(study_name=NAME, storage=storage), study(**changed))

    given = study([objective])
    with TrialLoop(given, storage_url, NAME, clock=clock) as loop:
        complete(loop, given, take(loop, 2), loss=1.0)
        told(objectives=[objective | {"goal": 2}])
        assert end(loop) == (Next.SUCCEEDED, reasons.GOAL_REACHED)
        told(objectives=[objective | {"goal": 0.5}], budget={"timeout": "1h"})
        complete(loop, given, take(loop, 2), loss=1.0)
        clock.ahead = timedelta(hours=1)
        assert end(loop) == (Next.SUCCEEDED, reasons.TIMEOUT_REACHED)
        told(objectives=[objective], budget={"gpuHours": 1})
        running = take(loop, 2)
        clock.ahead = timedelta(hours=2)
        assert end(loop) == (Next.SUCCEEDED, reasons.GPU_HOURS_REACHED)
        told(objectives=[objective], budget={"gpuHours": 5})
        take(loop, 2)
        complete(loop, given, running)
