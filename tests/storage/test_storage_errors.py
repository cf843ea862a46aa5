"""What databases say, and what is made of it: an outage is waited for, a refusal is told."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import optuna
import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from hpstudy.api import reasons
from hpstudy.storage import attributes
from hpstudy.storage.errors import StorageRefusedError, StorageUnreachableError, storage_errors
from hpstudy.storage.opening import open_engine, open_storage
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.storage.stored import NAME, trials_of
from tests.support.builders import spec
from tests.support.mariadb import MariaDB
from tests.support.postgres import Postgres

TOO_LONG = "x" * 70_000
"""For an attribute in MySQL."""


@pytest.fixture
def engine(storage_url: str) -> Iterator[Engine]:
    """Of a storage with two rows to lock."""
    engine = open_engine(storage_url)
    with engine.begin() as connection:
        connection.execute(text("create table things (id integer primary key, word varchar(3) not null)"))
        connection.execute(text("insert into things values (1, 'a'), (2, 'b')"))
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "selec 1",
        "insert into things values (1, 'a')",
        "insert into things values (3, null)",
        "create table things (id integer)",
    ],
)
def test_a_statement_that_is_wrong_is_refused_in_the_database_s_words(engine: Engine, statement: str) -> None:
    with pytest.raises(StorageRefusedError) as refusal, storage_errors(), engine.begin() as connection:
        connection.execute(text(statement))
    assert refusal.value.reason == reasons.STORAGE_REFUSED
    assert "the storage refuses it: " in refusal.value.message
    assert len(refusal.value.message) > len("the storage refuses it: ") + 10


def test_a_table_that_is_gone_is_worth_opening_anew(engine: Engine) -> None:
    with pytest.raises(StorageUnreachableError), storage_errors(), engine.begin() as connection:
        connection.execute(text("select * from trials"))


def test_a_value_that_is_too_long_is_refused(database: Postgres, maria: MariaDB) -> None:
    for server in (database, maria):
        with open_engine(server.create_database("too-long")).connect() as connection:
            connection.execute(text("create table things (word varchar(3))"))
            with pytest.raises(StorageRefusedError, match=r"(?i)too long"), storage_errors():
                connection.execute(text("insert into things values ('abcd')"))


def test_a_lock_that_is_waited_for_too_long_passes(engine: Engine) -> None:
    patience = {
        "postgresql": "set lock_timeout = 100",
        "mysql": "set session innodb_lock_wait_timeout = 1",
        "sqlite": "pragma busy_timeout = 100",
    }[engine.dialect.name]
    with engine.connect() as holder, engine.connect() as waiting:
        _begin(holder).execute(text("update things set word = 'c' where id = 1"))
        waiting.execute(text(patience))
        with pytest.raises(StorageUnreachableError), storage_errors():
            waiting.execute(text("update things set word = 'd' where id = 1"))
        if engine.dialect.name == "postgresql":  # whose transaction is broken then
            with pytest.raises(StorageUnreachableError, match="transaction is aborted"), storage_errors():
                waiting.execute(text("select 1"))


@pytest.fixture(params=["postgresql", "mysql"])
def server_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    server: Postgres | MariaDB = request.getfixturevalue({"postgresql": "database", "mysql": "maria"}[request.param])
    engine = open_engine(server.create_database(f"errors-{abs(hash(request.node.nodeid))}"))
    with engine.begin() as connection:
        connection.execute(text("create table things (id integer primary key, word varchar(3) not null)"))
        connection.execute(text("insert into things values (1, 'a'), (2, 'b')"))
    yield engine
    engine.dispose()


def test_a_deadlock_passes(server_engine: Engine) -> None:
    raised: list[BaseException] = []

    def update(first: int, second: int, ready: threading.Barrier) -> None:
        with suppress(threading.BrokenBarrierError), server_engine.connect() as connection:
            connection.execute(text(f"update things set word = 'c' where id = {first}"))
            ready.wait(10)
            try:
                with storage_errors():
                    connection.execute(text(f"update things set word = 'd' where id = {second}"))
            except Exception as error:
                raised.append(error)

    ready = threading.Barrier(2)
    threads = [threading.Thread(target=update, args=(*order, ready)) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [type(error) for error in raised] == [StorageUnreachableError]
    assert "deadlock" in str(raised[0]).lower()


def test_a_session_that_was_ended_passes(server_engine: Engine) -> None:
    postgres = server_engine.dialect.name == "postgresql"
    with server_engine.connect() as connection, server_engine.connect() as other:
        number = connection.scalar(text("select pg_backend_pid()" if postgres else "select connection_id()"))
        other.execute(text(f"select pg_terminate_backend({number})" if postgres else f"kill {number}"))
        time.sleep(0.2)
        with pytest.raises(StorageUnreachableError), storage_errors():
            connection.execute(text("select 1"))


def test_a_server_that_only_reads_passes(server_engine: Engine) -> None:
    """As a standby does until the fail-over."""
    postgres = server_engine.dialect.name == "postgresql"
    with server_engine.connect() as connection:
        connection.execute(text("set transaction read only" if postgres else "set session transaction read only"))
        connection.commit() if not postgres else None
        with pytest.raises(StorageUnreachableError), storage_errors():
            connection.execute(text("update things set word = 'd'"))


def test_a_serialization_failure_passes(database: Postgres) -> None:
    engine = open_engine(database.create_database("serial")).execution_options(isolation_level="REPEATABLE READ")
    with engine.begin() as connection:
        connection.execute(text("create table things (id integer, word varchar(3))"))
        connection.execute(text("insert into things values (1, 'a')"))
    with engine.connect() as mine, engine.connect() as theirs:
        mine.execute(text("select * from things"))
        theirs.execute(text("update things set word = 'b'"))
        theirs.commit()
        with pytest.raises(StorageUnreachableError, match="could not serialize"), storage_errors():
            mine.execute(text("update things set word = 'c'"))


def test_metrics_that_the_storage_does_not_take_end_their_trial_and_no_other(maria: MariaDB) -> None:
    """At once: nobody waits for the database as if it were away."""
    url, study = maria.create_database("metrics"), spec(budget={"maxTrials": 1, "maxFailedTrials": 1})
    begun = time.monotonic()
    with TrialLoop(study, url, NAME) as loop:
        trial = loop.next()
        assert not isinstance(trial, Verdict)
        told = loop.tell(trial, Outcome(values=(1.0,), metrics={"loss": 1.0, "note": TOO_LONG}))
        assert "Data too long" in told.message
        trial = loop.next()
        assert not isinstance(trial, Verdict)
        loop.tell(trial, Outcome(values=(1.0,), metrics={"loss": 1.0}))
        assert loop.verdict().next is Next.SUCCEEDED
    assert time.monotonic() - begun < 60
    failed, complete = trials_of(url)
    assert "Data too long" in failed.user_attrs[attributes.MESSAGE]
    assert failed.user_attrs[attributes.FAILURE] == "error"
    assert complete.value == 1.0


def test_a_study_that_the_storage_does_not_take_ends_the_worker_at_once(maria: MariaDB) -> None:
    study = spec(initialTrials=[{"x": 0.5, "note": TOO_LONG}])
    begun = time.monotonic()
    with (
        pytest.raises(StorageRefusedError, match="Data too long"),
        TrialLoop(study, maria.create_database("refused"), NAME),
    ):
        pass
    assert time.monotonic() - begun < 60


def test_optuna_s_own_words_for_it_are_the_database_s(maria: MariaDB) -> None:
    storage = open_storage(maria.create_database("optuna"))
    study = optuna.create_study(storage=storage)
    with pytest.raises(StorageRefusedError, match="Data too long"), storage_errors():
        study.set_user_attr("note", TOO_LONG)
    study.set_user_attr("note", "short")
    storage.engine.dispose()


def _begin(connection: Connection) -> Connection:
    if connection.dialect.name == "sqlite":  # Python's driver begins with the first write by itself
        connection.exec_driver_sql("begin immediate")
    return connection
