"""Locks between the processes that share a storage, held by the storage itself: a holder that dies lets go."""

import fcntl
import hashlib
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import SQLAlchemyError, TimeoutError
from sqlalchemy.pool import NullPool

from hpstudy.storage.connecting import connect_args, lock_seconds

_SILENCE_SECONDS = 60
_MAX_USER_LOCK = 60
_POLL_SECONDS = 0.02
"""Between two tries, where what holds the locks cannot be waited for that long."""


class _Locks(Protocol):
    def acquire(self, name: str, seconds: float) -> bool: ...
    def release(self, name: str) -> None: ...
    def check(self) -> None: ...
    def close(self) -> None: ...


class SessionLocks:
    """Named locks on one connection of its own (PostgreSQL, MySQL) or on files beside the database (SQLite).

    Several names may be held at once. All are released when the object is closed or its process ends.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self._locks: _Locks
        match parsed.get_backend_name():
            case "sqlite":
                self._locks = _FileLocks(Path(parsed.database or "hpstudy.db"))
            case "mysql":
                self._locks = _UserLocks(parsed)
            case _:
                self._locks = _AdvisoryLocks(parsed)

    def acquire(self, name: str, *, wait: bool = True) -> bool:
        """Take the lock; without ``wait``, return False when another process has it."""
        return self._locks.acquire(name, math.inf if wait else 0)

    def release(self, name: str) -> None:
        """Release one that is held."""
        self._locks.release(name)

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Hold the lock for a block."""
        with self.trying(name, math.inf):
            yield

    @contextmanager
    def trying(self, name: str, seconds: float) -> Iterator[bool]:
        """Hold the lock for a block; False where another process still has it after this time."""
        if not self._locks.acquire(name, seconds):
            yield False
            return
        try:
            yield True
        finally:
            self._locks.release(name)

    def check(self) -> None:
        """See that what is held is still held.

        Raises:
            SQLAlchemyError: the connection is gone, and the locks with it.
        """
        self._locks.check()

    def close(self) -> None:
        """Release everything."""
        self._locks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _AdvisoryLocks:
    """PostgreSQL's session-level advisory locks; https://www.postgresql.org/docs/current/explicit-locking.html"""

    def __init__(self, url: URL) -> None:
        self._connection = _connect(url)
        # The server must notice a vanished node, or its locks would outlive it for hours.
        for setting, value in (("idle", 10), ("interval", 5), ("count", 3)):
            self._connection.execute(text(f"set tcp_keepalives_{setting} = {value}"))

    def acquire(self, name: str, seconds: float) -> bool:
        # The schema is part of the key: tenants of one database must not meet in a lock.
        key = {"key": self._key(name)}
        if seconds == math.inf:
            self._connection.execute(text("select pg_advisory_lock(:key)"), key)
            return True
        # Not lock_timeout: a lock that is granted in the moment of the time-out stays with the session.
        deadline = time.monotonic() + seconds
        while not self._connection.execute(text("select pg_try_advisory_lock(:key)"), key).scalar():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def release(self, name: str) -> None:
        self._connection.execute(text("select pg_advisory_unlock(:key)"), {"key": self._key(name)})

    def check(self) -> None:
        self._connection.execute(text("select 1"))

    def close(self) -> None:
        self._connection.close()

    def _key(self, name: str) -> int:
        schema = self._connection.execute(text("select current_schema()")).scalar()
        return int.from_bytes(hashlib.sha256(f"{schema}/{name}".encode()).digest()[:8], signed=True)


class _UserLocks:
    """MySQL's and MariaDB's ``GET_LOCK``; https://dev.mysql.com/doc/refman/8.4/en/locking-functions.html

    The server hears nothing of a node that vanished, and an idle session may last for eight hours there. So the session
    asks to be ended after a minute of silence, and a thread breaks the silence as long as this process lives.
    """

    def __init__(self, url: URL) -> None:
        self._database = url.database
        self._connection = _connect(url)
        self._connection.execute(text(f"set session wait_timeout = {_SILENCE_SECONDS}"))
        self._guard = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._break_silence, name="hpstudy-locks", daemon=True).start()

    def acquire(self, name: str, seconds: float) -> bool:
        limit = lock_seconds() if seconds == math.inf else None
        deadline = time.monotonic() + (limit or seconds)
        # One second at a time, so that the thread that breaks the silence has its turn.
        while not self._scalar("select get_lock(:key, :seconds)", name, min(1.0, seconds)):
            seconds = deadline - time.monotonic()
            if seconds <= 0 and limit is not None:
                raise TimeoutError(f"another session has held the lock {name!r} for more than {limit} s")
            if seconds <= 0:
                return False
            time.sleep(_POLL_SECONDS)  # MySQL takes less than half a second for none
        return True

    def release(self, name: str) -> None:
        self._scalar("select release_lock(:key)", name)

    def check(self) -> None:
        with self._guard:
            self._connection.execute(text("do 0"))

    def close(self) -> None:
        self._closed.set()
        with self._guard, suppress(SQLAlchemyError):  # a connection that broke holds nothing any more
            self._connection.close()

    def _scalar(self, statement: str, name: str, seconds: float = 0) -> Any:
        # Locks are the whole server's, and their names have at most 64 characters.
        key = hashlib.sha256(f"{self._database}/{name}".encode()).hexdigest()[:_MAX_USER_LOCK]
        with self._guard:
            return self._connection.execute(text(statement), {"key": key, "seconds": seconds}).scalar()

    def _break_silence(self) -> None:
        while not self._closed.wait(_SILENCE_SECONDS / 4):
            # A connection that broke is noticed by whoever wants a lock next.
            with self._guard, suppress(SQLAlchemyError):
                if not self._closed.is_set():
                    self._connection.execute(text("do 0"))


def _connect(url: URL) -> Connection:
    arguments = connect_args(url, "hpstudy-locks")
    return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments).connect()


class _FileLocks:
    def __init__(self, database: Path) -> None:
        self._database = database
        self._files: dict[str, int] = {}

    def acquire(self, name: str, seconds: float) -> bool:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        path = self._database.with_name(f".{self._database.name}.{digest}.lock")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            taken = _lock(file, seconds)
        except BaseException:
            os.close(file)
            raise
        if taken:
            self._files[name] = file
        else:
            os.close(file)
        return taken

    def release(self, name: str) -> None:
        os.close(self._files.pop(name))

    def check(self) -> None:
        """Nothing takes a file's lock away."""

    def close(self) -> None:
        for name in list(self._files):
            self.release(name)


def _lock(file: int, seconds: float) -> bool:
    if seconds == math.inf:
        fcntl.flock(file, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True
