"""One storage as the operator uses it: what was told to it and read from it, on one connection that may go at any
time."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import optuna
from sqlalchemy.exc import DBAPIError

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.names import stored_study_name
from hpstudy.api.study import Study
from hpstudy.storage import attributes
from hpstudy.storage.bell import Pulse, hang, read_pulses, word_of
from hpstudy.storage.ends import PodEnd, record_end
from hpstudy.storage.errors import StorageUnreachableError, storage_errors
from hpstudy.storage.opening import open_storage, open_study, reopen_storage
from hpstudy.storage.reading import StudySnapshot, begun_trials, longest_trial, read_from
from hpstudy.storage.settings import record_settings
from hpstudy_operator.metrics import STORAGE_SECONDS
from hpstudy_operator.outages import Outages
from hpstudy_operator.tenants import Tenants

_log = logging.getLogger(__name__)

STUCK_SECONDS = 5.0
"""A look takes tenths of a second, the making of all tables one or two. When one has taken so long, the others of the
storage leave: what hangs there must not hold the passes of all."""
_TURN = 0.25  # seconds; between two looks at whether the one whose turn it is has been at it for too long
HEARD_SECONDS = 60.0
"""Between two polls of a storage that tells what happens: for what a listener cannot know that it missed."""
BUSY_SECONDS = 5.0
"""Between two polls of one that does not, while trials begin or end: most take longer, and a person who watches waits
no longer than for a page."""
CALM_SECONDS = 30.0
"""The same while nothing happens."""
REFUSED_SECONDS = 600.0
"""A change that does not fit the stored trials is compared with them once, and again after so long: somebody may have
removed them."""

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

    def __init__(self, url: str, tenants: Tenants, outages: Outages) -> None:
        self._url, self._tenants, self._outages = url, tenants, outages
        self._lock = threading.Lock()
        self._since = time.monotonic()
        """When it was taken, or let go, last."""
        self._storage: optuna.storages.RDBStorage | None = None
        self._is_made = False
        """Its tables are known to be there."""
        self._followed: dict[str, _Followed] = {}
        """By their names in the storage."""
        self._refused: dict[str, tuple[int, float, str]] = {}
        """By those names: the generation that does not fit what is stored, until when that holds, and the words."""
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
        self,
        study: Study,
        generation: int,
        ends: Mapping[int, PodEnd],
        with_longest: bool = False,
        with_begun: bool = False,
    ) -> StudySnapshot:
        """Prepare, tell and read: see :meth:`Storages.look`."""
        self._refuse_again(stored_study_name(study.metadata), generation)
        with self._outages.attempt(self._url), self._turn():
            self.used = time.monotonic()
            try:
                storage = self._opened(study.metadata.namespace)
                return self._look(storage, study, generation, ends, with_longest, with_begun)
            except StorageUnreachableError:
                self._fail()
                raise

    def poll(self) -> list[StudyName]:
        """Ask with one query which of the followed studies have moved since they were last looked at; all of them when
        the storage does not answer, so that their conditions say so. Nothing while a look is under way: the next poll
        is due at once."""
        if not self._take(0):
            return []
        try:
            self.polled = time.monotonic()
            followed = dict(self._followed)  # others may be forgotten meanwhile
            if not followed:
                return []
            try:
                with self._outages.attempt(self._url):
                    pulses = self._pulses(followed)
            except StorageUnreachableError:
                self._fail()
                return [study.name for study in followed.values()]
            except InvalidStudyError:  # refused, or a certificate that the URL names is gone
                return [study.name for study in followed.values()]
            moved = [study.name for name, study in followed.items() if pulses.get(name) != study.pulse]
            self._interval = BUSY_SECONDS if moved else min(2 * self._interval, CALM_SECONDS)
            return moved
        finally:
            self._release()

    def _pulses(self, followed: Mapping[str, _Followed]) -> dict[str, Pulse]:
        storage = self._storage = self._storage or reopen_storage(self._url)
        with STORAGE_SECONDS.labels("poll").time(), storage_errors(), storage.engine.connect() as connection:
            return read_pulses(connection, followed)

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
        self._refused.pop(stored, None)

    def close(self, wait: float = 0.0) -> bool:
        """Give the connection back; what is known stays. Not while it is used, for which it waits so many seconds;
        returns whether it was given back."""
        if not self._take(wait):
            return False
        try:
            self._disconnect()
        finally:
            self._release()
        return True

    @contextmanager
    def _turn(self) -> Iterator[None]:
        while not self._take(_TURN):
            if time.monotonic() > self._since + STUCK_SECONDS:
                raise StorageUnreachableError(f"it has been at the same request for more than {STUCK_SECONDS:g} s")
        try:
            yield
        finally:
            self._release()

    def _take(self, wait: float) -> bool:
        taken = self._lock.acquire(timeout=wait)
        if taken:
            self._since = time.monotonic()
        return taken

    def _release(self) -> None:
        self._since = time.monotonic()
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
        with_begun: bool,
    ) -> StudySnapshot:
        name, metadata = stored_study_name(study.metadata), study.metadata
        followed = self._followed.get(name) or _Followed((metadata.namespace, metadata.name))
        if followed.generation != generation:
            try:
                _prepare(storage, name, study)
            except InvalidStudyError as error:
                if error.reason == reasons.SPEC_CHANGED:
                    self._refused[name] = generation, self.used + REFUSED_SECONDS, error.message
                raise
            followed.generation, followed.snapshot = generation, None
        with STORAGE_SECONDS.labels("read").time(), storage_errors(), storage.engine.connect() as connection:
            # The pulse first: what moves in between is noticed by the next poll.
            pulse = read_pulses(connection, [name]).get(name)
            snapshot = read_from(connection, name, study.spec, followed.snapshot)
            if with_longest:
                snapshot = replace(snapshot, longest=longest_trial(connection, name))
            if with_begun:
                snapshot = replace(snapshot, begun=begun_trials(connection, name))
        if not snapshot.counts.total:
            _prepare(storage, name, study)  # not started yet, or lost with its database: cheap, and makes sure
        followed.pulse, followed.snapshot = pulse, snapshot
        _tell_ends(followed, storage, name, ends)
        self._followed[name] = followed
        return snapshot

    def _refuse_again(self, name: str, generation: int) -> None:
        known, until, message = self._refused.get(name, (None, 0.0, ""))
        if known == generation and time.monotonic() < until:
            raise InvalidStudyError(reasons.SPEC_CHANGED, message)

    def _fail(self) -> None:
        """Opened anew next time: the tables or the role itself may be gone with a database that was replaced."""
        self._disconnect()
        self._is_made = self.rings = False
        self._followed.clear()
        self._refused.clear()

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
