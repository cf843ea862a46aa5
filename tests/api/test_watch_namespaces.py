"""An operator that watches some namespaces: with Roles in them, and no right anywhere else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.api.client import Api, Resource
from tests.api.conftest import assert_clean
from tests.api.harness import QUIET, Operator, Team, eventually, study
from tests.api.installed import CHART, SYSTEM, helm, installed_server
from tests.support.apiserver import ApiServer
from tests.support.postgres import Postgres

WATCHED, OTHER = ("red", "blue"), "green"
VALUES = f"--set=watchNamespaces={{{','.join(WATCHED)}}}"


@pytest.fixture(scope="module")
def narrow() -> Iterator[ApiServer]:
    """An API server with the chart's Roles."""
    with installed_server(*WATCHED, OTHER, values=[VALUES]) as running:
        yield running


@pytest.fixture(scope="module")
def teams(narrow: ApiServer) -> dict[str, Team]:
    api = Api(narrow)
    return {name: Team(name, api, narrow.kubectl.in_namespace(name)) for name in (*WATCHED, OTHER)}


@pytest.fixture(scope="module")
def watching(narrow: ApiServer, database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator that watches two of the three."""
    log = tmp_path_factory.mktemp("narrow") / "log"
    url = database.create_database("narrow")
    kubeconfig = narrow.kubeconfig_of(SYSTEM, "hpstudy")
    running = Operator(kubeconfig, url, log, HPSTUDY_WATCH_NAMESPACES=",".join(WATCHED))
    running.program = (sys.executable, "-m", "tests.api.variants", "hurried")
    running.start()
    yield running
    assert running.stop() == 0
    assert_clean(log)


def test_studies_of_the_watched_namespaces_run_and_no_others(teams: dict[str, Team], watching: Operator) -> None:
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
    narrow: ApiServer, teams: dict[str, Team], watching: Operator
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


def test_a_watched_namespace_that_goes_takes_nobody_along_and_is_served_when_it_is_back(
    narrow: ApiServer, teams: dict[str, Team], watching: Operator
) -> None:
    """With it goes the Role that was in it."""
    lost, other = (teams[name] for name in WATCHED)
    lost.apply(study("lost"))
    lost.pods("lost-0")
    other.apply(study("stays", budget={"maxTrials": 3}))
    other.pods("stays-0")
    narrow.kubectl("delete", "namespace", lost.namespace, "--wait=false")
    for pod in lost.api.list("pods", lost.namespace):
        lost.set_pod(pod, {"phase": "Failed"})  # as the kubelet: the rest goes when they have ended
    warned = f"namespace {lost.namespace} may not be listed"
    eventually(lambda: warned in watching.log.read_text(), "a warning")

    def goes_on(number: int) -> None:
        other.complete(0.5, name="stays")
        other.poke("stays")
        eventually(lambda: other.status("stays").get("progress") == f"{number}/3", "the next trial")
        assert (watching.probe("healthz"), watching.probe("readyz")) == (200, 200)

    assert _asked_but_for_looks(narrow, lost.namespace) == []
    goes_on(1)
    assert watching.stop() == 0
    watching.start()
    assert watching.log.read_text().count(warned) == 2
    assert _asked_but_for_looks(narrow, lost.namespace) == []
    goes_on(2)

    lost.api.create_namespace(lost.namespace)
    narrow.kubectl.in_namespace("").apply(
        helm("template", "hpstudy", str(CHART), f"--namespace={SYSTEM}", "--show-only=templates/rbac.yaml", VALUES)
    )
    lost.apply(study("again"))
    lost.until("StorageReady", "True", name="again")
    goes_on(3)


def test_when_the_chart_is_uninstalled_a_namespace_that_is_gone_holds_up_no_other(
    narrow: ApiServer, teams: dict[str, Team], watching: Operator
) -> None:
    """The hook's Job, with the rights that it has then."""
    text = helm(
        "template", "hpstudy", str(CHART), f"--namespace={SYSTEM}", "--show-only=templates/uninstall.yaml", VALUES
    )
    hook = [found for found in yaml.safe_load_all(text) if found]
    narrow.kubectl.in_namespace("").apply(*(found for found in hook if found["kind"] != "Job"))
    (job,) = (found for found in hook if found["kind"] == "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == list(WATCHED)
    account = {"KUBECONFIG": str(narrow.kubeconfig_of(SYSTEM, pod["serviceAccountName"]))}

    def release(*namespaces: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *container["command"][1:], *namespaces]
        return subprocess.run(
            command, env={**os.environ, **account}, capture_output=True, text=True, check=False, timeout=60
        )

    held = [teams[name] for name in WATCHED]
    for team in held:
        team.apply(study("held", deletionPolicy="Delete"))
        eventually(lambda team=team: team.study("held")["metadata"].get("finalizers"), "a finalizer")
    assert watching.stop(signal.SIGKILL) != 0
    try:
        # One that is gone, and one without a right to release: what is wrong is said, and the others are released.
        (role,) = (
            {**found, "rules": [{**found["rules"][0], "verbs": ["get", "list"]}]}
            for found in hook
            if found["kind"] == "Role" and found["metadata"]["namespace"] == held[0].namespace
        )
        narrow.kubectl.in_namespace("").apply(role)
        done = release(held[0].namespace, "gone", held[1].namespace)
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"{held[1].namespace}: 1 studies released" in done.stdout
        narrow.kubectl.in_namespace("").apply(*(found for found in hook if found["kind"] == "Role"))
        done = release(OTHER, held[0].namespace, held[1].namespace)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "left out" in done.stdout
        for team in held:
            team.kubectl.delete("hps", "held")
    finally:
        watching.start()


def _asked_but_for_looks(server: ApiServer, namespace: str) -> list[Resource]:
    """What is asked of a namespace in a while, as far as it is more than whether it is there."""
    time.sleep(1)  # what was under way
    before = len(server.audit(SYSTEM, "hpstudy"))
    time.sleep(QUIET)
    asked = [each for each in server.audit(SYSTEM, "hpstudy")[before:] if "objectRef" in each]
    assert any(each["objectRef"].get("namespace") == namespace for each in asked), "a look"
    return [
        each
        for each in asked
        if each["objectRef"].get("namespace") == namespace and "limit=1" not in each["requestURI"]
    ]
