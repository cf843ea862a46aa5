"""One queue of keys, each of them once: however often a key is added, it is never worked on twice at the same time.

The rules are those of client-go's workqueue: a key added while it is being worked on runs once more afterwards; a key
that failed comes back after a delay that doubles. And, as in controller-runtime's priority queue, a key to which
nothing happened, whose turn has only come round, lets the others pass.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)
K = TypeVar("K")

FIRST_RETRY = 1.0
"""Seconds until a key that failed is tried again; doubles with each failure. Most failures are a conflict or a
connection that broke, and are over by then."""
LAST_RETRY = 60.0
"""The longest such delay: an outage that ends is noticed within a minute."""
YIELD_SECONDS = 30.0
"""For how long a calm key lets those pass to which something happened. A thousand studies take a minute to be looked
at, and what somebody changes meanwhile is not to wait for that."""


class KeyedQueue(Generic[K]):
    """Work on keys with a bounded number of workers, all on one event loop.

    Args:
        work: called with a key; returns the seconds after which to call it again, or None to wait for an event.
        workers: how many keys are worked on at the same time.
        expected: errors that need no traceback in the log, only a line.
        about: entered with the key around what is logged of it.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        workers: int,
        expected: tuple[type[Exception], ...] = (),
        about: Callable[[K], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> None:
        self._work = work
        self._workers = workers
        self._expected = expected
        self._about = about
        self._ready: asyncio.PriorityQueue[tuple[float, int, K]] = asyncio.PriorityQueue()
        """Keys with what orders them; those that do not wait any more are passed over."""
        self._turns = count()
        self._waiting: dict[K, float] = {}
        """Keys in ``_ready``, and since when."""
        self._calm: set[K] = set()
        """Those of them to which nothing happened."""
        self._active: dict[K, float] = {}
        """Keys being worked on, and since when."""
        self._again: set[K] = set()
        """Keys added while they were being worked on."""
        self._timers: dict[K, tuple[asyncio.TimerHandle, bool]] = {}
        """Keys that are added later, and whether they are calm then."""
        self._failures: dict[K, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False

    def start(self) -> None:
        """Start the workers on the running event loop."""
        self._tasks = [asyncio.create_task(self._run(), name=f"reconciler-{i}") for i in range(self._workers)]

    async def stop(self, seconds: float) -> bool:
        """Take no more keys, and wait for those being worked on, but not for longer than that; returns whether all
        were finished. A pass that is cut off would be repeated anyway, but its database session ends cleanly this way.
        """
        self._is_stopping = True
        for timer, _ in self._timers.values():
            timer.cancel()
        self._timers.clear()
        while not self._ready.empty():
            self._ready.get_nowait()
        deadline = asyncio.get_running_loop().time() + seconds
        while self._active and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        has_finished = not self._active
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return has_finished

    def add(self, key: K, *, calm: bool = False) -> None:
        """Work on the key as soon as a worker is free; not at all any more once it was stopped.

        Args:
            calm: nothing happened to it that somebody waits for.
        """
        if self._is_stopping:
            return
        if planned := self._timers.pop(key, None):
            planned[0].cancel()
            calm = calm and planned[1]
        if key in self._active:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = asyncio.get_running_loop().time()
            self._put(key, calm=calm)
        elif key in self._calm and not calm:
            self._put(key, calm=False)

    def add_after(self, key: K, delay: float, *, calm: bool = False) -> None:
        """Work on the key after the delay in seconds, unless it is due, or something adds it, earlier."""
        if key in self._again or self._is_stopping or (key in self._waiting and (calm or key not in self._calm)):
            return
        loop = asyncio.get_running_loop()
        if planned := self._timers.get(key):
            timer, was_calm = planned
            if timer.when() <= loop.time() + delay and (calm or not was_calm):
                return
            timer.cancel()
            calm = calm and was_calm
        self._timers[key] = loop.call_later(delay, self._due, key, calm), calm

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return len(self._waiting)

    def oldest(self) -> float:
        """Seconds for which the oldest key has waited, or been worked on; 0 when there is none."""
        since = [*self._waiting.values(), *self._active.values()]
        return asyncio.get_running_loop().time() - min(since) if since else 0.0

    def _due(self, key: K, calm: bool) -> None:
        self._timers.pop(key, None)
        self.add(key, calm=calm)

    def _put(self, key: K, *, calm: bool) -> None:
        (self._calm.add if calm else self._calm.discard)(key)
        self._ready.put_nowait((asyncio.get_running_loop().time() + calm * YIELD_SECONDS, next(self._turns), key))

    async def _run(self) -> None:
        while True:
            _, _, key = await self._ready.get()
            if key not in self._waiting:
                continue  # it has passed others, and been worked on
            del self._waiting[key]
            self._calm.discard(key)
            self._active[key] = asyncio.get_running_loop().time()
            try:
                delay = await self._work(key)
                self._failures.pop(key, None)
            except Exception as error:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                delay = min(FIRST_RETRY * 2 ** (failures - 1), LAST_RETRY)
                trace = None if isinstance(error, self._expected) else error
                with self._about(key):
                    _log.error("%s failed, again in %g s: %s", key, delay, error, exc_info=trace)
            finally:
                self._active.pop(key, None)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif delay is not None:
                self.add_after(key, delay, calm=key not in self._failures)
