"""Whether a study goes on."""

from datetime import UTC, datetime, timedelta

import pytest

from hpstudy.api import reasons
from hpstudy.api.fields import Duration
from hpstudy.api.status import TrialCounts
from hpstudy.api.study import Budget
from hpstudy.storage.limits import Spent, record_of, still_reached
from hpstudy.storage.reading import Stop, Tally
from hpstudy.trials.budget import Next, judge

BUDGET = Budget(max_trials=10, max_failed_trials=2)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIMITED = Budget(max_trials=10, max_failed_trials=2, timeout=Duration("6h"), gpu_hours=8)
TIME_OVER = Spent(began=NOW - 6 * HOUR)
GPUS_USED = Spent(began=NOW - HOUR, gpu_seconds=8 * 3600)
GOAL = "trial 3 reached the goal: f1 0.95 >= 0.9"
ENOUGH = Stop(reasons.STOP_CONDITION_MET, "enough")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (TrialCounts(), Next.ASK),
        (TrialCounts(complete=6, running=3), Next.ASK),
        (TrialCounts(complete=6, pruned=3, running=1), Next.WAIT),
        (TrialCounts(complete=6, pruned=4), Next.SUCCEEDED),
        (TrialCounts(complete=12), Next.SUCCEEDED),  # the budget was lowered
        (TrialCounts(complete=6, failed=2), Next.ASK),
        (TrialCounts(complete=6, failed=3), Next.FAILED),
        (TrialCounts(complete=10, failed=3), Next.FAILED),
        (TrialCounts(complete=6, preempted=50), Next.ASK),
        (TrialCounts(complete=6, waiting=10), Next.ASK),
    ],
)
def test_the_counts_alone_decide(counts: TrialCounts, expected: Next) -> None:
    assert judge(Tally(counts), BUDGET, NOW).next is expected


SOME, NONE = TrialCounts(complete=4), TrialCounts(pruned=1)


@pytest.mark.parametrize(
    ("tally", "expected"),
    [
        # each by itself
        (Tally(SOME, goal=GOAL), (Next.SUCCEEDED, reasons.GOAL_REACHED)),
        (Tally(SOME, stop=ENOUGH), (Next.SUCCEEDED, reasons.STOP_CONDITION_MET)),
        (Tally(SOME, spent=GPUS_USED), (Next.SUCCEEDED, reasons.GPU_HOURS_REACHED)),
        (Tally(NONE, spent=GPUS_USED), (Next.FAILED, reasons.GPU_HOURS_REACHED)),
        (Tally(SOME, spent=TIME_OVER), (Next.SUCCEEDED, reasons.TIMEOUT_REACHED)),
        (Tally(NONE, spent=TIME_OVER), (Next.FAILED, reasons.TIMEOUT_REACHED)),
        # as recorded by whose clock was ahead
        (Tally(SOME, limit=reasons.TIMEOUT_REACHED), (Next.SUCCEEDED, reasons.TIMEOUT_REACHED)),
        (Tally(SOME, limit=reasons.TIMEOUT_REACHED, spent=GPUS_USED), (Next.SUCCEEDED, reasons.TIMEOUT_REACHED)),
        # running trials are counted until now; they are finished, and no other begins
        (Tally(TrialCounts(complete=1, running=2), spent=TIME_OVER), (Next.SUCCEEDED, reasons.TIMEOUT_REACHED)),
        (
            Tally(TrialCounts(complete=1, running=1), spent=Spent(gpu_seconds=3600, gpus=3.5, since=NOW - 2 * HOUR)),
            (Next.SUCCEEDED, reasons.GPU_HOURS_REACHED),
        ),
        (
            Tally(TrialCounts(complete=1, running=1), spent=Spent(gpu_seconds=3599, gpus=3.5, since=NOW - 2 * HOUR)),
            (Next.ASK, ""),
        ),
        (Tally(SOME, spent=Spent(began=NOW - 5.99 * HOUR)), (Next.ASK, "")),
        (Tally(spent=Spent()), (Next.ASK, "")),  # time counts from the first trial on
        (Tally(TrialCounts(complete=9, running=1), spent=TIME_OVER), (Next.SUCCEEDED, reasons.TIMEOUT_REACHED)),
        # the first of several: goal, maxFailedTrials, maxTrials, stopWhen, gpuHours, timeout
        (
            Tally(TrialCounts(complete=10, failed=3), goal=GOAL, stop=ENOUGH, spent=TIME_OVER),
            (Next.SUCCEEDED, reasons.GOAL_REACHED),
        ),
        (
            Tally(TrialCounts(complete=10, failed=3), stop=ENOUGH, spent=TIME_OVER),
            (Next.FAILED, reasons.MAX_FAILED_TRIALS_EXCEEDED),
        ),
        (
            Tally(TrialCounts(complete=10), stop=ENOUGH, limit=reasons.TIMEOUT_REACHED),
            (Next.SUCCEEDED, reasons.MAX_TRIALS_REACHED),
        ),
        (
            Tally(SOME, stop=ENOUGH, limit=reasons.TIMEOUT_REACHED),
            (Next.SUCCEEDED, reasons.STOP_CONDITION_MET),
        ),
        (
            Tally(SOME, spent=Spent(began=NOW - 6 * HOUR, gpu_seconds=8 * 3600)),
            (Next.SUCCEEDED, reasons.GPU_HOURS_REACHED),
        ),
    ],
)
def test_the_first_limit_in_their_order_ends_the_study(tally: Tally, expected: tuple[Next, str]) -> None:
    verdict = judge(tally, LIMITED, NOW)
    assert (verdict.next, verdict.reason) == expected


