"""Authenticated connections between the processes of a worker group.

On the host a Unix socket, between pods TCP (IPv4 and IPv6). The handshake is multiprocessing's own, an HMAC over a
shared key: anybody in the cluster may reach the port, nobody without the key gets further.
"""

import hashlib
import hmac
import socket
import struct
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path

Link = Connection
"""A connection that carries the bytes of messages."""

_ACCEPT_TIMEOUT = 2  # seconds; a caller who says nothing must not hold up the trials
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
    timeout = struct.pack("ll", _ACCEPT_TIMEOUT, 0)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        peer.setsockopt(socket.SOL_SOCKET, option, timeout)
    _keep_alive(peer)
    link: Link[bytes, bytes] = Connection(peer.detach())
    try:
        deliver_challenge(link, key)
        answer_challenge(link, key)
    except BaseException:
        link.close()
        raise
    return link


def connect(address: str, key: bytes) -> "Link[bytes, bytes]":
    """Connect to a path, or to host:port.

    Raises:
        OSError, EOFError: nobody listens there (yet).
        multiprocessing.AuthenticationError: the key is another.
    """
    if address.startswith("/"):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(address)
    else:
        host, _, port = address.rpartition(":")
        peer = socket.create_connection((host, int(port)), timeout=_ACCEPT_TIMEOUT)
        peer.settimeout(None)
    _keep_alive(peer)
    link: Link[bytes, bytes] = Connection(peer.detach())
    answer_challenge(link, key)
    deliver_challenge(link, key)
    return link


def _keep_alive(peer: socket.socket) -> None:
    if peer.family == socket.AF_UNIX:
        return
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
