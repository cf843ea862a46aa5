"""Databases of every kind: opened by many at once, with tables of other versions, and left without a trace."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from sqlalchemy import text

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.storage import locks
from hpstudy.storage.errors import CredentialsRefusedError, StorageUnreachableError
from hpstudy.storage.locks import SessionLocks
from hpstudy.storage.opening import open_engine, open_storage
from hpstudy.storage.removal import remove_study
from hpstudy.storage.urls import parse_url
from tests.support.mariadb import MariaDB
from tests.support.postgres import Postgres

AT_ONCE = 20
OLDER = "v3.0.0.d"


@pytest.fixture(params=["postgresql", "mysql"])
def server_url(request: pytest.FixtureRequest) -> str:
    """An empty database of a server."""
    server: Postgres | MariaDB = request.getfixturevalue({"postgresql": "database", "mysql": "maria"}[request.param])
    return server.create_database(f"storage-{abs(hash(request.node.nodeid))}")


def open_and_close(url: str, *, upgrade: bool = False) -> str:
    storage = open_storage(url, upgrade=upgrade)
    storage.engine.dispose()
    return storage.get_current_version()


def downgrade(url: str) -> str:
    """Tables as an older Optuna made them, without the index that the last version brought; returns that version."""
    storage = open_storage(url)
    with storage.engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = :older"), {"older": OLDER})
        if storage.engine.dialect.name == "postgresql":  # MySQL has one for the foreign key anyway
            connection.execute(text("drop index ix_trials_study_id"))
    head = storage.get_head_version()
    storage.engine.dispose()
    return head


def all_at_once(url: str, *, upgrade: bool = False) -> set[str]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return set(pool.map(lambda _: open_and_close(url, upgrade=upgrade), range(AT_ONCE)))


def test_many_that_open_an_empty_database_at_once_make_its_tables_once(server_url: str) -> None:
    assert len(all_at_once(server_url)) == 1
    optuna.create_study(storage=parse_url(server_url).render_as_string(hide_password=False))


def test_tables_of_an_older_version_are_upgraded_once_where_they_are_ours(server_url: str) -> None:
    head = downgrade(server_url)
    with pytest.raises(
        InvalidStudyError, match=f"version {OLDER}, and .* needs version {head}: when nothing"
    ) as refusal:
        open_and_close(server_url)
    assert refusal.value.reason == reasons.SCHEMA_MISMATCH
    assert all_at_once(server_url, upgrade=True) == {head}


def test_tables_in_which_trials_run_are_not_upgraded(server_url: str) -> None:
    storage = open_storage(server_url)
    optuna.create_study(storage=storage).ask()
    storage.engine.dispose()
    downgrade(server_url)
    with pytest.raises(InvalidStudyError, match="when its 1 running trials have ended"):
        open_and_close(server_url, upgrade=True)


def test_tables_of_a_newer_version_are_refused(server_url: str) -> None:
    open_and_close(server_url)
    with open_engine(server_url).begin() as connection:
        connection.execute(text("update alembic_version set version_num = 'v9.0.0.a'"))
    with pytest.raises(InvalidStudyError, match=r"version v9\.0\.0\.a, .* use an image with the newer optuna"):
        open_and_close(server_url, upgrade=True)


def test_a_password_that_is_not_taken_is_told_from_a_database_that_is_away(server_url: str) -> None:
    wrong = parse_url(server_url).set(password="wrong").render_as_string(hide_password=False)
    with pytest.raises(CredentialsRefusedError) as refusal:
        open_storage(wrong)
    assert "wrong" not in str(refusal.value)
    away = parse_url(server_url).set(port=1).render_as_string(hide_password=False)
    with pytest.raises(StorageUnreachableError) as outage:
        open_storage(away)
    assert not isinstance(outage.value, CredentialsRefusedError)


def test_a_study_that_is_removed_leaves_no_row_and_its_neighbour_alone(storage_url: str) -> None:
    storage = open_storage(storage_url)
    for name in ("gone", "kept"):
        study = optuna.create_study(study_name=name, storage=storage)
        study.set_user_attr("a", 1)
        for number in range(3):
            trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
            trial.report(number, 0)
            trial.set_user_attr("b", 2)
            study.tell(trial, number)

    def rows() -> dict[str, int]:
        tables = optuna.storages._rdb.models.BaseModel.metadata.tables
        with storage.engine.connect() as connection:
            counts = {name: connection.scalar(text(f"select count(*) from {name}")) or 0 for name in tables}
        return {name: count for name, count in counts.items() if count and name != "version_info"}

    before = rows()
    with storage.engine.begin() as connection:
        assert remove_study(connection, "gone")
        assert not remove_study(connection, "gone")
    assert {name: 2 * count for name, count in rows().items()} == before
    assert len(optuna.load_study(study_name="kept", storage=storage).trials) == 3
    storage.engine.dispose()


def test_a_lock_is_one_holders_until_that_one_is_gone(storage_url: str) -> None:
    url = parse_url(storage_url).render_as_string(hide_password=False)
    with SessionLocks(url) as mine, SessionLocks(url) as theirs:
        assert mine.acquire("a" * 200)
        assert mine.acquire("b")
        assert not theirs.acquire("a" * 200, wait=False)
        mine.release("b")
        assert theirs.acquire("b", wait=False)
    with SessionLocks(url) as next_:
        assert next_.acquire("a" * 200, wait=False)


def test_a_turn_that_is_tried_for_is_one_holders_and_leaves_nothing_behind(storage_url: str) -> None:
    """By many who have little patience: some give up in the moment in which the lock becomes free."""
    url = parse_url(storage_url).render_as_string(hide_password=False)
    inside = 0
    together: list[int] = []
    turns: list[int] = []
    refusals: list[int] = []

    def go(_: int) -> None:
        nonlocal inside
        with SessionLocks(url) as mine:
            for attempt in range(30):
                with mine.trying("turn", 0.002 * (attempt % 4)) as mine_now:
                    (turns if mine_now else refusals).append(attempt)
                    if mine_now:
                        inside += 1
                        time.sleep(0.003)
                        together.append(inside)
                        inside -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(go, range(6)))
    with SessionLocks(url) as next_:
        assert next_.acquire("turn", wait=False), "nobody has it any more"
    assert set(together) == {1}
    assert turns
    assert refusals


def test_a_turn_that_becomes_free_as_patience_ends_stays_with_nobody(database: Postgres) -> None:
    """The server's process is stopped while the lock becomes free and the time runs out: it wakes up to both. One that
    waited with a time-out (lock_timeout) would give up, and its session keep the lock."""
    url, seconds = database.create_database("turns"), 3.0
    with SessionLocks(url) as mine, SessionLocks(url) as theirs, ThreadPoolExecutor(1) as pool:
        assert mine.acquire("turn")

        def go() -> None:
            with theirs.trying("turn", seconds):
                pass

        backend = theirs._locks._connection.scalar(text("select pg_backend_pid()"))  # type: ignore[attr-defined]
        trying = pool.submit(go)
        last = f"select query from pg_stat_activity where pid = {backend}"
        while "advisory_lock" not in database.sql(last):
            assert not trying.done(), trying
            time.sleep(0.01)
        time.sleep(0.2)  # a statement later
        os.kill(backend, signal.SIGSTOP)
        try:
            mine.release("turn")
            time.sleep(seconds)
            assert not trying.done(), "the server's process stopped too late"
        finally:
            os.kill(backend, signal.SIGCONT)
        trying.result()
        assert mine.acquire("turn", wait=False), "nobody has it any more"


def test_locks_of_two_databases_of_one_server_do_not_meet(maria: MariaDB) -> None:
    urls = [parse_url(maria.create_database(name)).render_as_string(hide_password=False) for name in ("one", "two")]
    with SessionLocks(urls[0]) as one, SessionLocks(urls[1]) as two:
        assert one.acquire("same", wait=False)
        assert two.acquire("same", wait=False)


def test_a_lock_outlives_the_silence_after_which_the_server_ends_a_session(
    maria: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_SILENCE_SECONDS", 2)
    url = parse_url(maria.create_database("silence")).render_as_string(hide_password=False)
    with SessionLocks(url) as mine, SessionLocks(url) as theirs:
        assert mine.acquire("long")
        maria.sql("select sleep(5)")
        assert not theirs.acquire("long", wait=False)


def test_a_session_that_fell_silent_loses_its_locks(maria: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its node vanished, of which the server hears nothing."""
    monkeypatch.setattr(locks, "_SILENCE_SECONDS", 2)
    monkeypatch.setattr(locks._UserLocks, "_break_silence", lambda _: None)
    url = parse_url(maria.create_database("vanished")).render_as_string(hide_password=False)
    vanished = SessionLocks(url)
    assert vanished.acquire("held")
    monkeypatch.undo()
    with SessionLocks(url) as mine:
        assert mine.acquire("held")
    vanished.close()


def test_what_is_cast_has_the_same_name_in_all_databases() -> None:
    """MySQL, which runs in no test, casts to fewer types than MariaDB; its documentation lists them."""
    mysql = {"binary", "char", "date", "datetime", "decimal", "double", "float", "json", "signed", "unsigned"}
    folder = Path(locks.__file__).parent
    statements = "".join(path.read_text() for path in folder.glob("*.py"))
    found = set(re.findall(r"cast\([\w.]+ as (\w+)", statements))
    assert found
    assert found <= mysql
