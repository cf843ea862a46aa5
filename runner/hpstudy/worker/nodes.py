"""The driver's connections: to the pods' supervisors by node, and to the rank zeros of the trials."""

import logging
import socket
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import wait
from typing import Protocol

from hpstudy.trials.channel import Door, Link, accept
from hpstudy.trials.messages import Hello, Message, receive, send

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who acts on what is said."""

    def from_node(self, node: int, message: Message) -> None:
        """A supervisor said something."""

    def from_rank(self, link: "Link[bytes, bytes]", message: Message) -> None:
        """A rank zero said something."""

    def distrust(self) -> None:
        """Somebody has another key."""

    def lose(self, node: int) -> None:
        """A supervisor is gone; it is no longer one of the nodes."""


@dataclass
class _Node:
    link: "Link[bytes, bytes]"
    prepared: bool = False


class Nodes:
    """Everyone who is connected.

    Args:
        servers: where supervisors and rank zeros connect.
        key: what those must know.
    """

    def __init__(self, servers: list[socket.socket], key: bytes, listener: Listener) -> None:
        self._servers = servers
        self._key = key
        self._door = Door(key)
        self._listener = listener
        self._nodes: dict[int, _Node] = {}
        self._others: list[Link[bytes, bytes]] = []
        """Rank zeros, and who has not said yet who it is."""

    def __contains__(self, node: int) -> bool:
        return node in self._nodes

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._nodes))

    @property
    def prepared(self) -> int:
        """How many can take trials."""
        return sum(node.prepared for node in self._nodes.values())

    def listen(self, timeout: float | None) -> None:
        """Wait for messages, seconds at most, and hand them on."""
        links = [*self._others, *(node.link for node in self._nodes.values())]
        servers = [each for each in self._servers if each.family == socket.AF_UNIX or not self._door.is_full]
        for ready in wait([*servers, self._door.bell, *links], timeout):
            if isinstance(ready, socket.socket):
                self._accept(ready)
            elif ready == self._door.bell:
                for found in self._door.admitted():
                    self._admit(found)
            elif isinstance(ready, Link) and not ready.closed:  # one message may have closed another's link
                self._read(ready)

    def drain(self, apart: "Container[Link[bytes, bytes] | None]") -> None:
        """Hand on what rank zeros have said already, apart from these."""
        for link in list(self._others):
            while link not in apart and not link.closed and link.poll(0):
                self._read(link)

    def send(self, node: int, message: Message) -> None:
        """Say something to a supervisor."""
        if node in self._nodes:
            self.answer(self._nodes[node].link, message)

    def answer(self, link: "Link[bytes, bytes]", message: Message) -> None:
        """Say something on a link; that a peer has hung up is read next."""
        with suppress(OSError):
            send(link, message)

    def mark_prepared(self, node: int) -> None:
        """It can take trials."""
        self._nodes[node].prepared = True

    def mark_leaving(self, node: int) -> None:
        """It takes no more trials."""
        self._nodes[node].prepared = False

    def _accept(self, server: socket.socket) -> None:
        try:
            if server.family == socket.AF_UNIX:
                # At once: what a rank zero says is heard before its node says that it ended.
                self._admit(accept(server, self._key))
            else:
                self._door.answer(server)
        except (OSError, EOFError, AuthenticationError) as error:
            self._admit(error)

    def _admit(self, found: "Link[bytes, bytes] | Exception") -> None:
        if isinstance(found, Link):
            self._others.append(found)
            return
        if isinstance(found, AuthenticationError):
            _log.warning("refused a connection: %s", found)
            self._listener.distrust()
        else:  # it gave up while this process was still busy, and comes again
            _log.debug("a caller left: %s", found)

    def _read(self, link: "Link[bytes, bytes]") -> None:
        node = next((number for number, node in self._nodes.items() if node.link is link), None)
        try:
            message = receive(link)
        except (EOFError, OSError):
            link.close()
            if node is None:
                self._others = [other for other in self._others if other is not link]
            else:
                self._lose(node)
            return
        match message:
            case Hello(node=number) if node is None:
                self._others.remove(link)
                if number in self._nodes:  # its old connection is dead, only not yet known to be
                    self._nodes[number].link.close()
                    self._lose(number)
                self._nodes[number] = _Node(link)
            case _ if node is None:
                self._listener.from_rank(link, message)
            case _:
                self._listener.from_node(node, message)

    def _lose(self, node: int) -> None:
        del self._nodes[node]
        self._listener.lose(node)
