"""Whether a study goes on."""

import pytest

from hpstudy.api.status import TrialCounts
from hpstudy.api.study import Budget
from hpstudy.trials.budget import Next, judge

BUDGET = Budget(max_trials=10, max_failed_trials=2)


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
    assert judge(counts, BUDGET).next is expected


def test_no_failure_is_allowed_when_none_is() -> None:
    assert judge(TrialCounts(failed=1), Budget(max_failed_trials=0)).next is Next.FAILED


def test_the_last_error_is_in_the_message() -> None:
    assert "trial 7: boom" in judge(TrialCounts(failed=3), BUDGET, "trial 7: boom").message
