"""The driver of a worker group: alone in holding storage and sampler, it hands trials to the pods' supervisors.

A process of its own on pod 0, because sockets and a database's connections do not survive a fork. It ends when its
supervisor does.
"""

import logging
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import wait
from typing import Any

from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.storage.attributes import Failure
from hpstudy.trials.budget import Next
from hpstudy.trials.causes import Cause, Kind, root_cause
from hpstudy.trials.channel import Link, accept
from hpstudy.trials.loop import Assignment, TrialLoop
from hpstudy.trials.messages import (
    Abort,
    Answer,
    Exit,
    Finished,
    Hello,
    Invalid,
    Message,
    Prepared,
    Progress,
    Report,
    Result,
    Run,
    Stopping,
    receive,
    send,
)
from hpstudy.trials.outcome import Outcome, conclude, conclude_pruned
from hpstudy.worker.events import Events

_log = logging.getLogger(__name__)

_WAIT_SECONDS = 1.0
"""How often a group that has no trial looks whether another group's failed and left room."""


class _SupervisorGoneError(Exception):
    """The driver's own supervisor ended: so must the driver."""


@dataclass
class _Node:
    link: "Link[bytes, bytes]"
    prepared: bool = False


@dataclass
class _Attempt:
    """The trial in hand."""

    assignment: Assignment
    waiting_for: set[int]
    causes: list[Cause] = field(default_factory=list)
    lost: str | None = None
    preempted: bool = False
    result: Result | None = None
    aborted: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)


