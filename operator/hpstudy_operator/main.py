"""The operator's process: kopf's watches on one side, the queue of studies on the other."""

import asyncio
import logging
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kopf

from hpstudy.api.names import LABEL_STUDY
from hpstudy.api.study import GROUP, KIND, PLURAL, VERSION
from hpstudy.storage.connecting import limit_waiting
from hpstudy_operator import logs, metrics
from hpstudy_operator.audit import AUDIT_SECONDS
from hpstudy_operator.census import Restarts, Studies
from hpstudy_operator.deletion import Deletion
from hpstudy_operator.kube import ApiError, Kube, RefusedError, UnavailableError
from hpstudy_operator.lease import TIMEOUT, Election, Lease
from hpstudy_operator.namespaces import LOOK_SECONDS, Namespaces
from hpstudy_operator.observe import Key
from hpstudy_operator.outages import Outages
from hpstudy_operator.pace import Pace
from hpstudy_operator.queue import KeyedQueue
from hpstudy_operator.reconcile import Reconciler
from hpstudy_operator.server import Server
from hpstudy_operator.settings import Settings, SettingsError
from hpstudy_operator.storages import Storages
from hpstudy_operator.tenants import Tenants
from hpstudy_operator.watches import Watches, study_of

_log = logging.getLogger(__name__)

WORKERS = 8
"""Passes at the same time. A pass waits for the API server and the database, some 50 ms each on a quiet cluster: eight
make over a hundred a second, and eight threads are little memory."""
JITTER = 0.2
"""Share by which delays are shortened at most, so that studies applied together do not ask the database together for
ever. Never lengthened: a study with a time to live goes when that is over."""
STUCK_SECONDS = 300.0
"""A study that waited or was worked on for so long means that something hangs. Every call has a
time-out below: half a minute for the API server and for a statement (connecting.py), four for what removes a large
study."""
START_SECONDS = 1.0
"""Between two looks after the start whether the watches have told of all there is: the kubelet asks every five."""
STOP_SECONDS = 15.0
"""How long passes under way may take to finish when the operator is told to stop: a pass takes well below a second, and
Kubernetes gives thirty, of which kopf takes a few."""
EXIT_LOST = 3
"""Exit code of a replica that lost the Lease."""
CHILDREN = (("batch", "v1", "jobs"), ("", "v1", "pods"))
WATCH_WORKERS = 64
WATCH_IDLE_SECONDS = 0.1
"""kopf keeps a worker for each object until it was idle for so long, and with a limit on the workers that would hold up
the other objects; ours only put a key into a queue."""


