"""What the ranks of a search say to one another: rank zero decides, and all of them end a trial together.

Through the process group's store and no collective: that works for gloo and NCCL alike, and still does while a rank is
stuck in a collective that another one never joined.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch.distributed as dist
from pydantic import BaseModel, ConfigDict
from torch._C._distributed_c10d import PrefixStore, Store

from hpstudy.api.errors import InvalidStudyError
from hpstudy.search.errors import SearchFailedError
from hpstudy.storage.attributes import Failure
from hpstudy.training.isolation import leave_process_group
from hpstudy.trials.causes import Cause, root_cause

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

GRACE = 10.0
"""Seconds after a rank's failure in which all ranks must have come to the end of the trial, by an error of their own or
well. One that has not waits for the failed one, in a collective that it left. Then as long again to clean up in."""
TELL_SECONDS = 10.0
"""Seconds that the other ranks then wait for rank zero to record it, before they leave."""
_LOOK = 0.25  # seconds between the watchdog's looks
_FOR_EVER = timedelta(days=7)
"""Rank zero may train or wait for a long time; a store that dies closes its connections, which ends a wait at once."""
_searches = 0


class Ended(BaseModel):
    """How one rank came to the end of a trial."""

    model_config = ConfigDict(frozen=True)

    cause: Cause | None = None
    """Where it failed; or pruned the trial by itself, which is a failure unless all ranks do."""
    failure: Failure = Failure.ERROR
    """The class of that."""
    invalid: str | None = None
    """The reason, where no trial of the search could run: a name that TrainingArguments does not have."""
    caught: bool = False
    """Its error is one of ``catch``."""
    pruned: bool = False


class Ranks(Protocol):
    """The ranks of a search, as one of them sees them."""

    rank: int

    def begin(self, index: int) -> None:
        """Come to the trial of this index; 0 is what is before the first."""

    def share(self, make: Callable[[], _T]) -> _T:
        """Rank zero's value on every rank; JSON. All ranks must call it equally often.

        Raises:
            InvalidStudyError: rank zero raised one.
            SearchFailedError: rank zero raised something else.
        """

    def end(self, ended: Ended, clean: Callable[[], None]) -> list[Ended]:
        """Say how the trial ended here, clean up, and wait for the others; returns how it ended on each rank. Where a
        rank failed alone and another waits for it for ever, nobody returns: see ``Several``."""

    def close(self) -> None:
        """The search is over."""


class Alone:
    """A search in one process."""

    rank = 0

    def begin(self, index: int) -> None:
        """Nobody is there to agree with."""

    def share(self, make: Callable[[], _T]) -> _T:
        """The value as it is."""
        return make()

    def end(self, ended: Ended, clean: Callable[[], None]) -> list[Ended]:
        """It ended."""
        clean()
        return _together([ended])

    def close(self) -> None:
        """Nothing is kept."""


class Several:
    """A search in all processes of a process group.

    A rank that fails, or prunes where it was not told to, says so in the store, where a thread of every rank looks. If
    all ranks come to the end of the trial within ``GRACE`` seconds the trial failed, and the search goes on with a new
    process group: the old one may have collectives in it that only some have joined. If not, somebody waits for ever:
    rank zero's thread records the trial with the root cause, and every process leaves.

    Args:
        fail: on rank zero, records the trial in hand as failed, from another thread.
        timeout: of the process groups' collectives.
    """

    def __init__(self, fail: Callable[[Ended], None], timeout: timedelta) -> None:
        global _searches
        _searches += 1
        self.rank = dist.get_rank()
        self._size = dist.get_world_size()
        self._fail = fail
        self._timeout = timeout
        default: Any = dist.distributed_c10d._get_default_store()
        self._default = default  # rank zero's may be the server of all others
        # torchrun's store may outlive its workers and serve those that it starts again.
        self._place = f"hpstudy/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{_searches}"
        self._root = PrefixStore(self._place, _own(default))
        self._seen = PrefixStore(self._place, _own(default))
        self._index = 0
        self._count = 0
        self._training = False
        self._closed = threading.Event()
        self._store = self._at(self._root)
        self._watchdog = threading.Thread(target=self._watch, name="hpstudy-watchdog", daemon=True)
        self._watchdog.start()

    def begin(self, index: int) -> None:
        """See ``Ranks``."""
        self._index, self._count = index, 0
        self._store = self._at(self._root)
        self._training = index > 0

    def share(self, make: Callable[[], _T]) -> _T:
        """See ``Ranks``."""
        key = f"said/{self._count}"
        self._count += 1
        if self.rank == 0:
            try:
                value = make()
                text = json.dumps({"value": value})
            except Exception as error:
                reason = error.reason if isinstance(error, InvalidStudyError) else None
                said = {"reason": reason, "error": str(error) or type(error).__name__}
                self._store.set(key, json.dumps(said))
                raise
            self._store.set(key, text)
            return value
        said = json.loads(self._store.get(key))
        if "value" in said:
            return said["value"]  # type: ignore[no-any-return]
        if said["reason"] is not None:
            raise InvalidStudyError(said["reason"], said["error"])
        raise SearchFailedError(said["error"])

    def end(self, ended: Ended, clean: Callable[[], None]) -> list[Ended]:
        """See ``Ranks``."""
        ranks = range(self._size)
        self._store.set(f"end/{self.rank}", ended.model_dump_json())
        if ended.cause is not None:
            self._store.set("failed", "1")
        clean()  # after it is said: to give memory back waits for a GPU that may be in a collective for ever
        self._wait([f"end/{rank}" for rank in ranks])
        all_ended = [Ended.model_validate_json(self._store.get(f"end/{rank}")) for rank in ranks]
        if any(each.cause for each in all_ended):
            self._renew()
        self._store.set(f"left/{self.rank}", "1")
        if self.rank == 0:
            self._wait([f"left/{rank}" for rank in ranks])
            self._forget()
        self._training = False
        return _together(all_ended)

    def close(self) -> None:
        """See ``Ranks``."""
        self._closed.set()
        self._watchdog.join()  # at Python's end a thread inside torch's store would abort the process

    def _renew(self) -> None:
        """A process group without what the failed trial left in the old one."""
        backend = str(dist.get_backend_config())
        leave_process_group()
        store = PrefixStore(f"{self._place}/group/{self._index}", self._default.clone())
        dist.init_process_group(backend, timeout=self._timeout, world_size=self._size, rank=self.rank, store=store)

    def _forget(self) -> None:
        """Take the trial's words out of the store, which lives as long as the search."""
        said = [f"said/{number}" for number in range(self._count)]
        of_ranks = [f"{word}/{rank}" for word in ("end", "left") for rank in range(self._size)]
        for key in (*said, *of_ranks, "failed"):
            self._store.delete_key(key)

    def _wait(self, keys: list[str]) -> None:
        """Until all are there. Looks, as a wait that times out is an error to torch's log."""
        pause = 0.002
        while not self._store.check(keys):
            time.sleep(pause)
            pause = min(2 * pause, 0.1)

    def _at(self, root: Store) -> Store:
        return PrefixStore(str(self._index), root)

    def _watch(self) -> None:
        since: tuple[tuple[int, bool], float] | None = None
        ends = [f"end/{rank}" for rank in range(self._size)]
        while not self._closed.wait(_LOOK):
            index = self._index
            store = PrefixStore(str(index), self._seen)
            try:
                failed = self._training and store.check(["failed"])
                all_ended = failed and store.check(ends)  # from then on they clean up, which may take its time, too
            except RuntimeError:  # the store is gone: so are the search or its launcher
                return
            if not failed:
                since = None
            elif since is None or since[0] != (index, all_ended):
                since = (index, all_ended), time.monotonic()
            elif time.monotonic() - since[1] > GRACE and self._training and self._index == index:
                self._leave(store)

    def _leave(self, store: Store) -> None:
        """End this process, its main thread stuck as it may be."""
        there = [f"end/{rank}" for rank in range(self._size) if store.check([f"end/{rank}"])]
        root = root_of([Ended.model_validate_json(store.get(key)) for key in there])
        message = root.cause.message if root and root.cause else "a rank failed"
        rank = root.cause.rank if root and root.cause else -1
        _log.error(
            "rank %d failed, and %d of %d ranks still wait for it: every process leaves; started again with storage= "
            "the search continues. %s",
            rank,
            self._size - len(there),
            self._size,
            message,
        )
        if self.rank == 0:
            try:
                if root is not None:
                    self._fail(root)
            finally:
                store.set("told", "1")
        else:
            deadline = time.monotonic() + TELL_SECONDS
            while not store.check(["told"]) and time.monotonic() < deadline:
                time.sleep(_LOOK)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def root_of(ended: list[Ended]) -> Ended | None:
    """The rank whose failure explains those of the others; None where none failed."""
    cause = root_cause(each.cause for each in ended if each.cause)
    return next((each for each in ended if each.cause is cause), None) if cause else None


def _together(ended: list[Ended]) -> list[Ended]:
    """Where every rank pruned the trial, none failed."""
    return [Ended(pruned=True)] * len(ended) if all(each.pruned for each in ended) else ended


def _own(store: Any) -> Store:
    """The store over a connection of its own: on a shared one, a wait of one thread holds up the other."""
    own: Store = store.clone()
    own.set_timeout(_FOR_EVER)
    return own
