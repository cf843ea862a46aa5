"""Whether a study goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from hpstudy.api import reasons
from hpstudy.api.status import TrialCounts
from hpstudy.api.study import Budget
from hpstudy.storage.reading import Stop
from hpstudy.trials.outcome import Outcome


class Next(Enum):
    """What a worker group that is free does next."""

    ASK = auto()
    """Another trial fits the budget."""
    WAIT = auto()
    """The running trials fill it; one that fails leaves room."""
    SUCCEEDED = auto()
    """It is used up, or more trials would be of no use."""
    FAILED = auto()
    """Too many trials failed."""


@dataclass(frozen=True)
class Verdict:
    """What is next, and for the end of a study the reason."""

    next: Next
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Standing:
    """How a study stands."""

    verdict: Verdict
    finished: int
    """Trials that have ended, in whatever way."""
    left: Mapping[int, Outcome]
    """How those that were found running ended, by their numbers."""


def judge(counts: TrialCounts, budget: Budget, last_failure: str | None = None, stop: Stop | None = None) -> Verdict:
    """Decide from what the storage says alone, so that worker groups and the operator come to the same answer."""
    if counts.failed > budget.max_failed_trials:
        return Verdict(
            Next.FAILED,
            reasons.MAX_FAILED_TRIALS_EXCEEDED,
            f"{counts.failed} trials failed, the budget allows {budget.max_failed_trials}; last: {last_failure}",
        )
    finished = counts.complete + counts.pruned
    if finished >= budget.max_trials:
        return Verdict(Next.SUCCEEDED, reasons.MAX_TRIALS_REACHED, f"{finished} of {budget.max_trials} trials finished")
    if stop is not None:
        return Verdict(Next.SUCCEEDED, stop.reason, stop.message)
    return Verdict(Next.WAIT if finished + counts.running >= budget.max_trials else Next.ASK)
