"""A database that does not work holds up nobody but its own studies."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from sqlalchemy import text

from hpstudy.storage import connecting
from hpstudy.storage.errors import StorageUnreachableError, storage_errors
from hpstudy.storage.locks import SessionLocks
from hpstudy.storage.opening import open_engine, open_storage
from hpstudy_operator import outages as module
from hpstudy_operator.outages import Outages
from tests.support.mariadb import MariaDB
from tests.support.postgres import Postgres
from tests.support.proxy import proxy

CONNECT, STATEMENT, LOCK, LATE = 2, 2, 1, 1  # seconds


@pytest.fixture(autouse=True)
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in the operator's process, only less patient."""
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT", CONNECT)
    monkeypatch.setattr(connecting, "LIMITED_STATEMENT", STATEMENT)
    monkeypatch.setattr(connecting, "LIMITED_LOCK", LOCK)
    monkeypatch.setattr(connecting, "_LATE", LATE)
    connecting.limit_waiting()
    yield
    connecting.limit_waiting(False)


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def attempt(outages: Outages, url: str) -> str:
    """What is said of it; empty when it works."""
    try:
        with outages.attempt(url):
            open_storage(url).engine.dispose()
    except StorageUnreachableError as error:
        return str(error)
    return ""


def test_many_urls_of_a_silent_server_are_one_wait(silent: int, database: Postgres) -> None:
    outages, good = Outages(), database.create_database("beside")
    urls = [f"postgresql://tenant-{number}:pw@127.0.0.1:{silent}/one" for number in range(40)]
    started = time.monotonic()
    assert "not answered" in attempt(outages, urls[0])
    assert time.monotonic() - started >= CONNECT
    waited = time.monotonic()
    assert all("not answered" in attempt(outages, url) for url in urls)
    assert time.monotonic() - waited < 0.5
    assert attempt(outages, good) == ""


def test_one_at_a_time_tries_a_silent_server_again(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    outages = Outages()
    urls = [f"postgresql://tenant-{number}:pw@127.0.0.1:{silent}/one" for number in range(8)]
    attempt(outages, urls[0])
    waits = []

    def timed(url: str) -> None:
        began = time.monotonic()
        attempt(outages, url)
        waits.append(time.monotonic() - began)

    barrier = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda url: (barrier.wait(), timed(url)), urls))
    assert sum(wait >= CONNECT for wait in waits) == 1


def test_of_many_silent_servers_only_some_are_tried_again_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    outages, inside, release = Outages(), threading.Semaphore(0), threading.Event()
    urls = [f"postgresql://u:p@server-{number}/one" for number in range(module.RETRIES + 3)]
    for url in urls:
        with pytest.raises(StorageUnreachableError), outages.attempt(url):
            raise StorageUnreachableError("away")

    def retry(url: str) -> bool:
        try:
            with outages.attempt(url):
                inside.release()
                return release.wait(30)
        except StorageUnreachableError:
            return False

    with ThreadPoolExecutor(len(urls)) as pool:
        held = [pool.submit(retry, url) for url in urls[: module.RETRIES]]
        for _ in held:
            assert inside.acquire(timeout=30)
        assert not any(retry(url) for url in urls[module.RETRIES :])
        release.set()
        assert all(each.result() for each in held)
        assert retry(urls[-1])


def test_a_tenant_without_a_password_does_not_spoil_the_server_for_others(database: Postgres) -> None:
    outages, good = Outages(), database.create_database("unspoilt")
    for wrong in (
        good.replace("postgres:postgres@", "postgres:wrong@"),
        good.replace("/unspoilt", "/nothing"),
        f"{good}?sslmode=require",
    ):
        assert attempt(outages, wrong) != ""
        assert attempt(outages, good) == ""


def test_a_table_that_somebody_locked_ends_the_wait(database: Postgres) -> None:
    url = database.create_database("locked")
    engine = open_storage(url).engine
    holder = psycopg2.connect(url.replace("+psycopg2", ""))
    holder.cursor().execute("lock table trials")
    began = time.monotonic()
    with pytest.raises(StorageUnreachableError, match="lock timeout"), storage_errors(), engine.connect() as connection:
        connection.execute(text("select count(*) from trials"))
    assert time.monotonic() - began < LOCK + 2
    holder.close()
    with engine.connect() as connection:
        connection.execute(text("select count(*) from trials"))
    engine.dispose()


def test_a_statement_that_takes_too_long_ends_the_wait(database: Postgres) -> None:
    engine = open_storage(database.create_database("slow")).engine
    began = time.monotonic()
    with pytest.raises(StorageUnreachableError, match="statement timeout"), storage_errors(), engine.connect() as slow:
        slow.exec_driver_sql("select pg_sleep(60)")
    assert time.monotonic() - began < STATEMENT + LATE
    engine.dispose()


def test_a_server_that_falls_silent_in_the_middle_ends_the_wait(database: Postgres) -> None:
    url = database.create_database("falls_silent")
    with proxy(database.port) as between:
        through = url.replace(f":{database.port}/", f":{between.port}/")
        outages, storage = Outages(), open_storage(through)
        between.hold()
        began = time.monotonic()
        with pytest.raises(StorageUnreachableError, match="not answered"), outages.attempt(through), storage_errors():
            storage.engine.connect()
        assert time.monotonic() - began < STATEMENT + LATE + CONNECT + 2
        began = time.monotonic()
        assert attempt(outages, through.replace("/falls_silent", "/postgres")) != "", "it is the server that is silent"
        assert time.monotonic() - began < 0.5
        between.release()
        storage.engine.dispose()


@pytest.mark.parametrize("storage_url", ["postgresql", "mysql"], indirect=True)
def test_a_lock_that_is_never_let_go_ends_the_wait(storage_url: str) -> None:
    with SessionLocks(storage_url) as holder, SessionLocks(storage_url) as other:
        holder.acquire("schema")
        began = time.monotonic()
        with pytest.raises(StorageUnreachableError, match="lock"), storage_errors():
            other.acquire("schema")
        assert time.monotonic() - began < LOCK + 3


def test_a_table_that_somebody_locked_in_mariadb_ends_the_wait(maria: MariaDB) -> None:
    url = maria.create_database("locked")
    engine = open_storage(url).engine
    holder = open_engine(url).connect()
    holder.exec_driver_sql("lock tables trials write")
    began = time.monotonic()
    with pytest.raises(StorageUnreachableError, match="timeout"), storage_errors(), engine.connect() as connection:
        connection.execute(text("select count(*) from trials"))
    assert time.monotonic() - began < LOCK + 2
    holder.close()
    engine.dispose()


def test_a_worker_waits_for_as_long_as_it_takes(database: Postgres) -> None:
    connecting.limit_waiting(False)
    engine = open_engine(database.create_database("patient"))
    with engine.connect() as connection:
        assert connection.scalar(text("show statement_timeout")) == "0"
        assert connection.scalar(text("show lock_timeout")) == "0"
    engine.dispose()
