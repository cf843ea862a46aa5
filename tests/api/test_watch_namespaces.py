"""An operator that watches some namespaces: with Roles in them, and no right anywhere else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import assert_clean
from tests.api.harness import Api, Operator, Team, study
from tests.api.installed import CHART, SYSTEM, helm, installed_server
from tests.support.apiserver import ApiServer
from tests.support.postgres import Postgres

WATCHED, OTHER = ("red", "blue"), "green"


@pytest.fixture(scope="module")
def narrow() -> Iterator[ApiServer]:
    """An API server with the chart's Roles."""
    with installed_server(*WATCHED, OTHER, values=[f"--set=watchNamespaces={{{','.join(WATCHED)}}}"]) as running:
        yield running


@pytest.fixture(scope="module")
def teams(narrow: ApiServer) -> dict[str, Team]:
    api = Api(narrow)
    return {name: Team(name, api, narrow.kubectl.in_namespace(name)) for name in (*WATCHED, OTHER)}


@pytest.fixture(scope="module")
def log(narrow: ApiServer, database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The log of an operator that watches two of the three."""
    log = tmp_path_factory.mktemp("narrow") / "log"
    url = database.create_database("narrow")
    kubeconfig = narrow.kubeconfig_of(SYSTEM, "hpstudy")
    running = Operator(kubeconfig, url, log, HPSTUDY_WATCH_NAMESPACES=",".join(WATCHED))
    running.start()
    yield log
    assert running.stop() == 0
    assert_clean(log)


def test_studies_of_the_watched_namespaces_run_and_no_others(teams: dict[str, Team], log: Path) -> None:
    for team in (teams[OTHER], *(teams[name] for name in WATCHED)):  # the other one first
        team.apply(study(budget={"maxTrials": 1}))
    for team in (teams[name] for name in WATCHED):
        team.run_pods()
        team.until("Running", "True")
        team.complete(0.5)
        team.poke()
        team.until("Succeeded", "True")
    assert teams[OTHER].status() == {}
    assert teams[OTHER].names("jobs") == teams[OTHER].names("secrets") == []


def test_nothing_is_asked_of_the_cluster_or_of_other_namespaces(
    narrow: ApiServer, teams: dict[str, Team], log: Path
) -> None:
    """But for the Lease, which is where the operator itself is."""
    asked = [
        event
        for event in narrow.audit(SYSTEM, "hpstudy")
        if "objectRef" in event
        and (event["objectRef"]["resource"], event["objectRef"].get("namespace")) != ("leases", SYSTEM)
    ]
    assert {event["objectRef"].get("namespace") for event in asked} == set(WATCHED)
    assert [event for event in asked if event["responseStatus"].get("code") == 403] == []


def test_the_chart_needs_no_right_on_the_cluster_then() -> None:
    """Where the CRD was installed by somebody who may."""
    text = helm("template", "hpstudy", str(CHART), "--set=watchNamespaces={a}", "--set=crds.install=false",
                "--set=userRoles.create=false")  # fmt: skip
    assert "kind: Role\n" in text
    assert "kind: Cluster" not in text
