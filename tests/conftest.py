"""What the tests of the runner share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpstudy.storage.opening import open_storage
from tests.support.mariadb import MariaDB, mariadb
from tests.support.postgres import Postgres, postgres


@pytest.fixture(scope="session")
def database() -> Iterator[Postgres]:
    """A real PostgreSQL for the tests of one process."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with Optuna's tables, which take a moment to make."""
    path = tmp_path_factory.mktemp("storage") / "empty.db"
    open_storage(f"sqlite:///{path}").engine.dispose()
    return path


@pytest.fixture
def url(tmp_path: Path, empty_database: Path) -> str:
    """An empty SQLite storage, where it does not matter which kind it is."""
    shutil.copy(empty_database, tmp_path / "study.db")
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture(scope="session")
def maria() -> Iterator[MariaDB]:
    """A real MariaDB for the tests of one process."""
    with mariadb() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty storage of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    server: Postgres | MariaDB = request.getfixturevalue({"postgresql": "database", "mysql": "maria"}[request.param])
    made = server.create_database(f"test-{abs(hash(request.node.nodeid))}")
    return made.replace("mysql:", "mysql+pymysql:")  # the driver that plain Optuna has to be told
