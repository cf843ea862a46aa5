"""Which databases do not work, so that what works does not wait for them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from hpstudy.storage.connecting import is_silence
from hpstudy.storage.errors import StorageUnreachableError
from hpstudy.storage.urls import parse_url

RETRY_SECONDS = 5.0
"""A storage that did not work is left alone for so long. A connection may take ten seconds to fail, and every study of
the storage asks: without this a dead database would keep all threads busy."""
RETRIES = 4
"""Attempts at the same time on what did not work the last time: half of the passes stay free for what does, whatever
the number of databases that do not."""
_FORGOTTEN_SECONDS = 600.0
"""After which a failure that nobody has come back to is forgotten."""

Key = str | tuple[str | None, int | None]
"""A storage by its URL (and a part of it), or a server by host and port."""


@dataclass
class _Failure:
    at: float
    words: str
    is_tried: bool = False
    """Somebody is trying again: one is enough."""


class Outages:
    """What does not work, by URL, and by server where nobody answers there at all: a hundred namespaces on a silent
    server are one wait and not a hundred. Safe for many threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._failures: dict[Key, _Failure] = {}
        self._answered: dict[Key, float] = {}
        """When a server answered last."""
        self._retrying = 0

    @contextmanager
    def attempt(self, url: str, part: str = "") -> Iterator[None]:
        """Around what is done with a storage: learns from how it ends.

        Args:
            part: of the database, which fails by itself.

        Raises:
            StorageUnreachableError: at once, while it would only fail again.
        """
        parsed = parse_url(url)
        server, began = (parsed.host, parsed.port), time.monotonic()
        own = f"{url} {part}"
        tried = self._begin((server, own), began)
        try:
            yield
        except StorageUnreachableError as error:
            self._fail(own, server, began, error)
            raise
        except BaseException:
            self._succeed(own, server)
            raise
        else:
            self._succeed(own, server)
        finally:
            with self._guard:
                self._retrying -= bool(tried)
                for failure in tried:
                    failure.is_tried = False

    def _begin(self, keys: tuple[Key, ...], now: float) -> list[_Failure]:
        with self._guard:
            known = [self._failures[key] for key in keys if key in self._failures]
            for failure in known:
                if failure.is_tried or now < failure.at + RETRY_SECONDS or self._retrying >= RETRIES:
                    raise StorageUnreachableError(failure.words)
            self._retrying += bool(known)
            for failure in known:
                failure.is_tried = True
            return known

    def _fail(self, own: Key, server: Key, began: float, error: StorageUnreachableError) -> None:
        cause, now = error.__cause__, time.monotonic()
        with self._guard:
            self._failures[own] = _Failure(now, str(error))
            if not is_silence(cause.orig if isinstance(cause, DBAPIError) else cause):
                self._failures.pop(server, None)
            elif self._answered.get(server, 0.0) < began:  # others may have been answered meanwhile
                self._failures[server] = _Failure(now, str(error))
            self._failures = {k: f for k, f in self._failures.items() if now < f.at + _FORGOTTEN_SECONDS}
            self._answered = {k: at for k, at in self._answered.items() if now < at + _FORGOTTEN_SECONDS}

    def _succeed(self, own: Key, server: Key) -> None:
        with self._guard:
            self._failures.pop(own, None)
            self._failures.pop(server, None)
            self._answered[server] = time.monotonic()
