"""What a worker group holds of a study: its own lock, which makes it the only one to run the group's trials."""

import logging
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hpstudy.storage.errors import StorageUnreachableError, storage_errors
from hpstudy.storage.locks import SessionLocks
from hpstudy.trials.budget import Next, Verdict

_log = logging.getLogger(__name__)

KEEP_SECONDS = 20.0
"""How often a group looks whether its lock is still its own: a restart of the database takes all locks away, and a
group whose trial reports nothing would not notice before that trial's end."""
_RETURN_SECONDS = 3 * KEEP_SECONDS
"""After a restart, how long a free lock may mean that its group has not looked yet."""
TURN_SECONDS = 0.2
"""For how long to try while another group takes a trial. It has one in milliseconds, unless its sampler fits a
model: meanwhile this group has its own trials to listen to."""
_BUSY_SECONDS = (0.05, 0.15)
"""After which to wait again; not the same for all, so that groups do not meet again."""


class GroupLocks(SessionLocks):
    """Locks on a study, that of a group among them once it is taken."""

    def __init__(self, url: str, study: str, group: int) -> None:
        super().__init__(url)
        self._url = url
        self._study = study
        self._group = group
        self._looked = time.monotonic()
        self._retaken = -math.inf
        self.budget = f"budget:{study}"
        """Whoever counts trials and makes one holds this lock."""
        self.proposing = f"propose:{study}"
        """And this one, where proposals must follow one another that are not made under the budget's."""

    def take(self) -> None:
        """Own the group, once no other process does."""
        while not self.acquire(self._of(self._group), wait=False):
            _log.info("waiting for another process that runs group %d of study %s", self._group, self._study)
            time.sleep(1)

    def retake(self) -> None:
        """The same, after the connection was lost, and all locks with it."""
        self._reconnect()
        self.take()

    def keep(self) -> None:
        """Own the group again where a connection was lost unnoticed. Waits for nobody: what cannot be had now is tried
        again by the next call, or taken when something is asked of the storage."""
        now = time.monotonic()
        if now < self._looked + KEEP_SECONDS:
            return
        self._looked = now
        try:
            with storage_errors():
                self.check()
        except StorageUnreachableError as error:
            _log.warning("the lock of group %d went with its connection: %s", self._group, error)
            try:
                with storage_errors():
                    self._reconnect()
                    taken = self.acquire(self._of(self._group), wait=False)
            except StorageUnreachableError as error:
                _log.warning("it could not be taken again: %s", error)
                return
            if not taken:
                _log.warning("another process has it")
                self.close()  # so that nothing is done without it

    @contextmanager
    def instead_of(self, group: int) -> Iterator[bool]:
        """Own another group for a block; False where a process does, or may."""
        if time.monotonic() < self._retaken + _RETURN_SECONDS:
            yield False
            return
        with self.trying(self._of(group), 0) as taken:
            yield taken

    def _reconnect(self) -> None:
        self.close()
        super().__init__(self._url)
        self._retaken = self._looked = time.monotonic()

    def _of(self, group: int) -> str:
        return f"group:{self._study}:{group}"


def busy() -> Verdict:
    """What is next for a group whose turn did not come."""
    return Verdict(Next.WAIT, after=random.uniform(*_BUSY_SECONDS))  # noqa: S311
