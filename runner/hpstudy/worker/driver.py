"""The driver of a worker group: alone in holding storage and sampler, it hands trials to the pods' supervisors.

A process of its own on pod 0, because sockets and a database's connections do not survive a fork. It ends when its
supervisor does.
"""

import logging
import socket
import time

from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.storage.attributes import Failure
from hpstudy.storage.errors import StorageRefusedError, StorageUnreachableError
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Next
from hpstudy.trials.channel import Link
from hpstudy.trials.events import Events
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.messages import (
    Abort,
    Answer,
    Begin,
    Failed,
    Finished,
    Message,
    Prepared,
    Progress,
    Report,
    Result,
    Run,
    Stop,
    Stoppable,
    Stopped,
)
from hpstudy.trials.outcome import PREEMPTED, Outcome
from hpstudy.trials.ownership import KEEP_SECONDS
from hpstudy.worker.attempts import Attempt, Session
from hpstudy.worker.grace import grace_seconds
from hpstudy.worker.leader import LAST_WORDS_SECONDS, Leader, SupervisorGoneError, check_gpu_hours, patience
from hpstudy.worker.slots import Slots

_log = logging.getLogger(__name__)

_SAVING_SHARE = 2 / 3
"""Of the pod's grace period, for trials to save: the rest is for telling how they ended."""
_MESSAGE_LIMIT = 2000  # characters; a database's error repeats its statement


