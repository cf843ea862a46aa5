"""One storage as the operator uses it: what was told to it and read from it, on one connection that may go at any
time."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import optuna
from sqlalchemy.exc import DBAPIError

from hpstudy.api.names import stored_study_name
from hpstudy.api.study import Study
from hpstudy.storage import attributes
from hpstudy.storage.bell import Pulse, hang, read_pulses, word_of
from hpstudy.storage.ends import PodEnd, record_end
from hpstudy.storage.opening import StorageUnreachableError, open_storage, open_study, reopen_storage, storage_errors
from hpstudy.storage.reading import StudySnapshot, longest_trial, read_from
from hpstudy.storage.settings import record_settings
from hpstudy_operator.metrics import STORAGE_SECONDS
from hpstudy_operator.tenants import Tenants

_log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""A storage that cannot be reached is left alone for so long. A connection may take ten seconds to fail, and every
study of the storage asks: without this a dead database would keep all threads busy."""
HEARD_SECONDS = 60.0
"""Between two polls of a storage that tells what happens: for what a listener cannot know that it missed."""
BUSY_SECONDS = 5.0
"""Between two polls of one that does not, while trials begin or end: most take longer, and a person who watches waits
no longer than for a page."""
CALM_SECONDS = 30.0
"""The same while nothing happens."""

StudyName = tuple[str, str]
"""Namespace and name of the resource."""


@dataclass
class _Followed:
    """A study that is looked at, and what is known of it. Small: a status' worth."""

    name: StudyName
    generation: int = -1
    """Of the spec that was compared with what is stored."""
    ends: dict[int, PodEnd] = field(default_factory=dict)
    """What was told of the ends of pods, by worker group."""
    snapshot: StudySnapshot | None = None
    """As it was read last, for this generation."""
    pulse: Pulse | None = None
    """Before that."""


