"""What a worker group holds of a study: its own lock, which makes it the only one to run the group's trials."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from hpstudy.storage.locks import SessionLocks
from hpstudy.storage.opening import storage_errors

_log = logging.getLogger(__name__)


class GroupLocks(SessionLocks):
    """Locks on a study, that of a group among them."""

    def __init__(self, url: str, study: str, group: int) -> None:
        super().__init__(url)
        self._study = study
        self.budget = f"budget:{study}"
        """Whoever counts trials and makes one holds this lock."""
        self.proposing = f"propose:{study}"
        """And this one, where proposals must follow one another that are not made under the budget's."""
        self._own = self._of(group)

    @classmethod
    def take(cls, url: str, study: str, group: int) -> Self:
        """Own the group, once no other process does."""
        with storage_errors():
            locks = cls(url, study, group)
            try:
                while not locks.acquire(locks._own, wait=False):
                    _log.info("waiting for another process that runs group %d of study %s", group, study)
                    time.sleep(1)
            except BaseException:
                locks.close()
                raise
        return locks

    @classmethod
    def take_free(cls, url: str, study: str, group: int) -> Self | None:
        """Own the group; None where another process does."""
        with storage_errors():
            locks = cls(url, study, group)
            if locks.acquire(locks._own, wait=False):
                return locks
            locks.close()
        return None

    @contextmanager
    def instead_of(self, group: int) -> Iterator[bool]:
        """Own another group for a block; False where a process does."""
        with self.trying(self._of(group), 0) as taken:
            yield taken

    def _of(self, group: int) -> str:
        return f"group:{self._study}:{group}"
