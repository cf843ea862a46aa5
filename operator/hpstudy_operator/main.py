"""The operator's process: kopf's watches on one side, the queue of studies on the other."""

import asyncio
import logging
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kopf

from hpstudy.api.names import LABEL_STUDY
from hpstudy.api.study import GROUP, KIND, PLURAL, VERSION
from hpstudy_operator import logs
from hpstudy_operator.audit import AUDIT_SECONDS, Audit
from hpstudy_operator.deletion import Deletion
from hpstudy_operator.kube import ApiError, Kube, UnavailableError
from hpstudy_operator.observe import Key
from hpstudy_operator.pace import Pace
from hpstudy_operator.queue import KeyedQueue
from hpstudy_operator.reconcile import Reconciler
from hpstudy_operator.settings import Settings, SettingsError
from hpstudy_operator.storages import Storages
from hpstudy_operator.tenants import Tenants

_log = logging.getLogger(__name__)

WORKERS = 8
"""Passes at the same time. A pass waits for the API server and the database, some 50 ms each on a quiet cluster: eight
make over a hundred a second, and eight threads are little memory."""
JITTER = 0.2
"""Share by which delays are shortened at most, so that studies applied together do not ask the database together for
ever. Never lengthened: a study with a time to live goes when that is over."""
STUCK_SECONDS = 300.0
"""A study that waited or was worked on for so long means that something hangs: every call has a time-out well below."""
WATCH_WORKERS = 64
WATCH_IDLE_SECONDS = 0.1
"""kopf keeps a worker for each object until it was idle for so long, and with a limit on the workers that would hold up
the other objects; ours only put a key into a queue."""


class Operator:
    """The parts of the operator, and what ties them to kopf's life cycle."""

    def __init__(self, kube: Kube, settings: Settings) -> None:
        self._kube = kube
        tenants = Tenants(
            self._kube, settings.database_url, settings.workers_database_host, settings.workers_database_port
        )
        self._storages = Storages(self._kube, tenants, self._on_trial)
        deletion = Deletion(self._kube, tenants)
        self._reconciler = Reconciler(self._kube, self._storages, deletion, settings.runner_image)
        self._threads = ThreadPoolExecutor(WORKERS + 1, thread_name_prefix="reconcile")
        self._queue: KeyedQueue[Key] = KeyedQueue(self._reconcile, WORKERS, expected=(ApiError, UnavailableError))
        self._audit = Audit()
        self._pace: Pace[Key] = Pace()
        self._auditor: asyncio.Task[None] | None = None

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """Tell kopf what to call."""
        kopf.on.login(registry=registry)(kopf.login_via_client)  # the credentials that Kube uses
        kopf.on.startup(registry=registry)(self._start)
        kopf.on.cleanup(registry=registry)(self._stop)
        kopf.on.probe(registry=registry, id="health")(self._probe)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(self._on_study)
        for group, version, plural in (("batch", "v1", "jobs"), ("", "v1", "pods")):
            kopf.on.event(group, version, plural, labels={LABEL_STUDY: kopf.PRESENT}, registry=registry)(self._on_child)

    async def _start(self, **_: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._storages.start()
        self._queue.start()
        self._auditor = asyncio.create_task(self._audit_for_ever(), name="audit")

    async def _stop(self, **_: Any) -> None:
        if self._auditor:
            self._auditor.cancel()
        await self._queue.stop()
        self._threads.shutdown(wait=False)
        self._storages.close()

    async def _on_study(self, event: Any, body: Any, namespace: str | None, name: str, **_: Any) -> None:
        self._audit.hear(dict(body))
        self._queue.add(Key(namespace or "", name))

    async def _on_child(self, labels: Any, namespace: str | None, **_: Any) -> None:
        self._queue.add(Key(namespace or "", labels[LABEL_STUDY]))

    def _on_trial(self, namespace: str, name: str) -> None:
        """A trial began or ended; called from any thread."""
        self._loop.call_soon_threadsafe(self._look_soon, Key(namespace, name))

    def _look_soon(self, key: Key) -> None:
        if (delay := self._pace.delay(key, self._loop.time())) is not None:
            self._queue.add_after(key, delay)

    async def _probe(self, **_: Any) -> str:
        problem = ""
        if (oldest := self._queue.oldest()) > STUCK_SECONDS:
            problem = f"a study has been waiting for {oldest:.0f} s"
        elif deaf := self._audit.deaf:
            problem = f"the watch does not report {', '.join(map(str, deaf[:3]))}"
        if problem:
            raise kopf.PermanentError(problem)  # anything else would be tried again, and the probe not answered
        return "ok"

    async def _reconcile(self, key: Key) -> float | None:
        delay = await asyncio.get_running_loop().run_in_executor(self._threads, self._reconciler.reconcile, key)
        return None if delay is None else delay * random.uniform(1 - JITTER, 1)  # noqa: S311

    async def _audit_for_ever(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_SECONDS)
            try:
                await self._audit_once()
            except (ApiError, UnavailableError) as error:
                _log.warning("the studies cannot be listed: %s", error)  # the API server is away: nobody's fault
            except Exception:
                _log.exception("the audit failed")  # a check that is broken must not take the operator down

    async def _audit_once(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._storages.close_idle)
        for key in self._audit.compare(await loop.run_in_executor(self._threads, self._kube.list_metadata, KIND)):
            self._queue.add(key)


def kopf_settings() -> kopf.OperatorSettings:
    """kopf as a source of events and nothing else: it writes no annotation, no finalizer and no event."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # the CRD comes with the operator; saves rights on namespaces and CRDs
    settings.peering.standalone = True
    settings.queueing.worker_limit = WATCH_WORKERS
    settings.queueing.idle_timeout = WATCH_IDLE_SECONDS
    for group, version, plural in (("batch", "v1", "jobs"), ("", "v1", "pods")):
        settings.watching.label_selectors[group, version, plural] = LABEL_STUDY
    return settings


def main() -> None:
    """Run until told to stop. Exits with 2 when the environment is incomplete."""
    logs.configure()
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.exit(f"error: {error}")
    registry = kopf.OperatorRegistry()
    Operator(Kube(WORKERS + 1, settings.namespaces), settings).register(registry)
    kopf.run(
        registry=registry,
        settings=kopf_settings(),
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        standalone=True,
        liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
    )


if __name__ == "__main__":
    main()