class Driver:
    """Runs the trials of one group until the study is over.

    Args:
        servers: where supervisors and rank zero connect; made before the fork, so that nobody comes too early.
        key: what those must know.
    """

    def __init__(
        self, spec: StudySpec, loop: TrialLoop, servers: list[socket.socket], key: bytes, events: Events
    ) -> None:
        self._spec = spec
        self._loop = loop
        self._servers = servers
        self._key = key
        self._events = events
        self._nodes: dict[int, _Node] = {}
        self._strangers: list[Link[bytes, bytes]] = []
        self._attempt: _Attempt | None = None
        self._stopping = False

    def run(self) -> None:
        """Until the study is over, the pod is told to stop, or its supervisor is gone."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # the supervisor is told, and tells the driver what is to be done
        try:
            with self._loop:
                self._events.emit("ready")
                self._run_trials()
            self._send_all(Exit())
        except InvalidStudyError as error:
            with suppress(_SupervisorGoneError, InvalidStudyError):
                self._wait_for(lambda: 0 in self._nodes)
            self._send_all(Exit(reason=error.reason, message=error.message))
        except _SupervisorGoneError:
            _log.warning("the supervisor is gone")

    def _run_trials(self) -> None:
        while not self._stopping:
            self._wait_for(self._complete)
            if self._stopping:
                return
            assigned = self._loop.next()
            if isinstance(assigned, Assignment):
                self._train(assigned)
            elif assigned.next is Next.WAIT:
                self._handle(time.monotonic() + _WAIT_SECONDS)
            else:
                self._events.emit("finished", reason=assigned.reason, message=assigned.message)
                return

    def _complete(self) -> bool:
        return self._stopping or (
            len(self._nodes) == self._spec.workers.nodes and all(node.prepared for node in self._nodes.values())
        )

    def _train(self, assignment: Assignment) -> None:
        self._events.emit("trial", number=assignment.number, parameters=assignment.parameters)
        started = time.monotonic()
        attempt = self._attempt = _Attempt(assignment, set(self._nodes))
        run = Run(
            number=assignment.number,
            parameters=assignment.parameters,
            continues=assignment.continues,
            port=_free_port(),
        )
        try:
            self._send_all(run)
            while attempt.waiting_for:
                self._handle(None)
            self._drain()
        except _SupervisorGoneError:
            self._finish(attempt, started, Outcome(failure=Failure.LOST, message="the worker's supervisor is gone"))
            raise
        self._finish(attempt, started, self._judge(attempt))

    def _judge(self, attempt: _Attempt) -> Outcome:
        if attempt.preempted:
            return Outcome(failure=Failure.PREEMPTED, message="the worker was told to stop", metrics=attempt.metrics)
        cause = root_cause(attempt.causes)
        if attempt.lost and (cause is None or cause.kind is not Kind.RAISED):
            return Outcome(failure=Failure.LOST, message=attempt.lost, metrics=attempt.metrics)
        if cause is not None:
            if cause.traceback:
                _log.error("trial %d failed on rank %d\n%s", attempt.assignment.number, cause.rank, cause.traceback)
            return Outcome(failure=Failure.ERROR, message=cause.message, metrics=attempt.metrics)
        if attempt.result is None:
            return Outcome(failure=Failure.ERROR, message="the ranks ended without a result", metrics=attempt.metrics)
        if attempt.result.pruned:
            return conclude_pruned(attempt.metrics, self._spec)
        return conclude(attempt.result.metrics, self._spec)

    def _finish(self, attempt: _Attempt, started: float, outcome: Outcome) -> None:
        self._attempt = None
        self._loop.tell(attempt.assignment, outcome)
        state = "failed" if outcome.failure else "pruned" if outcome.pruned else "complete"
        self._events.emit(
            "end",
            number=attempt.assignment.number,
            state=state,
            failure=outcome.failure,
            message=outcome.message,
            values=outcome.values,
            metrics=dict(outcome.metrics),
            seconds=round(time.monotonic() - started, 3),
        )

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._handle(None)

    def _handle(self, deadline: float | None) -> None:
        """Wait for messages and act on them, until the deadline at the latest."""
        links = [*self._strangers, *(node.link for node in self._nodes.values())]
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        for ready in wait([*self._servers, *links], timeout):
            if isinstance(ready, socket.socket):
                self._accept(ready)
            elif isinstance(ready, Link) and not ready.closed:  # one message may have closed another's link
                self._read(ready)

    def _drain(self) -> None:
        """Read what rank zero said before its node said that it ended."""
        for link in list(self._strangers):
            while not link.closed and link.poll(0):
                self._read(link)

    def _accept(self, server: socket.socket) -> None:
        try:
            self._strangers.append(accept(server, self._key))
        except (OSError, EOFError, AuthenticationError) as error:
            _log.warning("refused a connection: %s", error)

    def _read(self, link: "Link[bytes, bytes]") -> None:
        node = next((number for number, node in self._nodes.items() if node.link is link), None)
        try:
            message = receive(link)
        except (EOFError, OSError):
            link.close()
            if node is None:
                self._strangers = [stranger for stranger in self._strangers if stranger is not link]
            else:
                self._lose(node)
            return
        if node is None:
            self._from_stranger(link, message)
        else:
            self._from_node(node, message)

    def _from_stranger(self, link: "Link[bytes, bytes]", message: Message) -> None:
        """A supervisor that introduces itself, or training rank zero."""
        attempt = self._attempt
        match message:
            case Hello(node=node):
                self._strangers.remove(link)
                if node in self._nodes:  # its old connection is dead, only not yet known to be
                    self._nodes[node].link.close()
                    self._lose(node)
                self._nodes[node] = _Node(link)
            case Progress(share=share) if attempt:
                self._events.emit("progress", number=attempt.assignment.number, share=share)
            case Report(step=step, metrics=metrics) if attempt:
                attempt.metrics = metrics
                prune = self._loop.report(attempt.assignment, step, metrics)
                self._events.emit("report", number=attempt.assignment.number, step=step, metrics=metrics)
                self._send(link, Answer(prune=prune))
            case Result() if attempt:
                attempt.result = message

    def _from_node(self, node: int, message: Message) -> None:
        match message:
            case Prepared():
                self._nodes[node].prepared = True
            case Invalid(reason=reason, message=text):
                raise InvalidStudyError(reason, text)
            case Finished(number=number, cause=cause) if self._attempt and number == self._attempt.assignment.number:
                self._attempt.waiting_for.discard(node)
                if cause is not None:
                    self._attempt.causes.append(cause)
            case Stopping():
                # Pod 0 takes the driver with it; another pod's trial is handed back, and its replacement awaited.
                self._stopping = self._stopping or node == 0
                if self._attempt:
                    self._attempt.preempted = True
                    self._abort()

    def _lose(self, node: int) -> None:
        del self._nodes[node]
        if node == 0:
            raise _SupervisorGoneError
        _log.warning("node %d is gone", node)
        if self._attempt and node in self._attempt.waiting_for:
            self._attempt.waiting_for.discard(node)
            self._attempt.lost = self._attempt.lost or f"the pod of node {node} is gone"
            self._abort()

    def _abort(self) -> None:
        if self._attempt and not self._attempt.aborted:
            self._attempt.aborted = True
            self._send_all(Abort())

    def _send_all(self, message: Message) -> None:
        for node in list(self._nodes.values()):
            self._send(node.link, message)

    def _send(self, link: "Link[bytes, bytes]", message: Message) -> None:
        try:
            send(link, message)
        except OSError:
            _log.debug("a peer hung up; its end is read next")


def _free_port() -> int:
    """A port for the ranks' rendezvous. Another program may take it before they do; the trial then fails to start as a
    rendezvous error, which is worth one more run and not a registry of ports."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
