"""How connections to a database are made, so that neither side waits for one that has vanished."""

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg2
import psycopg2.extensions
import pymysql
from sqlalchemy.engine import URL

CONNECT_TIMEOUT = 10  # seconds; a Service without endpoints may drop packets for ever
_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""Libpq's: a server that vanished with its node is noticed within half a minute, where TCP alone would wait for hours.
https://www.postgresql.org/docs/current/libpq-connect.html"""
READ_TIMEOUT = 60  # seconds; no statement of a worker's takes a tenth of it
LIMITED_STATEMENT = 30
"""Seconds that a statement may take in a process that serves many databases: the longest takes one or two."""
LIMITED_LOCK = 10
"""Seconds that such a process waits for a lock: of a table, a row, or an advisory one."""
_LATE = 5
"""Seconds that a server's own word may take that a statement took too long; after that it counts as silent."""
_MIGRATION = 240
"""Seconds that a statement may take on connections that others make: Optuna's, to upgrade its tables."""
_CONNECTION_ERROR = 2003
"""MySQL's: nobody listens, answers in time, or has the name."""

_is_limited = False


class SilentError(psycopg2.OperationalError):  # type: ignore[misc]  # not typed
    """The server took a connection or a statement, and says nothing."""


def limit_waiting(wanted: bool = True) -> None:
    """Let no connection that this process makes from now on wait for ever for a server that is alive: not for another's
    lock, not for a statement, and not for one that accepts and then says nothing.

    For the operator, which must not stand still for all because one database does. A worker has one database and
    nothing else to do.
    """
    global _is_limited
    _is_limited = wanted
    psycopg2.extensions.set_wait_callback(_wait if wanted else None)


def lock_seconds() -> float | None:
    """How long this process waits for a lock; None for ever."""
    return LIMITED_LOCK if _is_limited else None


def connect_args(url: URL, application: str = "hpstudy", seconds: int | None = None) -> dict[str, Any]:
    """Arguments of the driver, as for SQLAlchemy's ``connect_args``.

    Args:
        application: what ``pg_stat_activity`` shows.
        seconds: that a statement may take, where this process limits them or the driver knows no keepalives (MySQL's).
    """
    seconds = seconds or (LIMITED_STATEMENT if _is_limited else READ_TIMEOUT)
    match url.get_backend_name():
        case "postgresql":
            arguments = {"connect_timeout": CONNECT_TIMEOUT, "application_name": application, **_KEEPALIVES}
            return {**arguments, "connection_factory": partial(_Limited, url, seconds)} if _is_limited else arguments
        case "mysql":
            arguments = {
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": seconds,
                "write_timeout": READ_TIMEOUT,
                "program_name": application,
                "local_infile": False,  # a server could ask for any file that this process may read
            }
            if _is_limited:
                locks = f"set session lock_wait_timeout={LIMITED_LOCK}, innodb_lock_wait_timeout={LIMITED_LOCK}"
                arguments["init_command"] = locks
            return arguments
        case _:
            return {}


@contextmanager
def connected(url: URL, application: str) -> Iterator[Any]:
    """A connection of psycopg2's, each statement a transaction of its own.

    Raises:
        psycopg2.Error: there is none.
    """
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(plain, **connect_args(url, application))
    try:
        connection.autocommit = True
        yield connection
    finally:
        connection.close()


def is_silence(error: BaseException | None) -> bool:
    """Whether a driver's error means that nobody answers there, whoever asks and for whichever database."""
    if isinstance(error, pymysql.err.OperationalError):
        return bool(error.args[0] == _CONNECTION_ERROR)
    return isinstance(error, SilentError) or "could not translate host name" in str(error)


class _Limited(psycopg2.extensions.connection):  # type: ignore[misc]  # not typed
    """A connection whose statements the server cancels after a time, and the client gives up shortly after."""

    def __init__(self, url: URL, seconds: int, *args: Any, **kwargs: Any) -> None:
        self.patience = CONNECT_TIMEOUT
        try:
            super().__init__(*args, **kwargs)
        except psycopg2.OperationalError as error:
            if url.host and url.host in str(error):
                raise
            # Unlike without a callback, nobody has said where.
            where = f'connection to server at "{url.host}", port {url.port or 5432} failed'
            raise type(error)(f"{where}: {error}") from None
        self.autocommit = True
        with self.cursor() as cursor:  # not as options of the connection, which PgBouncer refuses
            cursor.execute(f"set statement_timeout = '{seconds}s'; set lock_timeout = '{LIMITED_LOCK}s'")
        self.autocommit = False
        self.patience = seconds + _LATE


def _wait(connection: Any) -> None:
    """Wait as psycopg2 would, but not for ever: connecting, and for the answer to a statement. psycopg2 closes the
    connection then. See https://www.psycopg.org/docs/advanced.html#support-for-coroutine-libraries"""
    patience = getattr(connection, "patience", _MIGRATION)
    deadline = time.monotonic() + patience
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        poller = select.poll()  # unlike select(), for descriptors above 1024, too
        poller.register(connection, select.POLLIN if state == psycopg2.extensions.POLL_READ else select.POLLOUT)
        if not poller.poll(1000 * max(0.0, deadline - time.monotonic())):
            raise SilentError(f"the server has not answered for {patience} s")
