"""Authenticated connections between the processes of a worker group.

On the host a Unix socket, between pods TCP (IPv4 and IPv6). The handshake is multiprocessing's own, an HMAC over a
shared key: anybody in the cluster may reach the port, nobody without the key gets further.
"""

import hashlib
import hmac
import os
import socket
import struct
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path

Link = Connection
"""A connection that carries the bytes of messages."""

_HANDSHAKE_TIMEOUT = 5  # seconds; a caller who says nothing must not hold up the trials
# A vanished node closes nothing: noticed after 10 + 3 * 5 seconds, within the 30 that a lost pod may cost.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


def shared_key(secret: str) -> bytes:
    """The key of a group, from a secret that its pods share already (the storage's URL, with its password)."""
    return hmac.new(b"hpstudy worker group", secret.encode(), hashlib.sha256).digest()


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
    """Take a waiting connection.

    Raises:
        OSError, EOFError, multiprocessing.AuthenticationError: a caller without the key, or one that hung up.
    """
    peer, _ = server.accept()
    if peer.family != socket.AF_UNIX:  # of this host there are only our own processes, and a loaded machine is slow
        _limit(peer, _HANDSHAKE_TIMEOUT)
    _keep_alive(peer)
    link: Link[bytes, bytes] = Connection(peer.detach())
    try:
        deliver_challenge(link, key)
        answer_challenge(link, key)
    except BaseException:
        link.close()
        raise
    return link


def connect(address: str, key: bytes, timeout: int = 0) -> "Link[bytes, bytes]":
    """Connect to a path, or to host:port.

    Args:
        timeout: seconds that each step of the handshake may take; 0 waits for a driver that is busy.

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
        peer.settimeout(None)
    _limit(peer, timeout)
    _keep_alive(peer)
    link: Link[bytes, bytes] = Connection(os.dup(peer.fileno()))
    try:
        answer_challenge(link, key)
        deliver_challenge(link, key)
    except BaseException:
        link.close()
        raise
    finally:
        _limit(peer, 0)  # an answer may take its time
        peer.close()
    return link


def _limit(peer: socket.socket, seconds: int) -> None:
    """How long one read or write may block; 0 for ever. Not settimeout(), which would not outlast the socket object."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        peer.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))


def _keep_alive(peer: socket.socket) -> None:
    if peer.family == socket.AF_UNIX:
        return
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
