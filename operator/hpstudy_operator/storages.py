"""What the storages say about studies: read when they tell that something happened, and polled where they do not."""

import hashlib
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.names import stored_study_name
from hpstudy.api.study import Metadata, Study
from hpstudy.api.workers import SecretKey
from hpstudy.storage.bell import word_of
from hpstudy.storage.ends import PodEnd
from hpstudy.storage.errors import StorageUnreachableError
from hpstudy.storage.reading import StudySnapshot
from hpstudy.storage.urls import check_in_cluster, parse_url
from hpstudy_operator.database import Database
from hpstudy_operator.kube import ApiError, Kube, RefusedError
from hpstudy_operator.listening import Listener
from hpstudy_operator.outages import Outages
from hpstudy_operator.tenants import TENANT_SECRET, Tenants, secret_value

_log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
"""A storage that nobody asked about for so long gives its connection back: a database has a limited number of them."""
MAX_OPEN = 32
"""Connections to storages at most, whatever the number of namespaces: more than there are threads, so that one of them
is always idle. Each is a tenant's own: what a tenant may put in the place of its tables, views and triggers, must never
run in a session of the administrator's."""
MAX_LISTENERS = 16
"""Databases that are listened to at most, one connection each; the operator's own is one for all namespaces, and the
others are polled."""
_PATIENCE = 2.0  # seconds; a poll takes milliseconds, an attempt to connect up to ten seconds
_TURN = 0.5
"""Seconds between two looks at which storages are due to be polled."""


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
    identity: str = ""
    """Of a storage that the study or its namespace brings: another one, when the Secret names another."""


