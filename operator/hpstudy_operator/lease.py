"""Which of several replicas acts: the one that holds a Lease. The rules and times are client-go's.

https://pkg.go.dev/k8s.io/client-go/tools/leaderelection. (The Python client's election goes by the wall clock, never
gives a Lease back, and lets one slow request outlast its deadline.)

What the holder wrote last is old when a candidate has seen it unchanged for LEASE_SECONDS by its own clock: clocks of
different nodes are never compared. The holder for its part writes no more when RENEW_SECONDS have passed since it sent
its last renewal, by a clock that goes on while the process or the machine sleeps; between the two lie the seconds that
a request under way may take. A process that is stopped between looking at the clock and sending its request is the gap
that is left, as with every lease: what it sends is then stale, and harmless. A status carries the resource version that
was read, a deletion the uid, and what is applied is what anybody would make of the study as it was.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from hpstudy_operator.kube import ApiError, Kube, Resource, UnavailableError
from hpstudy_operator.settings import LeaseName

_log = logging.getLogger(__name__)

LEASE_SECONDS = 15
"""A holder that is not heard of for so long has lost the Lease."""
RENEW_SECONDS = 10.0
"""A holder that could not renew it for so long gives up."""
RETRY_SECONDS = 2.0
"""Between two renewals, and between two looks of a candidate."""
JITTER = 0.2
"""Share by which candidates wait longer, so that they do not meet."""
TIMEOUT = (2.0, 3.0)
"""Seconds to connect to the API server and to read: a renewal that failed can be tried again before it is too late."""


def awake_or_asleep() -> float:
    """Seconds of a clock that also counts while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """A candidate for a Lease. For one thread, but for ``is_held``."""

    def __init__(self, kube: Kube, name: LeaseName, clock: Callable[[], float] = awake_or_asleep) -> None:
        self._kube = kube
        self._name = name
        self._clock = clock
        self._seen: tuple[Resource, float] = {}, 0.0
        """What the Lease said, and since when."""
        self._renewed: float | None = None
        """When the last renewal that succeeded was sent; None while it is not ours."""

    def is_held(self) -> bool:
        """Whether this candidate may act now."""
        renewed = self._renewed
        return renewed is not None and self._clock() < renewed + RENEW_SECONDS

    def attempt(self) -> bool:
        """Take the Lease or renew it; returns whether that succeeded.

        Raises:
            ApiError: the API server refuses.
            UnavailableError: it does not answer.
        """
        sent = self._clock()
        lease = self._kube.get("Lease", self._name.namespace, self._name.name)
        if lease is None:
            metadata = {"namespace": self._name.namespace, "name": self._name.name}
            fresh = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
            return self._won(self._kube.create({**fresh, "spec": self._spec({})}), sent)
        spec = lease.get("spec", {})
        if spec != self._seen[0]:
            self._seen = spec, self._clock()
        holder, since = spec.get("holderIdentity"), self._seen[1]
        if holder and holder != self._name.holder:
            self._renewed = None
            if self._clock() < since + spec.get("leaseDurationSeconds", LEASE_SECONDS):
                return False
        return self._won(self._kube.replace({**lease, "spec": self._spec(spec)}), sent)

    def release(self) -> None:
        """Let another candidate have it at once. Nothing may act any more when this is called."""
        if self._renewed is None:
            return
        self._renewed = None
        try:
            lease = self._kube.get("Lease", self._name.namespace, self._name.name)
            if lease and lease["spec"].get("holderIdentity") == self._name.holder:
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                self._kube.replace({**lease, "spec": spec})
        except (ApiError, UnavailableError) as error:
            _log.warning("the Lease could not be given back: %s; others wait until it lapses", error)

    def _won(self, answer: Resource | None, sent: float) -> bool:
        if answer is None:  # another one was faster
            return False
        self._seen = answer["spec"], self._clock()
        self._renewed = sent
        return True

    def _spec(self, before: Resource) -> dict[str, Any]:
        now, ours = _now(), before.get("holderIdentity") == self._name.holder
        return {
            "holderIdentity": self._name.holder,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": before.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (0 if ours or not before else 1),
        }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # metav1.MicroTime; for people, nobody counts with it


class Election:
    """Keeps trying for the Lease, and keeps it."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        # Its own thread: a renewal must not wait for a pass.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lease")

    async def win(self) -> None:
        """Return when this replica holds the Lease."""
        while not await self._attempt():
            await asyncio.sleep(RETRY_SECONDS * random.uniform(1, 1 + JITTER))  # noqa: S311

    async def lose(self) -> None:
        """Renew the Lease; return when it is lost."""
        while self._lease.is_held():
            await asyncio.sleep(RETRY_SECONDS)
            # Whatever becomes of the request: the time is over when the clock says so.
            attempt = asyncio.ensure_future(self._attempt())
            while not attempt.done() and self._lease.is_held():
                await asyncio.wait((attempt,), timeout=RETRY_SECONDS / 4)

    async def resign(self) -> None:
        """Give the Lease back. Nothing may act any more when this is called."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._lease.release)
        self._thread.shutdown(wait=False)

    async def _attempt(self) -> bool:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._lease.attempt)
        except (ApiError, UnavailableError) as error:
            _log.warning("the Lease could not be looked at: %s", error)
        except Exception:
            _log.exception("a look at the Lease failed")  # whoever holds it loses it by that
        return False
