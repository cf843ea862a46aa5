"""One API server, one PostgreSQL and one operator for each pytest process; a namespace for each test."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import kubernetes
import pytest

from hpstudy_operator.kube import Kube
from hpstudy_operator.tenants import Tenants
from tests.api.client import Api
from tests.api.harness import Operator, Team
from tests.api.installed import SYSTEM, installed_server
from tests.support.apiserver import ApiServer
from tests.support.postgres import Postgres, postgres

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[ApiServer]:
    """An API server with the chart's CRD and rights."""
    with installed_server() as running:
        yield running


@pytest.fixture(scope="session")
def database() -> Iterator[Postgres]:
    """A PostgreSQL."""
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def operator(server: ApiServer, database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator with the rights that the chart gives it, and no others."""
    log = tmp_path_factory.mktemp("operator") / "log"
    running = Operator(server.kubeconfig_of(SYSTEM, "hpstudy"), database.url(), log)
    running.start()
    yield running
    assert running.stop() == 0
    assert_clean(log)


@pytest.fixture
def make_team(server: ApiServer) -> Iterator[Callable[[], Team]]:
    """Makes namespaces without an operator, which are deleted after the test."""
    api, made = Api(server), list[str]()

    def make() -> Team:
        namespace = f"team-{next(_numbers)}"
        api.create_namespace(namespace)
        made.append(namespace)
        return Team(namespace, api, server.kubectl.in_namespace(namespace))

    yield make
    for namespace in made:
        api.delete_namespace(namespace)


@pytest.fixture
def team(make_team: Callable[[], Team]) -> Team:
    """A namespace without an operator."""
    return make_team()


@pytest.fixture
def other(make_team: Callable[[], Team]) -> Team:
    """Its neighbour."""
    return make_team()


@pytest.fixture
def served(team: Team, operator: Operator) -> Team:
    """A namespace whose studies the operator runs."""
    assert operator.probe() == 200
    return team


@pytest.fixture
def kube(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Kube:
    """The operator's client, as administrator."""
    monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(server.kubeconfig))
    return Kube(connections=4)


@pytest.fixture
def tenants(kube: Kube, database: Postgres) -> Tenants:
    """The operator's hold on its database."""
    return Tenants(kube, database.url())


def _is_watch_cut_off(line: dict[str, str]) -> bool:
    """asyncio closed kopf's watch from outside while the event loop ended: this one complaint, and no other."""
    return (
        line["logger"] == "asyncio"
        and "closing of asynchronous generator <async_generator object infinite_watch" in line["message"]
        and line["exception"].rstrip().endswith("RuntimeError: generator didn't stop after athrow()")
    )


def assert_clean(log: Path) -> None:
    """Every line is JSON, no pass failed in a way that nobody foresaw, and no password is shown."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line for line in lines if "exception" in line and not _is_watch_cut_off(line)] == []
    assert re.findall(r"://[^\s:/@]+:(?!password@)[^\s@]+@", log.read_text()) == []
