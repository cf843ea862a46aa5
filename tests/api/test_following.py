"""What the storage tells: the end of a trial reaches the operator without a poll, and nobody else learns from it."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg2
import pytest
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import Pool

from hpstudy.api.load import parse_study
from hpstudy.storage.bell import CHANNEL, word_of
from hpstudy_operator import database as database_module
from hpstudy_operator import listening, storages
from hpstudy_operator.kube import Kube
from hpstudy_operator.storages import Storages
from hpstudy_operator.tenants import Tenants
from tests.api.harness import PATIENCE, Team, eventually, study
from tests.support.apiserver import ApiServer
from tests.support.postgres import Postgres

NEVER = 3600.0  # seconds
AT_ONCE = 2.0  # seconds in which what should not come would have come


@dataclass
class Follower:
    """What the operator has of storages, with what it is told."""

    storages: Storages
    moved: "queue.Queue[tuple[str, str]]"

    def look(self, team: Team, name: str = "reviews") -> int:
        """As a pass does; returns how many trials are complete."""
        view = self.storages.look(parse_study(team.study(name)), 1, {})
        assert view.snapshot is not None, view.message
        return view.snapshot.counts.complete

    def until_heard(self, team: Team) -> None:
        """Wait until the database is listened to, and forget what came by then."""
        eventually(lambda: any(listener.is_live for listener in self.storages._listeners.values()), "listener")
        self.settle(team)

    def settle(self, team: Team) -> None:
        """Take what has come, and look."""
        while not self.moved.empty():
            self.moved.get()
        self.look(team)


@pytest.fixture
def never_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEARD_SECONDS", "BUSY_SECONDS", "CALM_SECONDS"):
        monkeypatch.setattr(database_module, name, NEVER)


@pytest.fixture
def follower(server: ApiServer, database: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Follower]:
    import kubernetes

    monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(server.kubeconfig))
    kube, moved = Kube(connections=4), queue.Queue[tuple[str, str]]()
    running = Storages(kube, Tenants(kube, database.url()), lambda *name: moved.put(name))
    running.start()
    yield Follower(running, moved)
    running.close()


def connect(url: str) -> "psycopg2.extensions.connection":
    connection = psycopg2.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
    connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
    return connection


def notify(url: str, word: str) -> None:
    connection = connect(url)
    connection.cursor().execute("select pg_notify(%s, %s)", (CHANNEL, word))
    connection.close()


def test_the_end_of_a_trial_reaches_the_status_by_itself(served: Team) -> None:
    served.apply(study())
    served.run_pods()
    served.until("Running", "True")
    for finished in (1, 2, 3):
        served.complete(0.5)
        eventually(lambda n=finished: served.status().get("progress") == f"{n}/10", "progress")  # type: ignore[misc]


@pytest.mark.usefixtures("never_polled")
def test_a_trial_that_ends_is_told_of_without_a_poll(team: Team, follower: Follower) -> None:
    team.apply(study())
    follower.look(team)
    follower.until_heard(team)
    team.complete(0.5)
    assert follower.moved.get(timeout=PATIENCE) == (team.namespace, "reviews")
    assert follower.look(team) == 1


@pytest.mark.usefixtures("never_polled")
def test_what_ended_while_the_connection_was_lost_is_caught_up_with(
    team: Team, follower: Follower, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.apply(study())
    follower.look(team)
    follower.until_heard(team)
    (listener,) = follower.storages._listeners.values()
    monkeypatch.setattr(listening, "RECONNECT_SECONDS", 0.2)
    monkeypatch.setattr(listener, "_heard", lambda _: None)  # what is told from now on is lost
    team.complete(0.5)
    database.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'hpstudy-listener'")
    assert follower.moved.get(timeout=PATIENCE) == (team.namespace, "reviews")
    eventually(lambda: listener.is_live, "connection")


def test_a_database_that_passes_nothing_on_is_polled(
    team: Team, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "TEST_SECONDS", 0.0)  # as behind a pooler in transaction mode: it hears nothing
    monkeypatch.setattr(database_module, "HEARD_SECONDS", NEVER)
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.5)
    monkeypatch.setattr(database_module, "CALM_SECONDS", 1.0)
    team.apply(study())
    follower.look(team)
    team.complete(0.5)
    assert follower.moved.get(timeout=PATIENCE) == (team.namespace, "reviews")
    assert not any(listener.is_live for listener in follower.storages._listeners.values())
    follower.settle(team)
    with pytest.raises(queue.Empty):
        follower.moved.get(timeout=AT_ONCE)  # polls find nothing new


@pytest.mark.usefixtures("never_polled")
def test_a_forged_notification_is_no_more_than_a_reason_to_look(team: Team, follower: Follower) -> None:
    team.apply(study())
    follower.look(team)
    follower.until_heard(team)
    for word in ("", "nonsense", team.namespace, "x" * 7000, "'; drop table trials; --"):
        notify(team.secret(), word)
    with pytest.raises(queue.Empty):
        follower.moved.get(timeout=AT_ONCE)
    notify(team.secret(), word_of(team.study()["metadata"]["uid"]))
    assert follower.moved.get(timeout=PATIENCE) == (team.namespace, "reviews")
    assert follower.look(team) == 0


@pytest.mark.usefixtures("never_polled")
def test_a_neighbour_that_listens_learns_no_name(team: Team, other: Team, follower: Follower) -> None:
    for tenant in (team, other):
        tenant.apply(study())
        follower.look(tenant)
    neighbour = connect(other.secret())
    neighbour.cursor().execute(f"listen {CHANNEL}")
    team.complete(0.5)
    neighbour.cursor().execute("select 1")  # before the answer to it, the server tells what it has heard
    told = {(notification.channel, notification.payload) for notification in neighbour.notifies}
    neighbour.close()
    uid = team.study()["metadata"]["uid"]
    assert told == {(CHANNEL, word_of(uid))}
    assert uid[:8] not in word_of(uid), "which is a part of its name in the storage"


def test_a_study_that_is_over_is_followed_no_longer(team: Team, follower: Follower) -> None:
    team.apply(study())
    follower.look(team)
    follower.until_heard(team)
    follower.storages.forget(team.namespace, "reviews")
    team.complete(0.5)
    with pytest.raises(queue.Empty):
        follower.moved.get(timeout=AT_ONCE)
    follower.storages.close_idle()
    assert follower.storages._listeners == {}


@contextmanager
def peak_of_connections(roles: set[str]) -> Iterator[list[int]]:
    """How many connections as these roles were open at the same time, at most so far."""
    live, peak, lock = set[int](), [0], threading.Lock()

    def opened(connection: "psycopg2.extensions.connection", _: object) -> None:
        if connection.info.user in roles:
            with lock:
                live.add(id(connection))
                peak[0] = max(peak[0], len(live))

    def closed(connection: "psycopg2.extensions.connection", _: object) -> None:
        with lock:
            live.discard(id(connection))

    event.listen(Pool, "connect", opened)
    event.listen(Pool, "close", closed)
    try:
        yield peak
    finally:
        event.remove(Pool, "connect", opened)
        event.remove(Pool, "close", closed)


def test_connections_are_bounded_whatever_the_number_of_namespaces(
    make_team: Callable[[], Team], follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = 2
    monkeypatch.setattr(storages, "MAX_OPEN", looking + 1)  # and one thread polls
    monkeypatch.setattr(storages, "_TURN", 0.01)
    for name in ("HEARD_SECONDS", "BUSY_SECONDS", "CALM_SECONDS"):
        monkeypatch.setattr(database_module, name, 0.0)
    tenants = [make_team() for _ in range(6)]
    for tenant in tenants:
        tenant.apply(study())
        follower.look(tenant)
    roles = {str(make_url(tenant.secret()).username) for tenant in tenants}
    for database in follower.storages._databases.values():
        database.close(PATIENCE)  # only those that are opened from here on are counted
    with peak_of_connections(roles) as peak, ThreadPoolExecutor(looking) as threads:
        for _ in range(5):
            list(threads.map(follower.look, tenants))
        assert peak[0] == looking + 1