class Storages:
    """All storages in use. Safe for many threads.

    Args:
        moved: called, from any thread, with namespace and name of a study whose trials began or ended.
        outages: what is known of databases that do not work, where others know something, too.
    """

    def __init__(
        self,
        kube: Kube,
        tenants: Tenants,
        moved: Callable[[str, str], None] = lambda *_: None,
        outages: Outages | None = None,
    ) -> None:
        self._kube = kube
        self._tenants = tenants
        self._moved = moved
        self._outages = outages or Outages()
        self._guard = threading.Lock()
        self._making_room = threading.Lock()
        self._expected = Counter[Database]()
        """Databases that may be opened at any moment, and by how many threads."""
        self._databases: dict[str, Database] = {}
        self._followed: dict[str, _Followed] = {}
        """Studies by the words with which databases tell of them."""
        self._words: dict[tuple[str, str], str] = {}
        """Those words, by namespace and name."""
        self._listeners: dict[str, Listener] = {}
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll_for_ever, name="poller", daemon=True)

    def start(self) -> None:
        """Begin to follow what is looked at."""
        self._poller.start()

    def look(
        self,
        study: Study,
        generation: int,
        ends: Mapping[int, PodEnd],
        *,
        with_longest: bool = False,
        with_begun: bool = False,
    ) -> StorageView:
        """Prepare the storage where that is needed, tell the workers what they cannot know, and read the study.

        Preparing is part of looking: nothing can be decided before the storage is there, and it changes nothing that
        exists. Telling is idempotent too, and is done when there is something new.

        Args:
            ends: how the latest pod of each worker group ended.
            with_longest: read how long the longest trial took, which is seldom of use.
            with_begun: read how many trials each worker group has begun, which is, too.
        """
        namespace = study.metadata.namespace
        reference = study.spec.storage.secret_ref if study.spec.storage else TENANT_SECRET
        try:
            url = self._url(study, reference)
        except (ApiError, RefusedError) as error:
            done = "read" if study.spec.storage else "made"
            words = error.message if isinstance(error, ApiError) else str(error)
            return StorageView(
                reference,
                reasons.SECRET_REFUSED,
                f"the Secret {reference.name!r} cannot be {done}: {words}; it is tried again",
            )
        if url is None:
            self.forget(namespace, study.metadata.name)
            return StorageView(
                reference,
                reasons.SECRET_NOT_FOUND,
                f"there is no Secret {reference.name!r} with the key {reference.key!r} in namespace {namespace!r}; "
                f"make it: kubectl -n {namespace} create secret generic {reference.name} "
                f"--from-literal={reference.key}=postgresql://user:password@host:5432/database",
            )
        try:
            snapshot = self._read(url, study, generation, ends, with_longest, with_begun)
        except StorageUnreachableError as error:
            return StorageView(
                reference,
                reasons.STORAGE_UNREACHABLE,
                f"the database of Secret {reference.name!r} does not work: {error}; it is tried again",
            )
        except InvalidStudyError as error:
            if error.reason in {reasons.STORAGE_UNREACHABLE, reasons.STORAGE_REFUSED, reasons.SCHEMA_MISMATCH}:
                return StorageView(reference, error.reason, f"Secret {reference.name!r}: {error.message}")
            return StorageView(reference, reasons.STORAGE_READY, "the storage is ready", invalid=error)
        is_ours = not study.spec.storage and self._tenants.is_within(url)
        identity = "" if is_ours else _identity(url)
        return StorageView(reference, reasons.STORAGE_READY, "the storage is ready", snapshot, identity=identity)

    def forget(self, namespace: str, name: str) -> None:
        """Follow a study no longer: it is over, or gone."""
        with self._guard:
            followed = self._followed.pop(self._words.pop((namespace, name), ""), None)
        if followed:
            followed.database.forget(followed.stored)

    def close_idle(self) -> None:
        """Close what nobody asked about for a while, and listen no longer where nobody is followed."""
        before = time.monotonic() - IDLE_SECONDS
        with self._guard:
            idle = [database for database in self._databases.values() if database.used < before]
            wanted = {self._listened(url) for url, database in self._databases.items() if database.is_followed}
            unused = [self._listeners.pop(url) for url in [*self._listeners] if url not in wanted]
            for url, database in [*self._databases.items()]:
                if database in idle and not database.is_followed and not database.is_open:
                    del self._databases[url]
        for database in idle:
            database.close()
        for listener in unused:
            listener.close()

    def close(self) -> None:
        """Close everything, within seconds: what a poll still uses goes with the process."""
        self._closing.set()
        with self._guard:
            databases, self._databases = list(self._databases.values()), {}
            listeners, self._listeners = list(self._listeners.values()), {}
        deadline = time.monotonic() + _PATIENCE
        for database in databases:
            database.close(max(0.0, deadline - time.monotonic()))
        for listener in listeners:
            listener.end()
        for listener in listeners:
            listener.close()

    def _url(self, study: Study, reference: SecretKey) -> str | None:
        if not study.spec.storage:
            return self._tenants.url(study.metadata)
        secret = self._kube.get("Secret", study.metadata.namespace, reference.name)
        return secret_value(secret, reference.key) if secret else None

    def _read(
        self,
        url: str,
        study: Study,
        generation: int,
        ends: Mapping[int, PodEnd],
        with_longest: bool,
        with_begun: bool,
    ) -> StudySnapshot:
        check_in_cluster(url)
        with self._guard:
            database = self._databases.setdefault(url, Database(url, self._tenants, self._outages))
            database.used = time.monotonic()
            earlier = self._followed.get(word_of(study.metadata.uid))
        if earlier and earlier.database is not database:  # the Secret has another URL now
            self.forget(study.metadata.namespace, study.metadata.name)
        with self._room_for(database):
            snapshot = database.look(study, generation, ends, with_longest, with_begun)
        self._follow(url, database, study.metadata)
        return snapshot

    @contextmanager
    def _room_for(self, coming: Database) -> Iterator[None]:
        """Close the connections that were used longest ago, so that one more may be opened."""
        with self._making_room:
            with self._guard:
                known = [database for database in self._databases.values() if database is not coming]
            others = [database for database in known if database.is_open or self._expected[database]]
            surplus = len(others) + 1 - MAX_OPEN
            for database in sorted(others, key=lambda d: d.used):
                if surplus > 0 and not self._expected[database] and database.close():
                    surplus -= 1
            self._expected[coming] += 1
        try:
            yield
        finally:
            with self._making_room:
                self._expected -= Counter([coming])

    def _follow(self, url: str, database: Database, study: Metadata) -> None:
        key, word = (study.namespace, study.name), word_of(study.uid)
        with self._guard:
            if (earlier := self._words.get(key)) not in {None, word}:  # another study had the name
                self._followed.pop(str(earlier), None)
            self._words[key] = word
            self._followed[word] = _Followed(database, stored_study_name(study), *key)
            listened = self._listened(url)
            may_listen = database.rings and len(self._listeners) < MAX_LISTENERS
            if may_listen and listened not in self._listeners and not self._closing.is_set():
                self._listeners[listened] = Listener(listened, self._hear, partial(self._catch_up, listened))

    def _listened(self, url: str) -> str:
        """Where to listen for what happens in a storage: one connection hears all tenants of a database."""
        return self._tenants.admin_url if self._tenants.is_within(url) else url

    def _hear(self, words: set[str]) -> None:
        with self._guard:
            found = [self._followed[word] for word in words if word in self._followed]
        for followed in found:
            self._moved(followed.namespace, followed.name)

    def _catch_up(self, listened: str) -> None:
        """Poll now: a listener has begun, or has ended, and something may have happened in between."""
        with self._guard:
            for url, database in self._databases.items():
                if self._listened(url) == listened:
                    database.polled = -math.inf

    def _poll_for_ever(self) -> None:
        while not self._closing.wait(_TURN):
            with self._guard:
                due = [database for url, database in self._databases.items() if database.is_due(heard=self._hears(url))]
            for database in due:
                try:
                    with self._room_for(database):
                        moved = database.poll()
                except Exception:
                    _log.exception("a storage could not be polled")  # the next poll may go well
                    continue
                for name in moved:
                    self._moved(*name)

    def _hears(self, url: str) -> bool:
        listener = self._listeners.get(self._listened(url))
        return listener is not None and listener.is_live


def _identity(url: str) -> str:
    """What stays when the password changes."""
    plain = parse_url(url).set(password=None).render_as_string()
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Followed:
    database: Database
    stored: str
    """Its name there."""
    namespace: str
    name: str