def test_no_failure_is_allowed_when_none_is() -> None:
    assert judge(Tally(TrialCounts(failed=1)), Budget(max_failed_trials=0), NOW).next is Next.FAILED


@pytest.mark.parametrize(
    ("tally", "said"),
    [
        (Tally(TrialCounts(failed=3), last_failure="trial 7: boom"), "trial 7: boom"),
        (Tally(SOME, goal=GOAL), GOAL),
        (Tally(SOME, spent=TIME_OVER), "the timeout of 6h since the first trial began was over after 4 of 10 trials"),
        (Tally(NONE, spent=TIME_OVER), "began was over before a trial was complete"),
        (Tally(SOME, spent=GPUS_USED), "8 of 8 GPU hours were used after 4 of 10 trials"),
    ],
)
def test_the_message_says_what_was_reached(tally: Tally, said: str) -> None:
    assert said in judge(tally, LIMITED, NOW).message


@pytest.mark.parametrize(
    ("budget", "holds"),
    [
        ({"timeout": "6h"}, True),
        ({"timeout": "360m"}, True),
        ({"timeout": "5h"}, True),
        ({"timeout": "6h1s"}, False),
        ({}, False),
        ({"gpuHours": 1}, False),
    ],
)
def test_a_recorded_end_holds_until_the_limit_is_raised_or_removed(budget: dict[str, object], holds: bool) -> None:
    record = record_of(reasons.TIMEOUT_REACHED, LIMITED)
    assert still_reached(record, Budget.model_validate(budget)) == (reasons.TIMEOUT_REACHED if holds else None)


def test_the_next_limit_is_due_when_the_first_of_them_is() -> None:
    running = Spent(began=NOW - 5 * HOUR, gpu_seconds=2 * 3600, gpus=4, since=NOW - HOUR)
    assert running.due(LIMITED) == NOW + HOUR / 2, "two of the eight hours are left, and four GPUs take them"
    assert running.due(Budget(timeout=Duration("6h"))) == NOW + HOUR
    assert running.due(BUDGET) is None
    assert Spent().due(LIMITED) is None
