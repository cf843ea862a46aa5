"""One API server, one PostgreSQL and one operator for each pytest process; a namespace for each test."""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.harness import Api, Operator, Team
from tests.support.apiserver import COLLECTORS, ApiServer, api_server
from tests.support.kubectl import program
from tests.support.postgres import Postgres, postgres
from tests.support.processes import REPOSITORY

SYSTEM = "hpstudy-system"
CHART = REPOSITORY / "charts/hpstudy"
_RIGHTS = ("crd", "serviceaccount", "rbac")
_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[ApiServer]:
    """An API server with Jobs that get pods, and with a garbage collector; the chart's CRD and rights are installed."""
    with api_server((*COLLECTORS, "job-controller")) as running:
        running.kubectl("create", "namespace", SYSTEM)
        only = [argument for name in _RIGHTS for argument in ("--show-only", f"templates/{name}.yaml")]
        running.kubectl.in_namespace(SYSTEM).apply(
            helm("template", "hpstudy", str(CHART), f"--namespace={SYSTEM}", *only)
        )
        running.kubectl("wait", "--for=condition=Established", "crd/hpstudies.hpstudy.io", "--timeout=30s")
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
def team(server: ApiServer) -> Iterator[Team]:
    """A namespace without an operator."""
    namespace, api = f"team-{next(_numbers)}", Api(server)
    api.create_namespace(namespace)
    yield Team(namespace, api, server.kubectl.in_namespace(namespace))
    api.delete_namespace(namespace)


@pytest.fixture
def served(team: Team, operator: Operator) -> Team:
    """A namespace whose studies the operator runs."""
    assert operator.is_healthy()
    return team


def helm(*arguments: str) -> str:
    """What helm prints."""
    done = subprocess.run([program("helm"), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr or done.stdout)
    return done.stdout


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
