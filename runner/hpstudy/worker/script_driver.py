"""The driver of a worker group whose trials are a script's (``trial.script``).

Rank zero of the script holds the storage and runs the trials; this process only starts the script on all nodes, again
and again until the study is over, and ends what a script that failed left running.
"""

import logging
import socket
import time
from dataclasses import dataclass, field

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.storage.attributes import Failure
from hpstudy.trials.budget import Next, Standing
from hpstudy.trials.causes import Cause, Kind, root_cause
from hpstudy.trials.channel import Link
from hpstudy.trials.events import Events
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.messages import Abort, Begin, Finished, Idle, Message, Prepared, Run
from hpstudy.trials.outcome import PREEMPTED, Outcome
from hpstudy.worker.leader import LAST_WORDS_SECONDS, Leader, SupervisorGoneError, check_gpu_hours, patience

_log = logging.getLogger(__name__)

_MAX_FAILURES = 3
"""In a row, without a trial that ended: a script that cannot even start would be started for ever."""
_LEAVING_SECONDS = 10.0
"""After the ranks of one node ended well, those of the others, who were at the script's end at the same moment, must
have ended, too."""
_LAST_LINES = 5
"""Of a traceback, for the study's condition."""


@dataclass
class _Launch:
    """The script as it runs on all nodes.

    Attributes:
        waiting_for: nodes whose ranks have not ended.
        decided: why this driver ended it.
        deadline: when its trial has taken too long, and
        abort_at: when the ranks that still run are ended; on the clock of ``time.monotonic``.
    """

    number: int
    waiting_for: set[int]
    causes: list[Cause] = field(default_factory=list)
    decided: tuple[Failure, str] | None = None
    deadline: float | None = None
    abort_at: float | None = None

    @property
    def due(self) -> float | None:
        """When the driver has to look at it without a message."""
        return min((at for at in (self.deadline, self.abort_at) if at is not None), default=None)

    @property
    def cause(self) -> Cause | None:
        """The root cause, where it failed."""
        return root_cause(self.causes)

    def left(self) -> Outcome:
        """How the trial ended that the script may have left running."""
        cause = self.cause
        if self.decided and (self.decided[0] is not Failure.LOST or cause is None or cause.kind is not Kind.RAISED):
            return Outcome(failure=self.decided[0], message=self.decided[1])
        if cause is not None:
            return Outcome(failure=cause.failure, message=cause.message)
        return Outcome(failure=Failure.ERROR, message="the script ended before the trial did")


