"""Waiting for a database that is away: it ends no trial."""

import itertools
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from hpstudy.storage.errors import OUTAGE_LIMIT, CredentialsRefusedError, StorageUnreachableError, storage_errors
from hpstudy.storage.opening import open_engine

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

REFUSED_LIMIT = 30.0
"""Seconds for which the database may refuse the password: the operator writes a new one into the Secret a moment before
the database takes it. After that only a process that reads the Secret anew is of use."""
_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0)


def check_credentials(url: str) -> None:
    """See whether the database would let this process in anew: a session that is open tells nothing of it.

    Raises:
        CredentialsRefusedError: it would not.
    """
    try:
        with storage_errors(), open_engine(url).connect():
            pass
    except CredentialsRefusedError:
        raise
    except StorageUnreachableError as error:
        _log.warning("the storage does not answer: %s", error)  # whoever needs it waits


def patiently(action: Callable[[], _T], reconnect: Callable[[], None] | None) -> _T:
    """Do it again while the database is away.

    Args:
        reconnect: what has to be done before it is done again.

    Raises:
        CredentialsRefusedError: it does not take the password any more.
        StorageUnreachableError: it was away for too long.
    """
    deadline = time.monotonic() + OUTAGE_LIMIT
    refused: float | None = None
    for attempt in itertools.count():
        try:
            with storage_errors():
                if attempt and reconnect is not None:
                    reconnect()
                return action()
        except StorageUnreachableError as error:
            now = time.monotonic()
            refused = (refused or now) if isinstance(error, CredentialsRefusedError) else None
            if now > deadline or (refused is not None and now >= refused + REFUSED_LIMIT):
                raise
            delay = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
            _log.warning("the storage does not answer, trying again in %g s: %s", delay, error)
            time.sleep(delay)
    raise AssertionError("unreachable")
