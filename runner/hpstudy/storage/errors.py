"""What a database's errors mean: it is away for a while, or it refuses what it was asked."""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from sqlalchemy import exc

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError

_PASSWORD = re.compile(r"password authentication failed|\b1045\b.*Access denied")
"""PostgreSQL's and MySQL's words; psycopg2 tells no code of a connection that was never made."""
_PASSING_CLASSES = frozenset({"08", "25", "28", "40", "53", "55", "57", "58", "XX"})
"""Of PostgreSQL's codes (https://www.postgresql.org/docs/current/errcodes-appendix.html): connection, transaction (a
standby that is read-only, say), authorization, rollback (deadlock, serialization), resources, locks, an operator's
intervention, and the server's own troubles."""
_MOVED = frozenset({"42P01", "42703", "3F000"})
"""Tables, columns or schema are not what they were: the database was replaced or upgraded, and is to be opened anew."""
_MOVED_IN_MYSQL = frozenset({1044, 1049, 1051, 1054, 1146})
"""The same, or no database, or none that the user may open yet."""
_PASSING_IN_SQLITE = frozenset({5, 6, 7, 9, 10, 13, 14, 15, 17})
"""Busy, locked, no memory, interrupted, I/O, full, cannot open, locking protocol, schema changed;
https://www.sqlite.org/rescode.html"""


OUTAGE_LIMIT = 600.0
"""Seconds that what a worker cannot do without may be away: its database, or the server of its backend. A fail-over or
an upgrade of PostgreSQL takes one or two minutes; past ten, a fresh pod is as good as this one."""


class StorageUnreachableError(ConnectionError):
    """The database does not answer or has trouble of its own; worth trying again."""


class CredentialsRefusedError(StorageUnreachableError):
    """The database does not take the password: it was changed, and whoever reads the Secret anew has the new one."""


class StorageRefusedError(InvalidStudyError):
    """The database answers and refuses a statement or a value, as it would again: only this study cannot go on."""

    def __init__(self, words: str) -> None:
        super().__init__(reasons.STORAGE_REFUSED, f"the storage refuses it: {words}")


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn the database's errors into :class:`StorageUnreachableError` and :class:`StorageRefusedError`."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        with storage_errors():  # for what it was made from
            raise error.__cause__ or StorageUnreachableError(_first_line(error)) from error
    except exc.DBAPIError as error:
        raise _meaning(error)(_first_line(error.orig)) from error
    # A pool without a free connection, or a session whose connection broke.
    except (exc.TimeoutError, exc.PendingRollbackError, exc.ResourceClosedError) as error:
        raise StorageUnreachableError(_first_line(error)) from error
    except (exc.SQLAlchemyError, ssl.SSLError) as error:  # the latter of a certificate that is none
        raise StorageRefusedError(_first_line(error)) from error
    except RuntimeError as error:
        if "LOAD_LOCAL" not in str(error):  # PyMySQL's word for a server that asks for a file of ours
            raise
        raise StorageRefusedError("its server asks for a file of this machine") from error


def _meaning(error: exc.DBAPIError) -> type[StorageUnreachableError | StorageRefusedError]:
    if _PASSWORD.search(_first_line(error.orig)):
        return CredentialsRefusedError
    return StorageUnreachableError if error.connection_invalidated or _passes(error) else StorageRefusedError


def _passes(error: exc.DBAPIError) -> bool:
    """Whether the same may go well later."""
    orig = error.orig
    if isinstance(code := getattr(orig, "pgcode", None), str):
        return code[:2] in _PASSING_CLASSES or code in _MOVED
    if isinstance(code := getattr(orig, "sqlite_errorcode", None), int):
        return code & 0xFF in _PASSING_IN_SQLITE or "no such table" in str(orig)
    if orig is not None and orig.args[:1] and orig.args[0] in _MOVED_IN_MYSQL:
        return True
    if str(getattr(orig, "sqlstate", "")).startswith("42"):  # MySQL's driver calls most of these operational
        return False
    # Without a code psycopg2 speaks of the connection; MySQL's deadlocks, lock time-outs and shutdowns are operational,
    # and its internal errors are the driver's that lost its place in the conversation.
    kinds = (exc.OperationalError, exc.InterfaceError, exc.InternalError)
    return isinstance(error, kinds) or type(error) is exc.DatabaseError


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