class ScriptDriver(Leader):
    """Runs the script of one group until the study is over.

    Args:
        loop: of the study; never entered, as rank zero of the script is who runs the trials.
        servers: where supervisors connect; made before the fork, so that nobody comes too early.
        key: what those must know.
        url: of the storage, from which the key was made.
    """

    def __init__(
        self, spec: StudySpec, loop: TrialLoop, servers: list[socket.socket], key: bytes, events: Events, url: str
    ) -> None:
        self._loop = loop
        super().__init__(spec, servers, key, events, url)
        self._launch: _Launch | None = None

    def _lead(self) -> None:
        try:
            self._run_scripts()
        except SupervisorGoneError:  # its ranks have ended with it
            self._settle(Outcome(failure=Failure.LOST, message="the worker's supervisor is gone"))
            raise

    def _run_scripts(self) -> None:
        standing = self._settle(None)
        self._events.emit("ready")
        failures = number = 0
        while standing.verdict.next in (Next.ASK, Next.WAIT):
            self._listen_until(lambda: self._stopping or self._nodes.prepared == self._spec.workers.nodes)
            if self._stopping:
                return
            launch = self._run_script(number)
            number += 1
            before, standing = standing, self._settle(launch.left())
            self._let_go()
            if launch.decided:
                continue
            if cause := launch.cause:
                _log.error("the script failed on rank %d: %s\n%s", cause.rank, cause.message, cause.traceback)
            failures = 0 if standing.finished > before.finished else failures + 1
            if standing.verdict.next in (Next.ASK, Next.WAIT):
                if failures:
                    self._give_up_on(cause, failures)
            elif cause:  # what it does with the best trial
                self._events.emit("script-failed", message=cause.message)
        verdict = standing.verdict
        event = "leaving" if verdict.next is Next.LEAVE else "finished"
        self._events.emit(event, reason=verdict.reason, message=verdict.message)

    def _give_up_on(self, cause: Cause | None, failures: int) -> None:
        """Judge a script that ended and finished no trial.

        Raises:
            InvalidStudyError: it would do so again.
        """
        assert self._spec.trial.script is not None
        path = self._spec.trial.script.path
        if cause is None:
            raise InvalidStudyError(
                reasons.SCRIPT_ENDED,
                f"trial.script {path} ended without running a trial; it must call "
                "hpstudy.hyperparameter_search(trainer, ...)",
            )
        if cause.invalid is not None:
            raise InvalidStudyError(cause.invalid, cause.message)
        if failures >= _MAX_FAILURES:
            lines = "\n".join(cause.traceback.splitlines()[-_LAST_LINES:]) or cause.message
            raise InvalidStudyError(
                reasons.SCRIPT_FAILED,
                f"trial.script {path} failed {failures} times without finishing a trial; last:\n{lines}",
            )

    def _run_script(self, number: int) -> _Launch:
        launch = self._launch = _Launch(number, set(self._nodes))
        self._send_all(Run(number=number, parameters={}), self._nodes)
        while launch.waiting_for:
            self._nodes.listen(patience(launch.due))
            if launch.due is not None and time.monotonic() >= launch.due:
                if launch.due == launch.deadline:
                    message = f"took longer than trialTimeout {self._spec.trial_timeout}"
                    launch.decided = launch.decided or (Failure.TIMEOUT, message)
                launch.deadline = launch.abort_at = None
                self._abort(launch)
        self._nodes.drain(apart=())  # what its rank zero still said is not the next one's
        self._launch = None
        return launch

    def _settle(self, left: Outcome | None) -> Standing:
        standing = self._loop.settle(left)
        for number, outcome in standing.left.items():
            self._events.emit_end(number, outcome, 0.0)
        return standing

    def from_rank(self, link: "Link[bytes, bytes]", message: Message) -> None:
        """A script's says when a trial begins and has ended."""
        if self._launch is not None and self._spec.trial_timeout is not None:
            match message:
                case Begin():
                    self._launch.deadline = time.monotonic() + self._spec.trial_timeout.seconds
                case Idle():
                    self._launch.deadline = None

    @property
    def _busy(self) -> bool:
        return self._launch is not None

    def _prepared(self, node: int, message: Prepared) -> None:
        """The script may be started when all nodes are."""
        check_gpu_hours(self._spec, message.held)

    def _hear(self, node: int, message: Message) -> None:
        launch = self._launch
        match message:
            case Finished(number=number, cause=cause) if launch and launch.number == number:
                launch.waiting_for.discard(node)
                if cause is not None:
                    launch.causes.append(cause)
                patience = _LEAVING_SECONDS if cause is None else LAST_WORDS_SECONDS
                launch.abort_at = launch.abort_at or time.monotonic() + patience

    def _stop(self) -> None:
        if self._launch:
            self._launch.decided = self._launch.decided or PREEMPTED
            self._abort(self._launch)

    def _lost(self, node: int) -> None:
        if self._launch and node in self._launch.waiting_for:
            self._launch.waiting_for.discard(node)
            self._launch.decided = self._launch.decided or (Failure.LOST, f"the pod of node {node} is gone")
            self._abort(self._launch)

    def _abort(self, launch: _Launch) -> None:
        for node in launch.waiting_for:
            self._nodes.send(node, Abort(number=launch.number))
