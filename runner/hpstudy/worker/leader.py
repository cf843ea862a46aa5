"""What the drivers of a worker group have in common: its nodes come, go, and are let go."""

import logging
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.trials.channel import Link
from hpstudy.trials.events import Events
from hpstudy.trials.messages import Exit, Invalid, Message, Prepared, Stopping
from hpstudy.trials.outages import check_credentials
from hpstudy.worker.nodes import Nodes

_log = logging.getLogger(__name__)

LAST_WORDS_SECONDS = 2.0
"""After the ranks of one node failed, those of the others, who may know more of the cause, have so long to end by
themselves. They do in milliseconds, unless they wait for one that will not come."""


_CHECK_SECONDS = 10.0
"""Between two looks at whether the database still takes the password, while strangers call and a node is missing."""
_LONGEST_WAIT = 3600.0
"""Seconds; a trialTimeout of a month is more than select(2) takes."""


class SupervisorGoneError(Exception):
    """The driver's own supervisor ended: so must the driver."""


class Leader(ABC):
    """Leads the nodes of one group until the study is over.

    Args:
        servers: where supervisors and rank zeros connect; made before the fork, so that nobody comes too early.
        key: what those must know.
        url: of the storage, from which the key was made.
    """

    def __init__(self, spec: StudySpec, servers: list[socket.socket], key: bytes, events: Events, url: str) -> None:
        self._spec = spec
        self._url = url
        self._checked = -_CHECK_SECONDS
        self._events = events
        self._nodes = Nodes(servers, key, self)
        self._leaving: set[int] = set()
        """Nodes that were told to stop."""

    def run(self) -> None:
        """Until the study is over, the pod is told to stop, or its supervisor is gone."""
        try:
            self._lead()
            # Other nodes outlive a driver whose own pod must go: they wait for its replacement.
            self._send_all(Exit(), self._leaving if self._stopping else self._nodes)
        except InvalidStudyError as error:
            with suppress(SupervisorGoneError, InvalidStudyError):
                self._listen_until(lambda: 0 in self._nodes)
            self._send_all(Exit(reason=error.reason, message=error.message), self._nodes)
        except SupervisorGoneError:
            _log.warning("the supervisor is gone")

    @property
    def _stopping(self) -> bool:
        """Whether the driver's own pod must go."""
        return 0 in self._leaving

    def from_node(self, node: int, message: Message) -> None:
        """Act on what a supervisor said."""
        match message:
            case Prepared():
                self._nodes.mark_prepared(node)
                self._prepared(node, message)
            case Invalid(reason=reason, message=text):
                raise InvalidStudyError(reason, text)
            case Stopping():
                # Pod 0 takes the driver with it; another pod's trial is handed back, and its replacement awaited.
                self._leaving.add(node)
                self._nodes.mark_leaving(node)
                self._stop()
                self._let_go()
            case _:
                self._hear(node, message)

    def distrust(self) -> None:
        """Act on a caller with another key. It may be the node that is missing, whose pod has read the Secret after a
        change, while this one's session with the old password is still good: then nobody would ever come.

        Raises:
            CredentialsRefusedError: the password is no longer taken: a new pod reads the Secret anew.
        """
        now, there = time.monotonic(), sum(1 for _ in self._nodes)
        if there < self._spec.workers.nodes and not self._busy and now >= self._checked + _CHECK_SECONDS:
            self._checked = now
            check_credentials(self._url)

    def lose(self, node: int) -> None:
        """Act on the end of a supervisor.

        Raises:
            SupervisorGoneError: it is the driver's own.
        """
        if node == 0:
            raise SupervisorGoneError
        self._leaving.discard(node)
        _log.warning("node %d is gone", node)
        self._lost(node)

    def _let_go(self) -> None:
        """End nodes that were told to stop and have nothing more to do; node 0, with the driver, is the last."""
        if not self._busy:
            self._send_all(Exit(), self._leaving - {0})

    def _listen_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._nodes.listen(None)

    def _send_all(self, message: Message, nodes: "set[int] | Nodes") -> None:
        for node in nodes:
            self._nodes.send(node, message)

    @abstractmethod
    def from_rank(self, link: "Link[bytes, bytes]", message: Message) -> None:
        """Act on what a rank zero said."""

    @property
    @abstractmethod
    def _busy(self) -> bool:
        """Whether ranks are at work."""

    @abstractmethod
    def _lead(self) -> None:
        """Run trials until the study is over or the pod must go."""

    @abstractmethod
    def _prepared(self, node: int, message: Prepared) -> None:
        """A node can take trials."""

    @abstractmethod
    def _stop(self) -> None:
        """A node was told to stop: end what runs on it."""

    @abstractmethod
    def _hear(self, node: int, message: Message) -> None:
        """Act on what else a supervisor said."""

    @abstractmethod
    def _lost(self, node: int) -> None:
        """A node is gone, and with it what ran there."""


def check_gpu_hours(spec: StudySpec, held: int) -> None:
    """Check that the budget can be counted.

    Args:
        held: GPUs of a pod.

    Raises:
        InvalidStudyError: there is nothing to count.
    """
    if spec.budget.gpu_hours is not None and not held:
        raise InvalidStudyError(
            reasons.INVALID_SPEC,
            "budget.gpuHours: the workers have no GPU, so that none would ever be used up; leave it out, or give a "
            "budget.timeout",
        )


def patience(until: float | None) -> float | None:
    """Seconds until this time on the clock of ``time.monotonic``, as a wait takes them."""
    return None if until is None else min(max(0.0, until - time.monotonic()), _LONGEST_WAIT)