class Database:
    """A storage by its URL. Safe for many threads, which it serves one after the other."""

    def __init__(self, url: str, tenants: Tenants) -> None:
        self._url, self._tenants = url, tenants
        self._lock = threading.Lock()
        self._storage: optuna.storages.RDBStorage | None = None
        self._is_made = False
        """Its tables are known to be there."""
        self._followed: dict[str, _Followed] = {}
        """By their names in the storage."""
        self._failed: tuple[float, str] | None = None
        """When it last could not be reached, and why."""
        self._interval = BUSY_SECONDS
        self.rings = False
        """Whether it tells when trials begin or end."""
        self.used = self.polled = time.monotonic()

    @property
    def is_open(self) -> bool:
        """Whether it holds a connection, or is about to."""
        return self._storage is not None or self._lock.locked()

    @property
    def is_followed(self) -> bool:
        """Whether anybody still wants to know of a study in it."""
        return bool(self._followed)

    def look(
        self, study: Study, generation: int, ends: Mapping[int, PodEnd], with_longest: bool = False
    ) -> StudySnapshot:
        """Prepare, tell and read: see :meth:`Storages.look`."""
        with self._lock:
            self.used = time.monotonic()
            if self._failed and self.used < self._failed[0] + RETRY_SECONDS:
                raise StorageUnreachableError(self._failed[1])
            try:
                snapshot = self._look(self._opened(study.metadata.namespace), study, generation, ends, with_longest)
            except StorageUnreachableError as error:
                self._fail(error)
                raise
            self._failed = None
            return snapshot

    def poll(self) -> list[StudyName]:
        """Ask with one query which of the followed studies have moved since they were last looked at; all of them when
        the storage does not answer, so that their conditions say so."""
        with self._lock:
            self.polled = time.monotonic()
            followed = dict(self._followed)  # others may be forgotten meanwhile
            if not followed:
                return []
            try:
                storage = self._storage = self._storage or reopen_storage(self._url)
                with STORAGE_SECONDS.labels("poll").time(), storage_errors(), storage.engine.connect() as connection:
                    pulses = read_pulses(connection, followed)
            except StorageUnreachableError as error:
                self._fail(error)
                return [study.name for study in followed.values()]
            moved = [study.name for name, study in followed.items() if pulses.get(name) != study.pulse]
            self._interval = BUSY_SECONDS if moved else min(2 * self._interval, CALM_SECONDS)
            return moved

    def is_due(self, *, heard: bool) -> bool:
        """Whether to poll now.

        Args:
            heard: whether somebody listens to what it tells.
        """
        interval = HEARD_SECONDS if heard and self.rings else self._interval
        return self.is_followed and time.monotonic() >= self.polled + interval

    def forget(self, stored: str) -> None:
        """Follow a study no longer."""
        self._followed.pop(stored, None)

    def close(self, wait: float = 0.0) -> None:
        """Give the connection back; what is known stays. Not while it is used, for which it waits so many seconds."""
        if self._lock.acquire(timeout=wait):
            try:
                self._disconnect()
            finally:
                self._lock.release()

    def _opened(self, namespace: str) -> optuna.storages.RDBStorage:
        if self._storage is None and self._is_made:
            self._storage = reopen_storage(self._url)
        elif self._storage is None:
            with STORAGE_SECONDS.labels("open").time():
                ours = self._tenants.provision(namespace, self._url)
                self._storage = open_storage(self._url, upgrade=ours)
            self._is_made = True
            self._hang_bell(self._storage)
        return self._storage

    def _hang_bell(self, storage: optuna.storages.RDBStorage) -> None:
        try:
            with storage.engine.connect() as connection:
                self.rings = hang(connection)
        except DBAPIError as error:
            _log.warning("a storage cannot tell when trials end, and is polled: %s", str(error.orig).strip())

    def _look(
        self,
        storage: optuna.storages.RDBStorage,
        study: Study,
        generation: int,
        ends: Mapping[int, PodEnd],
        with_longest: bool,
    ) -> StudySnapshot:
        name, metadata = stored_study_name(study.metadata), study.metadata
        followed = self._followed.get(name) or _Followed((metadata.namespace, metadata.name))
        if followed.generation != generation:
            _prepare(storage, name, study)
            followed.generation, followed.snapshot = generation, None
        with STORAGE_SECONDS.labels("read").time(), storage_errors(), storage.engine.connect() as connection:
            # The pulse first: what moves in between is noticed by the next poll.
            pulse = read_pulses(connection, [name]).get(name)
            snapshot = read_from(connection, name, study.spec, followed.snapshot)
            if with_longest:
                snapshot = replace(snapshot, longest=longest_trial(connection, name))
        if not snapshot.counts.total:
            _prepare(storage, name, study)  # not started yet, or lost with its database: cheap, and makes sure
        followed.pulse, followed.snapshot = pulse, snapshot
        _tell_ends(followed, storage, name, ends)
        self._followed[name] = followed
        return snapshot

    def _fail(self, error: StorageUnreachableError) -> None:
        """Opened anew next time: the tables or the role itself may be gone with a database that was replaced."""
        self._failed = (time.monotonic(), str(error))
        self._disconnect()
        self._is_made = self.rings = False
        self._followed.clear()

    def _disconnect(self) -> None:
        if self._storage is not None:
            self._storage.engine.dispose()
        self._storage = None


def _prepare(storage: optuna.storages.RDBStorage, name: str, study: Study) -> None:
    with STORAGE_SECONDS.labels("prepare").time(), storage_errors():
        opened = open_study(storage, name, study.spec)
        record_settings(opened, study.spec)
        word = word_of(study.metadata.uid)
        if opened.user_attrs.get(attributes.BELL) != word:
            opened.set_user_attr(attributes.BELL, word)


def _tell_ends(followed: _Followed, storage: optuna.storages.RDBStorage, name: str, ends: Mapping[int, PodEnd]) -> None:
    new = {group: end for group, end in ends.items() if followed.ends.get(group) != end}
    if new:
        with storage_errors():
            stored = optuna.load_study(study_name=name, storage=storage)
            for group, end in new.items():
                record_end(stored, group, end)
                followed.ends[group] = end
