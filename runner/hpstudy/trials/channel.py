"""Authenticated connections between the processes of a worker group.

On the host a Unix socket, between pods TCP (IPv4 and IPv6). The handshake is multiprocessing's own, an HMAC over a
shared key: anybody in the cluster may reach the port, nobody without the key gets further.
"""

import hashlib
import hmac
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

from hpstudy.api.errors import InvalidStudyError
from hpstudy.storage.urls import parse_url

Link = Connection
"""A connection that carries the bytes of messages."""

_HANDSHAKE_TIMEOUT = 5.0  # seconds; a caller who says nothing must not hold up the trials
_MOST_CALLERS = 64  # whose handshakes are under way; the others wait for their turn
# A vanished node closes nothing: noticed after 10 + 3 * 5 seconds, within the 30 that a lost pod may cost.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


def shared_key(url: str) -> bytes:
    """The key of a group, from a secret that its pods share already: the password of the storage's URL.

    Of the URL, because nothing else of it is secret, and a pod that is replaced reads it anew: the database may have
    another host by then, while the others go on with the old one.
    """
    try:
        secret = parse_url(url).password
    except InvalidStudyError:
        secret = None  # the driver says so
    return hmac.new(b"hpstudy worker group", (secret or url).encode(), hashlib.sha256).digest()


def serve_unix(path: Path) -> socket.socket:
    """Listen for processes of this host."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def serve_tcp(port: int) -> socket.socket:
    """Listen for other pods, on every address of this one."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def accept(server: socket.socket, key: bytes) -> "Link[bytes, bytes]":
    """Take a waiting connection of this host, where there are only our own processes; a loaded machine is slow.

    Raises:
        OSError, EOFError, multiprocessing.AuthenticationError: a caller without the key, or one that hung up.
    """
    return _welcome(server.accept()[0], key, None)


class Door:
    """Takes connections from the network, with a thread for each handshake: a caller who says nothing, or a byte now
    and then, holds up nobody.

    Attributes:
        bell: a descriptor that is ready to read when one is through.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.bell, self._rope = os.pipe()
        self._through: queue.SimpleQueue[Link[bytes, bytes] | Exception] = queue.SimpleQueue()
        self._callers = 0

    @property
    def is_full(self) -> bool:
        """Whether callers have to wait."""
        return self._callers >= _MOST_CALLERS

    def answer(self, server: socket.socket) -> None:
        """Begin a waiting caller's handshake."""
        peer, _ = server.accept()
        self._callers += 1
        threading.Thread(target=self._show_in, args=(peer,), daemon=True).start()

    def admitted(self) -> Iterator["Link[bytes, bytes] | Exception"]:
        """Who is through: a connection, or what came of it, as :func:`accept` raises it."""
        for _ in os.read(self.bell, _MOST_CALLERS):
            self._callers -= 1
            yield self._through.get()

    def _show_in(self, peer: socket.socket) -> None:
        try:
            _keep_alive(peer)
            self._through.put(_welcome(peer, self._key, _HANDSHAKE_TIMEOUT))
        except Exception as error:
            self._through.put(error)
        os.write(self._rope, b"x")


def connect(address: str, key: bytes, timeout: float | None = None) -> "Link[bytes, bytes]":
    """Connect to a path, or to host:port.

    Args:
        timeout: seconds that the handshake may take; None waits for a driver that is busy.

    Raises:
        OSError, EOFError: nobody listens there (yet), or nobody answered in time.
        multiprocessing.AuthenticationError: the key is another.
    """
    if address.startswith("/"):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(address)
    else:
        host, _, port = address.rpartition(":")
        peer = socket.create_connection((host, int(port)), timeout=_HANDSHAKE_TIMEOUT)
        _keep_alive(peer)
    with peer:
        timed: Any = _Timed(peer, timeout)
        answer_challenge(timed, key)
        deliver_challenge(timed, key)
        return _link(peer)


def _welcome(peer: socket.socket, key: bytes, timeout: float | None) -> "Link[bytes, bytes]":
    with peer:
        timed: Any = _Timed(peer, timeout)
        deliver_challenge(timed, key)
        answer_challenge(timed, key)
        return _link(peer)


def _link(peer: socket.socket) -> "Link[bytes, bytes]":
    peer.settimeout(None)  # an answer may take its time
    return Connection(peer.detach())


class _Timed:
    """What a handshake needs of a connection, all of it before a deadline."""

    def __init__(self, peer: socket.socket, seconds: float | None) -> None:
        self._peer = peer
        self._until = None if seconds is None else time.monotonic() + seconds

    def send_bytes(self, data: bytes) -> None:
        self._limit()
        self._peer.sendall(struct.pack("!i", len(data)) + data)

    def recv_bytes(self, longest: int) -> bytes:
        (size,) = struct.unpack("!i", self._read(4))
        if not 0 <= size <= longest:
            raise OSError("what a caller said is no handshake")
        return self._read(size)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            self._limit()
            more = self._peer.recv(size - len(data))
            if not more:
                raise EOFError("a caller hung up during the handshake")
            data += more
        return data

    def _limit(self) -> None:
        left = None if self._until is None else self._until - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("a caller did not finish the handshake in time")
        self._peer.settimeout(left)


def _keep_alive(peer: socket.socket) -> None:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
