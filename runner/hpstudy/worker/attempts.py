"""One trial in the hands of the driver, from its start to the judgement of how it ended."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from hpstudy.api.study import StudySpec
from hpstudy.storage.attributes import Failure
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.causes import Cause, Kind, root_cause
from hpstudy.trials.channel import Link
from hpstudy.trials.messages import Result
from hpstudy.trials.outcome import PREEMPTED, Outcome, conclude, conclude_pruned

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Session:
    """Ranks that live for many trials (``workers.isolation: inline``).

    Attributes:
        launch: number of the trial that they were launched for.
        waiting_for: nodes whose ranks have not ended.
        link: rank zero's.
        ending: on one node they have ended, or were told to; no trial must be given to the others.
    """

    launch: int
    waiting_for: set[int]
    link: "Link[bytes, bytes] | None" = None
    ending: bool = False


@dataclass(eq=False)
class Attempt:
    """A trial that runs.

    Attributes:
        slot: its place among those that share the pod.
        waiting_for: nodes whose ranks have not ended.
        launch: number of the trial that its ranks were launched for; another's where they live for many.
        link: rank zero's.
        decided: how it ends without a result, whatever else its ranks say, because the driver ended it.
        stoppable: its ranks look whether they are asked to stop, and save before they do.
        stopping: its worker was told to stop.
        lost: which node went away.
        deadline: when it has taken too long, and
        abort_at: when the ranks that still run are ended; on the clock of ``time.monotonic``.
    """

    assignment: Assignment
    slot: int
    waiting_for: set[int]
    launch: int
    started: float = field(default_factory=time.monotonic)
    link: "Link[bytes, bytes] | None" = None
    causes: list[Cause] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    result: Result | None = None
    decided: tuple[Failure, str] | None = None
    stoppable: bool = False
    stopping: bool = False
    lost: str | None = None
    deadline: float | None = None
    abort_at: float | None = None
    aborted: bool = False

    @property
    def number(self) -> int:
        """The trial's, in the study."""
        return self.assignment.number

    @property
    def seconds(self) -> float:
        """Since it started."""
        return time.monotonic() - self.started

    @property
    def due(self) -> float | None:
        """When the driver has to look at it without a message."""
        times = [at for at in (self.deadline, self.abort_at) if at is not None]
        return min(times) if times and not self.aborted else None

    def judge(self, spec: StudySpec) -> Outcome:
        """How it ended, once no node runs it any more."""
        failure = self._failure()
        if failure is not None:
            return Outcome(failure=failure[0], message=failure[1], metrics=self.metrics)
        assert self.result is not None
        if self.result.pruned:
            return conclude_pruned(self.metrics, spec)
        return conclude(self.result.metrics, spec)

    def _failure(self) -> tuple[Failure, str] | None:
        cause = root_cause(self.causes)
        if self.result is not None and not self._failed_itself(cause):
            return None  # its checkpoint is published: that we end the ranks after that undoes nothing
        if self.decided:
            return self.decided
        if self.stopping:
            return PREEMPTED
        if self.lost and (cause is None or cause.kind is not Kind.RAISED):
            return Failure.LOST, self.lost
        if cause is not None:
            if cause.traceback:
                _log.error("trial %d failed on rank %d\n%s", self.number, cause.rank, cause.traceback)
            return cause.failure, cause.message
        return Failure.ERROR, "the ranks ended without a result"

    def _failed_itself(self, cause: Cause | None) -> bool:
        """Whether a rank failed, though rank zero had its result: by an error, or by a kill that nobody here meant."""
        if cause is None or cause.kind is Kind.SECONDARY:
            return False
        return cause.kind is Kind.RAISED or not (self.decided or self.stopping or self.lost)