class Operator:
    """The parts of the operator, and what ties them to kopf's life cycle."""

    def __init__(self, kube: Kube, settings: Settings, election: Election | None = None) -> None:
        """
        Args:
            election: for the right to act; None when there is no other replica.
        """
        self._kube = kube
        self._election = election
        tenants = Tenants(
            self._kube, settings.database_url, settings.workers_database_host, settings.workers_database_port
        )
        outages = Outages()
        self._storages = Storages(self._kube, tenants, self._on_trial, outages)
        deletion = Deletion(self._kube, tenants, outages)
        self._reconciler = Reconciler(self._kube, self._storages, deletion, settings.runner_image)
        self._threads = ThreadPoolExecutor(WORKERS + 1, thread_name_prefix="reconcile")
        self._queue: KeyedQueue[Key] = KeyedQueue(
            self._reconcile, WORKERS, expected=(ApiError, RefusedError, UnavailableError), about=logs.about
        )
        self._pace: Pace[Key] = Pace()
        self._watches = Watches(kube)
        self.namespaces = Namespaces(kube, settings.namespaces)
        """What kopf is to watch."""
        self._server = Server(settings.health_port, live=self._sick, ready=self._unready)
        self._studies, self._restarts = Studies(), Restarts()
        self._is_leading = False
        self._tasks: list[asyncio.Task[None]] = []

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """Tell kopf what to call, and Prometheus what to collect."""
        kopf.on.login(registry=registry)(kopf.login_via_client)  # the credentials that Kube uses
        kopf.on.startup(registry=registry)(self._start)
        kopf.on.cleanup(registry=registry)(self._stop)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(self._on_study)
        for handler, (group, version, plural) in zip((self._on_job, self._on_pod), CHILDREN, strict=True):
            kopf.on.event(group, version, plural, labels={LABEL_STUDY: kopf.PRESENT}, registry=registry)(handler)
        metrics.REGISTRY.register(self._studies)
        metrics.QUEUE_DEPTH.set_function(lambda: len(self._queue))
        metrics.QUEUE_OLDEST.set_function(self._queue.oldest)

    async def _start(self, **_: Any) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.start()
        self._tasks = [
            asyncio.create_task(self._audit_for_ever(), name="audit"),
            asyncio.create_task(self._look_for_ever(), name="namespaces"),
            asyncio.create_task(self._lead(), name="election"),
        ]

    async def _lead(self) -> None:
        """Act, once this replica may."""
        if self._election:
            await self._election.win()
            _log.info("this replica has the Lease, and acts")
        # Those that stand by hear everything and queue nothing.
        self._is_leading = self._studies.visible = self._restarts.counting = True
        metrics.LEADER.set(1)
        self._storages.start()
        self._queue.start()
        for key in self._watches.studies:
            self._queue.add(key, calm=True)
        if self._election:
            await self._election.lose()
            _log.critical("the Lease was not renewed in time: this replica ends, so that no two act")
            logging.shutdown()
            os._exit(EXIT_LOST)  # at once: passes that are under way must not go on

    async def _stop(self, **_: Any) -> None:
        has_finished = await self._queue.stop(STOP_SECONDS)
        for task in self._tasks:
            task.cancel()
        await self._server.stop()
        if not has_finished:
            _log.warning("passes that did not finish in %g s are cut off; the next ones do the same", STOP_SECONDS)
            logging.shutdown()
            os._exit(0)  # Python would wait for their threads. The Lease lapses
        if self._election:
            await self._election.resign()
        self._threads.shutdown(wait=False)
        self._storages.close()

    async def _on_study(self, event: Any, body: Any, namespace: str | None, name: str, **_: Any) -> None:
        key = Key(namespace or "", name)
        self._watches.hear(KIND, event["type"], dict(body))
        self._studies.hear(key, event["type"], dict(body))
        self._add(key, calm=_is_old(event))

    async def _on_job(self, event: Any, body: Any, **_: Any) -> None:
        self._watches.hear("Job", event["type"], dict(body))
        self._restarts.hear_job(event["type"], dict(body))
        self._add(study_of(body), calm=_is_old(event))

    async def _on_pod(self, event: Any, body: Any, **_: Any) -> None:
        self._watches.hear("Pod", event["type"], dict(body))
        self._restarts.hear_pod(event["type"], dict(body))
        self._add(study_of(body), calm=_is_old(event))

    def _on_trial(self, namespace: str, name: str) -> None:
        """A trial began or ended; called from any thread."""
        self._loop.call_soon_threadsafe(self._look_soon, Key(namespace, name))

    def _look_soon(self, key: Key) -> None:
        if (delay := self._pace.delay(key, self._loop.time())) is not None:
            self._queue.add_after(key, delay)

    def _add(self, key: Key, *, calm: bool = False) -> None:
        if self._is_leading:
            self._queue.add(key, calm=calm)

    def _sick(self) -> str:
        """What a restart would mend."""
        if (oldest := self._queue.oldest()) > STUCK_SECONDS:
            return f"a study has been waiting for {oldest:.0f} s"
        return self._watches.problem

    def _unready(self) -> str:
        """What is missing after the start. The Lease is not: a replica that stands by is ready to take over."""
        return "" if self._watches.have_told_all else "not all studies have been heard of yet"

    async def _reconcile(self, key: Key) -> float | None:
        if not self.namespaces.serves(key.namespace):
            self._storages.forget(key.namespace, key.name)
            return None
        with metrics.reconciling():
            delay = await asyncio.get_running_loop().run_in_executor(self._threads, self._reconciler.reconcile, key)
        return None if delay is None else delay * random.uniform(1 - JITTER, 1)  # noqa: S311

    async def _audit_for_ever(self) -> None:
        while True:
            # The first ones tell when the operator is ready.
            await asyncio.sleep(AUDIT_SECONDS if self._watches.have_told_all else START_SECONDS)
            try:
                await self._audit_once()
            except (ApiError, UnavailableError) as error:
                _log.warning("the studies cannot be listed: %s", error)  # the API server is away: nobody's fault
            except Exception:
                _log.exception("the audit failed")  # a check that is broken must not take the operator down

    async def _look_for_ever(self) -> None:
        while True:
            try:
                gone = await self.namespaces.look(self._threads)
                for key in self._watches.studies:
                    if key.namespace in gone:
                        self._add(key)
            except (ApiError, UnavailableError) as error:
                _log.warning("the namespaces cannot be looked at: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    async def _audit_once(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._storages.close_idle)
        missed = await self._watches.audit(self._threads)
        self._studies.keep(self._watches.studies)
        for key in missed:
            self._add(key)


def _is_old(event: Any) -> bool:
    """Whether the object is only listed, as a watch begins."""
    return event["type"] is None


def kopf_settings() -> kopf.OperatorSettings:
    """kopf as a source of events and nothing else: it writes no annotation, no finalizer and no event."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # the CRD comes with the operator; saves rights on namespaces and CRDs
    settings.peering.standalone = True
    settings.queueing.worker_limit = WATCH_WORKERS
    settings.queueing.idle_timeout = WATCH_IDLE_SECONDS
    for group, version, plural in CHILDREN:
        settings.watching.label_selectors[group, version, plural] = LABEL_STUDY
    return settings


def main() -> None:
    """Run until told to stop. Exits with 2 when the environment is incomplete."""
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.exit(f"error: {error}")
    logs.configure(settings.log_level)
    limit_waiting()
    lease = settings.lease and Lease(Kube(connections=1, timeout=TIMEOUT), settings.lease)
    kube = Kube(WORKERS + 1, settings.namespaces, may_write=lease.is_held if lease else lambda: True)
    registry = kopf.OperatorRegistry()
    operator = Operator(kube, settings, Election(lease) if lease else None)
    operator.register(registry)
    kopf.run(
        registry=registry,
        settings=kopf_settings(),
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        insights=operator.namespaces.insights,
        standalone=True,
    )


if __name__ == "__main__":
    main()