class Driver(Leader):
    """Runs the trials of one group until the study is over.

    Args:
        servers: where supervisors and rank zeros connect; made before the fork, so that nobody comes too early.
        key: what those must know.
        url: of the storage, from which the key was made.
    """

    def __init__(
        self, spec: StudySpec, loop: TrialLoop, servers: list[socket.socket], key: bytes, events: Events, url: str
    ) -> None:
        self._loop = loop
        super().__init__(spec, servers, key, events, url)
        self._slots: Slots | None = None
        self._gpus = 0
        """That the group holds."""
        self._attempts: dict[int, Attempt] = {}
        self._session: Session | None = None
        self._held: Assignment | None = None
        """A trial that runs alone, while others still do."""
        self._ask_at: float | None = 0.0
        """When to ask for the next trial; None: there will be no more."""

    def _lead(self) -> None:
        with self._loop:
            self._events.emit("ready")
            try:
                self._run_trials()
            except SupervisorGoneError:
                self._hand_back(Failure.LOST, "the worker's supervisor is gone")
                raise
            except InvalidStudyError as error:
                self._hand_back(Failure.PREEMPTED, f"the study cannot go on: {error.message}")
                raise

    def _run_trials(self) -> None:
        while self._attempts or self._ask_at is not None:
            self._fill()
            if self._attempts or self._ask_at is not None:
                self._nodes.listen(self._patience())
                self._loop.keep()
            for attempt in list(self._attempts.values()):
                if not attempt.waiting_for:
                    self._finish(attempt)
                elif attempt.due is not None and time.monotonic() >= attempt.due:
                    self._end_overdue(attempt)
            self._let_go()

    def _fill(self) -> None:
        """Start trials while there is room for them and the budget has some."""
        if self._held is not None and not self._attempts:
            held, self._held = self._held, None
            self._start(held)
        while self._can_start() and self._ask_at is not None and time.monotonic() >= self._ask_at:
            assert self._slots is not None
            assigned = self._loop.next(self._gpus, self._slots.count)
            if isinstance(assigned, Assignment) and assigned.alone and self._attempts:
                self._held = assigned
            elif isinstance(assigned, Assignment):
                self._start(assigned)
            elif assigned.next is Next.WAIT or self._attempts:  # how those in hand end may change the answer
                self._ask_at = time.monotonic() + assigned.after
            else:
                event = "leaving" if assigned.next is Next.LEAVE else "finished"
                self._events.emit(event, reason=assigned.reason, message=assigned.message)
                self._ask_at = None

    def _can_start(self) -> bool:
        ready = self._nodes.prepared == self._spec.workers.nodes and (self._session is None or not self._session.ending)
        alone = self._held is not None or any(attempt.assignment.alone for attempt in self._attempts.values())
        return ready and not alone and self._slots is not None and self._slots.has_room

    def _patience(self) -> float | None:
        """Seconds until something is due without a message."""
        due = [time.monotonic() + KEEP_SECONDS]
        due += [attempt.due for attempt in self._attempts.values() if attempt.due is not None]
        if self._ask_at is not None and self._can_start():
            due.append(self._ask_at)
        return patience(min(due))

    def _start(self, assignment: Assignment) -> None:
        assert self._slots is not None
        self._events.emit("trial", number=assignment.number, parameters=assignment.parameters)
        nodes = set(self._nodes)
        attempt = Attempt(assignment, self._slots.take(), waiting_for=nodes, launch=assignment.number)
        if self._spec.trial_timeout is not None:
            attempt.deadline = attempt.started + self._spec.trial_timeout.seconds
        self._attempts[attempt.number] = attempt
        run = Run(
            number=attempt.number,
            parameters=assignment.parameters,
            continues=assignment.continues,
            slot=attempt.slot,
            slots=self._slots.count,
        )
        if self._session is not None:
            assert self._session.link is not None  # its first trial has ended
            attempt.launch = self._session.launch
            self._nodes.answer(self._session.link, run)
            return
        if self._spec.workers.isolation == "inline":
            self._session = Session(attempt.number, set(nodes))
        self._send_all(run, self._nodes)

    def _finish(self, attempt: Attempt) -> None:
        """Judge a trial that no node runs any more. What its rank zero said before its node said that it ended comes
        first: they are different connections."""
        self._nodes.drain(apart=[other.link for other in self._attempts.values() if other is not attempt])
        self._tell(attempt, attempt.judge(self._spec))

    def _end_overdue(self, attempt: Attempt) -> None:
        if attempt.abort_at is None:
            attempt.decided = Failure.TIMEOUT, f"took longer than trialTimeout {self._spec.trial_timeout}"
        self._abort(attempt)

    def _tell(self, attempt: Attempt, outcome: Outcome) -> None:
        assert self._slots is not None
        del self._attempts[attempt.number]
        self._slots.release(attempt.slot)
        if attempt.result is not None and attempt.result.memory is not None:
            self._slots.note_memory(attempt.result.memory)
        if outcome.failure is Failure.OOM:
            self._slots.note_out_of_memory()
        try:
            outcome = self._loop.tell(attempt.assignment, outcome)
        except Exception as error:
            if not _is_of_the_trial(error):
                raise
            _log.exception("the end of trial %d was refused", attempt.number)
            outcome = Outcome(failure=Failure.ERROR, message=_refused("end", error))
            outcome = self._loop.tell(attempt.assignment, outcome)
        self._events.emit_end(attempt.number, outcome, attempt.seconds)
        if self._session is not None and self._session.ending:
            self._end_session(self._session)
        if self._ask_at is not None:
            self._ask_at = 0.0

    def _hand_back(self, failure: Failure, message: str) -> None:
        """End the trials in hand, whose ranks end with the supervisor."""
        self._hand_back_held(failure, message)
        for attempt in list(self._attempts.values()):
            if attempt.waiting_for:
                attempt.decided = attempt.decided or (failure, message)
            self._finish(attempt)

    def _hand_back_held(self, failure: Failure, message: str) -> None:
        if self._held is not None:
            self._loop.tell(self._held, Outcome(failure=failure, message=message))
            self._held = None

    def from_rank(self, link: "Link[bytes, bytes]", message: Message) -> None:
        """Act on what a rank zero said."""
        if isinstance(message, Begin) and message.number in self._attempts:
            self._attempts[message.number].link = link
            if self._session is not None:
                self._session.link = link
        attempt = next((attempt for attempt in self._attempts.values() if attempt.link is link), None)
        if attempt is None:
            return
        match message:
            case Progress(share=share):
                self._events.emit("progress", number=attempt.number, share=share)
            case Report():
                self._report(attempt, link, message)
            case Stoppable():
                attempt.stoppable = True
            case Stopped():
                attempt.decided = attempt.decided or PREEMPTED
                self._abort(attempt)
            case Result():
                attempt.result = message
                if self._session is not None:
                    attempt.waiting_for.clear()
            case Failed(cause=cause):
                attempt.causes.append(cause)
                attempt.waiting_for.clear()

    def _report(self, attempt: Attempt, link: "Link[bytes, bytes]", report: Report) -> None:
        """Record it and answer. What storage, sampler or pruner cannot take ends this trial, and no other."""
        try:
            prune = self._loop.report(attempt.assignment, report.step, report.metrics, past=report.past)
        except Exception as error:
            if not _is_of_the_trial(error):
                raise
            _log.exception("a report of trial %d was refused", attempt.number)
            attempt.decided = attempt.decided or (Failure.ERROR, _refused("report", error))
            self._abort(attempt)
        else:
            attempt.metrics = report.metrics
            self._events.emit("report", number=attempt.number, step=report.step, metrics=report.metrics)
            self._nodes.answer(link, Answer(prune=prune))

    @property
    def _busy(self) -> bool:
        return bool(self._attempts)

    def _prepared(self, node: int, message: Prepared) -> None:
        check_gpu_hours(self._spec, message.held)
        if node == 0:
            self._gpus = message.held * self._spec.workers.nodes
            trials = self._spec.budget.max_trials
            shape = (message.processes, message.cpus, message.gpus)
            self._slots = Slots(self._spec.workers.trials_per_pod, *shape, trials)

    def _hear(self, node: int, message: Message) -> None:
        match message:
            case Finished(number=number, cause=cause):
                for attempt in self._attempts.values():
                    if attempt.launch == number:
                        attempt.waiting_for.discard(node)
                        if cause is not None:
                            attempt.causes.append(cause)
                            attempt.abort_at = attempt.abort_at or time.monotonic() + LAST_WORDS_SECONDS
                if self._session is not None and self._session.launch == number:
                    self._leave_session(self._session, node)

    def _stop(self) -> None:
        """Trials that can save get the time for it; the others have nothing to lose."""
        if self._stopping:
            self._ask_at = None
            self._hand_back_held(*PREEMPTED)
        for attempt in self._attempts.values():
            if attempt.stopping:
                continue
            attempt.stopping = True
            if attempt.stoppable and attempt.link is not None and attempt.decided is None:
                self._nodes.answer(attempt.link, Stop())
                latest = time.monotonic() + _SAVING_SHARE * grace_seconds()
                attempt.abort_at = min(attempt.abort_at or latest, latest)
            else:
                attempt.decided = attempt.decided or PREEMPTED
                self._abort(attempt)

    def _lost(self, node: int) -> None:
        for attempt in self._attempts.values():
            if node in attempt.waiting_for:
                attempt.waiting_for.discard(node)
                attempt.lost = attempt.lost or f"the pod of node {node} is gone"
                self._abort(attempt)
        if self._session is not None and node in self._session.waiting_for:
            self._leave_session(self._session, node)

    def _abort(self, attempt: Attempt) -> None:
        if not attempt.aborted:
            attempt.aborted = True
            if self._session is not None:
                self._session.ending = True
            for node in attempt.waiting_for:
                self._nodes.send(node, Abort(number=attempt.launch))

    def _leave_session(self, session: Session, node: int) -> None:
        """The ranks of one node have ended: so do the others, at once where no trial's last words are awaited."""
        session.ending = True
        session.waiting_for.discard(node)
        if not session.waiting_for:
            self._session = None
        elif not self._attempts:
            self._end_session(session)

    def _end_session(self, session: Session) -> None:
        for node in session.waiting_for:
            self._nodes.send(node, Abort(number=session.launch))


def _is_of_the_trial(error: Exception) -> bool:
    """Whether an error is of what this trial said, and not of its study or of a storage that is away."""
    return isinstance(error, StorageRefusedError) or not isinstance(error, (StorageUnreachableError, InvalidStudyError))


def _refused(what: str, error: Exception) -> str:
    return f"its {what} was refused: {type(error).__name__}: {error}"[:_MESSAGE_LIMIT]
