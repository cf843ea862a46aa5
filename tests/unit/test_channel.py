"""The driver's connections, over real sockets."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from pathlib import Path

import pytest

from hpstudy.trials import channel
from hpstudy.trials.channel import Link, connect, serve_tcp, serve_unix, shared_key
from hpstudy.trials.messages import Answer, Hello, Message, Report, Stopping, receive, send
from hpstudy.worker.nodes import Nodes

KEY = shared_key("sqlite://")
REPORT = Report(step=1, metrics={"loss": 0.5})


class Driver:
    """Answers reports, and notes the nodes that say something and how often a key was another."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "driver")
        server = serve_tcp(0)
        self.port = server.getsockname()[1]
        self.heard: list[int] = []
        self.strangers = 0
        self._servers = [serve_unix(Path(self.path)), server]
        self._nodes = Nodes(self._servers, KEY, self)
        self._ended = False

    def from_node(self, node: int, message: Message) -> None:
        self.heard.append(node)

    def from_rank(self, link: "Link[bytes, bytes]", message: Message) -> None:
        self._nodes.answer(link, Answer(prune=False))

    def lose(self, node: int) -> None: ...

    def distrust(self) -> None:
        self.strangers += 1

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        thread = threading.Thread(target=self._listen)
        thread.start()
        try:
            yield
        finally:
            self._ended = True
            thread.join()
            for server in self._servers:
                server.close()

    def _listen(self) -> None:
        while not self._ended:
            self._nodes.listen(0.02)

    def call(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    made = Driver(tmp_path)
    with made.listening():
        yield made


def hung_up(caller: socket.socket) -> bool:
    """Whether the driver ends the call, within seconds."""
    caller.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        while caller.recv(4096):
            pass
    return True


def test_reports_are_answered_and_nodes_admitted_while_callers_say_nothing(driver: Driver) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(driver.call())
        before = time.monotonic()
        with connect(driver.path, KEY) as rank:
            for _ in range(3):
                send(rank, REPORT)
                assert receive(rank) == Answer(prune=False)
        with connect(f"127.0.0.1:{driver.port}", KEY, 5) as node:
            send(node, Hello(node=1))
            send(node, Stopping())
            while driver.heard != [1]:
                assert time.monotonic() < before + 4
        assert time.monotonic() < before + 4, "less than one of them is given"


def test_a_caller_who_sends_a_byte_now_and_then_gains_no_time(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_HANDSHAKE_TIMEOUT", 0.5)
    with driver.call() as slow, driver.call() as silent:
        before = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in struct.pack("!i", 200) + bytes(200):
                slow.send(bytes([byte]))
                time.sleep(0.1)
                assert time.monotonic() < before + 5, "it is still listened to"
        assert hung_up(silent)


def test_more_callers_than_there_are_threads_for_wait_for_their_turn(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_HANDSHAKE_TIMEOUT", 0.3)
    monkeypatch.setattr(channel, "_MOST_CALLERS", 2)
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(driver.call()) for _ in range(5)]
        assert all(map(hung_up, callers))
        with connect(f"127.0.0.1:{driver.port}", KEY, 5) as node:
            send(node, Hello(node=1))


@pytest.mark.parametrize("words", [struct.pack("!i", -1) * 8, struct.pack("!i", 2**30), b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_handshake_is_refused(driver: Driver, words: bytes) -> None:
    with driver.call() as caller:
        caller.send(words)
        assert hung_up(caller)


def test_another_key_is_refused_on_both_ends(driver: Driver) -> None:
    for address in (driver.path, f"127.0.0.1:{driver.port}"):
        with pytest.raises(AuthenticationError):
            connect(address, shared_key("another"), 5)
    deadline = time.monotonic() + 5
    while driver.strangers < 2:
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("postgresql://me:secret@old:5432/a", "postgresql://me:secret@new:5433/a?sslmode=require", True),
        ("postgresql://me:s%40cret@old/a", "postgres://me:s%40cret@old/a", True),
        ("postgresql://me:old@host/a", "postgresql://me:new@host/a", False),
        ("postgresql://me@host/a", "postgresql://you@host/a", False),
        ("sqlite:///a.db", "sqlite:///b.db", False),
        ("no url", "another", False),
    ],
)
def test_the_key_is_that_of_the_password_wherever_the_database_is(one: str, other: str, same: bool) -> None:
    assert (shared_key(one) == shared_key(other)) is same


def test_a_driver_that_is_busy_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    with serve_tcp(0) as server, pytest.raises(TimeoutError):
        connect(f"127.0.0.1:{server.getsockname()[1]}", KEY, 0.2)
