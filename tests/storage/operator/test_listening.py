"""The listener outlives what goes wrong in its thread."""

import queue
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg2
import pytest

from hpstudy.storage.bell import CHANNEL
from hpstudy_operator import listening
from hpstudy_operator.listening import Listener
from tests.support.postgres import Postgres

PATIENCE = 30.0  # seconds


@contextmanager
def listener(database: Postgres, heard: Callable[[set[str]], None]) -> Iterator["queue.Queue[bool]"]:
    """One that listens, and what it tells of its turns."""
    turns: queue.Queue[bool] = queue.Queue()
    made = Listener(database.url(), heard, lambda: turns.put(made.is_live))
    try:
        assert turns.get(timeout=PATIENCE)
        yield turns
    finally:
        made.close()


def notify(database: Postgres, word: str) -> None:
    connection = psycopg2.connect(database.url().replace("+psycopg2", ""))
    connection.cursor().execute("select pg_notify(%s, %s)", (CHANNEL, word))
    connection.commit()
    connection.close()


def test_an_error_that_nobody_foresaw_is_logged_and_the_listener_goes_on(
    database: Postgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "RECONNECT_SECONDS", 0.1)
    words: queue.Queue[set[str]] = queue.Queue()

    def hear(heard: set[str]) -> None:
        if "bad" in heard:
            raise ValueError("what is this?")
        words.put(heard)

    with listener(database, hear) as turns:
        notify(database, "bad")
        assert turns.get(timeout=PATIENCE) is False
        assert turns.get(timeout=PATIENCE) is True
        notify(database, "good")
        assert words.get(timeout=PATIENCE) == {"good"}
    assert "what is this?" in caplog.text


def test_it_hears_on_a_descriptor_beyond_those_of_select(database: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("this machine allows no process so many files")
    words: queue.Queue[set[str]] = queue.Queue()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    try:
        with ExitStack() as files:
            for _ in range(1100):
                files.enter_context(socket.socket())
            with listener(database, words.put):
                notify(database, "word")
                assert words.get(timeout=PATIENCE) == {"word"}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
