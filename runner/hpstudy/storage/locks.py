"""Locks between the processes that share a storage, held by the storage itself: a holder that dies lets go."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.pool import NullPool

_CONNECT_TIMEOUT = 10  # seconds


class _Locks(Protocol):
    def acquire(self, name: str, *, wait: bool) -> bool: ...
    def release(self, name: str) -> None: ...
    def close(self) -> None: ...


class SessionLocks:
    """Named locks on one connection of its own (PostgreSQL) or on files beside the database (SQLite).

    Several names may be held at once. All are released when the object is closed or its process ends.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self._locks: _Locks = (
            _FileLocks(Path(parsed.database or "hpstudy.db"))
            if parsed.get_backend_name() == "sqlite"
            else _AdvisoryLocks(url)
        )

    def acquire(self, name: str, *, wait: bool = True) -> bool:
        """Take the lock; without ``wait``, return False when another process has it."""
        return self._locks.acquire(name, wait=wait)

    def release(self, name: str) -> None:
        """Release one that is held."""
        self._locks.release(name)

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Hold the lock for a block."""
        self._locks.acquire(name, wait=True)
        try:
            yield
        finally:
            self._locks.release(name)

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

    def __init__(self, url: str) -> None:
        engine = create_engine(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            # Keepalives: the server must notice a vanished node, or its locks would outlive it for hours.
            connect_args={
                "connect_timeout": _CONNECT_TIMEOUT,
                "application_name": "hpstudy-locks",
                "options": "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
            },
        )
        self._connection: Connection = engine.connect()

    def acquire(self, name: str, *, wait: bool) -> bool:
        # The schema is part of the key: tenants of one database must not meet in a lock.
        key = self._key(name)
        if wait:
            self._connection.execute(text("select pg_advisory_lock(:key)"), {"key": key})
            return True
        return bool(self._connection.execute(text("select pg_try_advisory_lock(:key)"), {"key": key}).scalar())

    def release(self, name: str) -> None:
        self._connection.execute(text("select pg_advisory_unlock(:key)"), {"key": self._key(name)})

    def close(self) -> None:
        self._connection.close()

    def _key(self, name: str) -> int:
        schema = self._connection.execute(text("select current_schema()")).scalar()
        return int.from_bytes(hashlib.sha256(f"{schema}/{name}".encode()).digest()[:8], signed=True)


class _FileLocks:
    def __init__(self, database: Path) -> None:
        self._database = database
        self._files: dict[str, int] = {}

    def acquire(self, name: str, *, wait: bool) -> bool:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        path = self._database.with_name(f".{self._database.name}.{digest}.lock")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._files[name] = file
        return True

    def release(self, name: str) -> None:
        os.close(self._files.pop(name))

    def close(self) -> None:
        for name in list(self._files):
            self.release(name)
