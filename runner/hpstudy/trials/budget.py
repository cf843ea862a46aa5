"""Whether a study goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from hpstudy.api import reasons
from hpstudy.api.study import Budget
from hpstudy.storage.reading import Tally
from hpstudy.trials.outcome import Outcome

WAIT_SECONDS = 1.0
"""How often a group that has no trial looks whether another group's failed and left room."""
USED_UP = frozenset({reasons.GPU_HOURS_REACHED, reasons.TIMEOUT_REACHED})
"""Ends that come with time: what was spent until then was for nothing where no trial is complete."""


class Next(Enum):
    """What a worker group that is free does next."""

    ASK = auto()
    """Another trial fits the budget."""
    WAIT = auto()
    """The running trials fill it; one that fails leaves room."""
    SUCCEEDED = auto()
    """It is used up, or more trials would be of no use."""
    FAILED = auto()
    """Too many trials failed, or the time was over before one was complete. That may still change as long as trials
    run."""
    LEAVE = auto()
    """The study goes on without this group, or with it made anew."""


@dataclass(frozen=True)
class Verdict:
    """What is next, and for the end of a study the reason."""

    next: Next
    reason: str = ""
    message: str = ""
    after: float = WAIT_SECONDS
    """Seconds until it is worth asking again, for a group that waits."""


@dataclass(frozen=True)
class Standing:
    """How a study stands."""

    verdict: Verdict
    finished: int
    """Trials that have ended, in whatever way."""
    left: Mapping[int, Outcome]
    """How those that were found running ended, by their numbers."""


def judge(tally: Tally, budget: Budget, now: datetime) -> Verdict:
    """Decide from what the storage says alone, so that worker groups and the operator come to the same answer. Where
    several limits are reached, the first of these counts: goal, maxFailedTrials, maxTrials, stopWhen or an exhausted
    space, gpuHours, timeout."""
    counts = tally.counts
    if tally.goal is not None:
        return Verdict(Next.SUCCEEDED, reasons.GOAL_REACHED, tally.goal)
    if counts.failed > budget.max_failed_trials:
        return Verdict(
            Next.FAILED,
            reasons.MAX_FAILED_TRIALS_EXCEEDED,
            f"{counts.failed} trials failed, the budget allows {budget.max_failed_trials}; last: {tally.last_failure}",
        )
    finished = counts.complete + counts.pruned
    if finished >= budget.max_trials:
        return Verdict(Next.SUCCEEDED, reasons.MAX_TRIALS_REACHED, f"{finished} of {budget.max_trials} trials finished")
    if tally.stop is not None:
        return Verdict(Next.SUCCEEDED, tally.stop.reason, tally.stop.message)
    if (reason := tally.limit or _used_up(tally, budget, now)) is not None:
        used = _in_words(reason, tally, budget, now)
        if not counts.complete:
            return Verdict(Next.FAILED, reason, f"{used} before a trial was complete")
        return Verdict(Next.SUCCEEDED, reason, f"{used} after {finished} of {budget.max_trials} trials")
    return Verdict(Next.WAIT if finished + counts.running >= budget.max_trials else Next.ASK)


def _used_up(tally: Tally, budget: Budget, now: datetime) -> str | None:
    spent = tally.spent
    if budget.gpu_hours is not None and spent.gpu_hours(now) >= budget.gpu_hours:
        return reasons.GPU_HOURS_REACHED
    if budget.timeout is not None and spent.elapsed(now).total_seconds() >= budget.timeout.seconds:
        return reasons.TIMEOUT_REACHED
    return None


def _in_words(reason: str, tally: Tally, budget: Budget, now: datetime) -> str:
    if reason == reasons.GPU_HOURS_REACHED:
        return f"{tally.spent.gpu_hours(now):.4g} of {budget.gpu_hours:g} GPU hours were used"
    return f"the timeout of {budget.timeout} since the first trial began was over"
