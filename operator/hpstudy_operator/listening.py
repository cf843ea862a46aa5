"""Hearing from a PostgreSQL database that trials have begun or ended, on one connection."""

import logging
import select
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg2

from hpstudy.storage.bell import CHANNEL
from hpstudy.storage.connecting import connected
from hpstudy.storage.urls import parse_url

_log = logging.getLogger(__name__)

RECONNECT_SECONDS = 5.0
"""Until the next attempt after a connection broke: a database that restarts is back by then, or soon after."""
DEAF_SECONDS = 300.0
"""Until the next attempt with a database that tells nothing: a pooler in between does not change by itself."""
TEST_SECONDS = 5.0
"""Within which the listener must hear itself. It takes milliseconds."""
CHECK_SECONDS = 30.0
"""Between two checks that the connection is still there, and still listens."""
_APPLICATION = "hpstudy-listener"
_TURN = 0.5  # seconds; between two looks at whether to stop


class Listener:
    """One database's notifications, from a thread of its own, until it is closed.

    Args:
        heard: called with the words that came.
        turned: called when it begins to hear and when it does no more: what was told in between is lost.
    """

    def __init__(self, url: str, heard: Callable[[set[str]], None], turned: Callable[[], None]) -> None:
        self._url = parse_url(url)
        self._heard, self._turned = heard, turned
        self._closed = threading.Event()
        self._complained = False
        self.is_live = False
        """Whether what happens now is heard."""
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Tell it to stop listening."""
        self._closed.set()

    def close(self) -> None:
        """Stop listening, within a moment."""
        self.end()
        self._thread.join(2 * _TURN)

    def _run(self) -> None:
        while not self._closed.is_set():
            delay = RECONNECT_SECONDS
            try:
                with connected(self._url, _APPLICATION) as connection:
                    if self._hears_itself(connection):
                        self._listen(connection)
                    else:
                        delay = DEAF_SECONDS
                        _log.warning(
                            "the database at %s passes no notifications on (a pooler in transaction mode does so): "
                            "studies are polled; tried again in %g s", self._url.host, delay
                        )  # fmt: skip
            except (psycopg2.Error, OSError) as error:
                if not self._complained:
                    _log.warning("the database at %s cannot be listened to: %s", self._url.host, str(error).strip())
                self._complained = True
            except Exception:
                _log.exception("the listener at %s failed", self._url.host)  # the next connection may go well
            if self.is_live:
                self.is_live = False
                self._turned()
            self._closed.wait(delay)

    def _hears_itself(self, connection: Any) -> bool:
        """Whether a word comes through that is said on another connection, as all words are."""
        with connection.cursor() as cursor:
            cursor.execute(f"listen {CHANNEL}")
        word = f"test-{uuid.uuid4()}"
        with connected(self._url, _APPLICATION) as other, other.cursor() as cursor:
            cursor.execute("select pg_notify(%s, %s)", (CHANNEL, word))
        deadline = time.monotonic() + TEST_SECONDS
        while time.monotonic() < deadline and not self._closed.is_set():
            if word in _wait(connection):
                return True
        return False

    def _listen(self, connection: Any) -> None:
        self.is_live, self._complained = True, False
        self._turned()
        checked = time.monotonic()
        while not self._closed.is_set():
            if words := _wait(connection):
                self._heard(words)
            if time.monotonic() > checked + CHECK_SECONDS:
                with connection.cursor() as cursor:
                    cursor.execute("select 1 from pg_listening_channels()")
                    if cursor.fetchone() is None:
                        return
                checked = time.monotonic()


def _wait(connection: Any) -> set[str]:
    """What is said within a moment, each word once, however often it was said."""
    poller = select.poll()  # unlike select(), for descriptors above 1024, too
    poller.register(connection, select.POLLIN)
    poller.poll(1000 * _TURN)
    connection.poll()
    words = {notification.payload for notification in connection.notifies}
    connection.notifies.clear()
    return words
