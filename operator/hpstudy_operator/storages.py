"""What the storages say about studies: opened once each, with one connection, and closed when nobody asks any more."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import optuna

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.names import stored_study_name
from hpstudy.api.study import Study
from hpstudy.api.workers import SecretKey
from hpstudy.storage.ends import PodEnd, record_end
from hpstudy.storage.opening import StorageUnreachableError, open_storage, open_study, parse_url, storage_errors
from hpstudy.storage.reading import StudySnapshot, read_snapshot
from hpstudy.storage.settings import record_settings
from hpstudy_operator.kube import Kube
from hpstudy_operator.tenants import TENANT_SECRET, Tenants, secret_value

IDLE_SECONDS = 120.0
"""A storage that nobody asked about for so long is closed. Running studies ask every few seconds; finished ones never,
and must not hold a connection of the database's limited number."""
RETRY_SECONDS = 5.0
"""A storage that cannot be reached is left alone for so long. A connection may take ten seconds to fail, and every
study of the storage asks: without this a dead database would keep all threads busy."""


@dataclass(frozen=True)
class StorageView:
    """What is known of a study's storage."""

    secret: SecretKey
    """Where its workers find the URL."""
    reason: str
    """The reason of the condition StorageReady."""
    message: str
    snapshot: StudySnapshot | None = None
    """The study's trials, when the storage is ready."""
    invalid: InvalidStudyError | None = None
    """Why the storage does not take the study."""


@dataclass
class _Open:
    """An opened storage. The lock lets one thread at a time use its only connection."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    storage: optuna.storages.RDBStorage | None = None
    studies: set[tuple[str, int]] = field(default_factory=set)
    """Studies, by stored name and generation, that were compared with what is stored."""
    ends: dict[tuple[str, int], PodEnd] = field(default_factory=dict)
    """What was told of the ends of pods, by stored name and worker group."""
    used: float = 0.0
    failed: tuple[float, str] | None = None
    """When it last could not be reached, and why."""


class Storages:
    """All storages in use. Safe for many threads."""

    def __init__(self, kube: Kube, tenants: Tenants) -> None:
        self._kube = kube
        self._tenants = tenants
        self._open: dict[str, _Open] = {}
        self._guard = threading.Lock()

    def look(self, study: Study, generation: int, ends: Mapping[int, PodEnd]) -> StorageView:
        """Prepare the storage where that is needed, tell the workers what they cannot know, and read the study.

        Preparing is part of looking: nothing can be decided before the storage is there, and it changes nothing that
        exists. Telling is idempotent too, and is done when there is something new.

        Args:
            ends: how the latest pod of each worker group ended.
        """
        namespace = study.metadata.namespace
        reference = study.spec.storage.secret_ref if study.spec.storage else TENANT_SECRET
        if study.spec.storage:
            secret = self._kube.get("Secret", namespace, reference.name)
            url = secret_value(secret, reference.key) if secret else None
        else:
            url = self._tenants.url(study.metadata)
        if url is None:
            return StorageView(
                reference,
                reasons.SECRET_NOT_FOUND,
                f"there is no Secret {reference.name!r} with the key {reference.key!r} in namespace {namespace!r}; "
                f"make it: kubectl -n {namespace} create secret generic {reference.name} "
                f"--from-literal={reference.key}=postgresql://user:password@host:5432/database",
            )
        try:
            snapshot = self._read(url, study, generation, ends)
        except StorageUnreachableError as error:
            return StorageView(
                reference,
                reasons.STORAGE_UNREACHABLE,
                f"the database of Secret {reference.name!r} does not work: {error}; it is tried again",
            )
        except InvalidStudyError as error:
            if error.reason in {reasons.STORAGE_UNREACHABLE, reasons.SCHEMA_MISMATCH}:
                return StorageView(reference, error.reason, f"Secret {reference.name!r}: {error.message}")
            return StorageView(reference, reasons.STORAGE_READY, "the storage is ready", invalid=error)
        return StorageView(reference, reasons.STORAGE_READY, "the storage is ready", snapshot)

    def close_idle(self) -> None:
        """Close what nobody asked about for a while."""
        before = time.monotonic() - IDLE_SECONDS
        with self._guard:
            idle = [url for url, entry in self._open.items() if entry.used < before and not entry.lock.locked()]
            entries = [self._open.pop(url) for url in idle]
        for entry in entries:
            _close(entry)

    def close(self) -> None:
        """Close everything."""
        with self._guard:
            entries, self._open = list(self._open.values()), {}
        for entry in entries:
            _close(entry)

    def _read(self, url: str, study: Study, generation: int, ends: Mapping[int, PodEnd]) -> StudySnapshot:
        if parse_url(url).get_backend_name() == "sqlite":
            raise InvalidStudyError(
                reasons.STORAGE_UNREACHABLE,
                "in a cluster all pods must reach the database: postgresql://…, not sqlite",
            )
        with self._guard:
            entry = self._open.setdefault(url, _Open())
            entry.used = time.monotonic()
        with entry.lock:
            if entry.failed and time.monotonic() < entry.failed[0] + RETRY_SECONDS:
                raise StorageUnreachableError(entry.failed[1])
            try:
                if entry.storage is None:
                    ours = self._tenants.provision(study.metadata.namespace, url)
                    entry.storage = open_storage(url, upgrade=ours)
                snapshot = _read_study(entry, entry.storage, study, generation, ends)
            except StorageUnreachableError as error:
                entry.failed = (time.monotonic(), str(error))
                # Opened anew next time: the tables or the role itself may be gone with a database that was replaced.
                _close(entry)
                raise
            entry.failed = None
            return snapshot


def _read_study(
    entry: _Open, storage: optuna.storages.RDBStorage, study: Study, generation: int, ends: Mapping[int, PodEnd]
) -> StudySnapshot:
    name = stored_study_name(study.metadata)
    if (name, generation) not in entry.studies:
        _prepare_study(storage, name, study)
        entry.studies.add((name, generation))
    snapshot = read_snapshot(storage, name, study.spec)
    if not snapshot.counts.total:
        _prepare_study(storage, name, study)  # not started yet, or lost with its database: cheap, and makes sure
    _tell_ends(entry, storage, name, ends)
    return snapshot


def _prepare_study(storage: optuna.storages.RDBStorage, name: str, study: Study) -> None:
    opened = open_study(storage, name, study.spec)
    with storage_errors():
        record_settings(opened, study.spec)


def _tell_ends(entry: _Open, storage: optuna.storages.RDBStorage, name: str, ends: Mapping[int, PodEnd]) -> None:
    new = {group: end for group, end in ends.items() if entry.ends.get((name, group)) != end}
    if new:
        with storage_errors():
            stored = optuna.load_study(study_name=name, storage=storage)
            for group, end in new.items():
                record_end(stored, group, end)
                entry.ends[name, group] = end


def _close(entry: _Open) -> None:
    if entry.storage is not None:
        entry.storage.engine.dispose()
    entry.storage = None
    entry.studies.clear()
    entry.ends.clear()
