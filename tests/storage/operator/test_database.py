"""One database with several studies: what is wrong with one is not the others' trouble."""

from collections.abc import Iterator
from typing import Any, cast

import optuna
import pytest
from sqlalchemy import event

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.load import parse_study
from hpstudy.api.names import stored_study_name
from hpstudy.api.study import Study
from hpstudy.storage.errors import StorageRefusedError
from hpstudy_operator import database
from hpstudy_operator.database import Database
from hpstudy_operator.kube import Kube
from hpstudy_operator.outages import Outages
from hpstudy_operator.tenants import Tenants
from tests.support.builders import spec
from tests.support.mariadb import MariaDB

ADMIN = "postgresql://admin@nowhere/hpstudy"
"""Of the operator's own database, which a study with a storage of its own does not touch."""


def study(name: str, **fields: Any) -> Study:
    dumped = spec(**fields).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    metadata = {"name": name, "namespace": "team", "uid": f"{name}-uid"}
    return parse_study({"apiVersion": "hpstudy.io/v1alpha1", "kind": "HPStudy", "metadata": metadata, "spec": dumped})


def wider(name: str) -> Study:
    return study(name, searchSpace={"parameters": {"y": {"type": "float", "low": 0, "high": 9}}})


@pytest.fixture
def mine(maria: MariaDB, request: pytest.FixtureRequest) -> Iterator[Database]:
    url = maria.create_database(f"operator-{abs(hash(request.node.nodeid))}")
    looked_at = Database(url, Tenants(cast(Kube, None), ADMIN), Outages())
    yield looked_at
    looked_at.close()


def test_a_study_that_the_storage_refuses_leaves_its_neighbours_alone(mine: Database) -> None:
    mine.look(study("good"), 1, {})
    for _ in range(2):
        with pytest.raises(StorageRefusedError, match="Data too long") as refusal:
            mine.look(study("bad", initialTrials=[{"x": 0.5, "note": "x" * 70_000}]), 1, {})
        assert refusal.value.reason == reasons.STORAGE_REFUSED
        mine.look(study("good"), 1, {})
    assert mine.poll() == []
    mine.look(study("bad", initialTrials=[{"x": 0.5}]), 2, {})


def test_a_change_that_does_not_fit_is_compared_once(mine: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.look(study("one"), 1, {})
    assert mine._storage is not None
    optuna.load_study(study_name=stored_study_name(study("one").metadata), storage=mine._storage).ask()
    statements: list[str] = []
    event.listen(mine._storage.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    for _ in range(3):
        with pytest.raises(InvalidStudyError, match="searchSpace changed") as refusal:
            mine.look(wider("one"), 2, {})
        assert refusal.value.reason == reasons.SPEC_CHANGED
        asked, statements[:] = len(statements), []
    assert not asked

    monkeypatch.setattr(database, "REFUSED_SECONDS", 0)
    mine._refused.clear()
    for _ in range(2):  # in case somebody has removed the trials
        with pytest.raises(InvalidStudyError):
            mine.look(wider("one"), 2, {})
        assert statements
        statements.clear()
    mine.look(study("one"), 3, {})
