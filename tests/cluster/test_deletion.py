"""Studies and the release are deleted in any order; a tenant's worker tries to reach its neighbour's trials."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.cluster.conftest import CHART, SYSTEM
from tests.cluster.studies import code, study
from tests.support.cluster import Cluster
from tests.support.kubectl import Kubectl

KINDS = "hps,jobs,pods,services,configmaps,secrets"
THIEF = """
import os, sys
import psycopg2
for statement in sys.argv[1:]:
    try:
        with psycopg2.connect(os.environ["HPSTUDY_STORAGE_URL"]) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            print("ok", cursor.fetchall() if cursor.description else "")
    except psycopg2.Error as error:
        print(type(error).__name__)
"""


def held(name: str) -> dict[str, Any]:
    """A study whose first trial takes ten minutes, and whose trials go with it."""
    return study(name, function="slow_at_first", deletionPolicy="Delete")


def running(kubectl: Kubectl, name: str) -> None:
    kubectl.wait(f"hps/{name}", "condition=Running", timeout=300)
    kubectl("wait", f"hps/{name}", "--for=jsonpath={.status.trials.running}=1", "--timeout=180s")


def left(kubectl: Kubectl) -> list[str]:
    """What is in a namespace that neither the cluster nor the test put there."""
    items = json.loads(kubectl("get", KINDS, "-o", "json"))["items"]
    names = [f"{item['kind']}/{item['metadata']['name']}" for item in items]
    return [name for name in names if name not in {"ConfigMap/kube-root-ca.crt", "ConfigMap/code"}]


def stored(cluster: Cluster, namespace: str) -> str:
    """Studies in the schema of a namespace."""
    sql = f'select count(*) from "hpstudy_{namespace}".studies'
    system = cluster.kubectl.in_namespace(SYSTEM)
    return system.exec("hpstudy-postgresql-0", "psql", "-U", "hpstudy", "-Atc", sql).strip()


@pytest.fixture(scope="module")
def spaces(cluster: Cluster) -> Iterator[list[Kubectl]]:
    """Three namespaces, each with a trial that runs."""
    with ExitStack() as stack:
        made = [stack.enter_context(cluster.namespace("delete")) for _ in range(3)]
        for kubectl in made:
            kubectl.apply(code(), held("one"))
        for kubectl in made:
            running(kubectl, "one")
        yield made


def test_a_workers_credentials_open_its_own_trials_and_no_others(cluster: Cluster, spaces: list[Kubectl]) -> None:
    mine, theirs = (f"hpstudy_{kubectl.namespace}" for kubectl in spaces[:2])
    (pod,) = spaces[0].list("pods", "hpstudy.io/study=one")
    tried = [f'select count(*) from "{mine}".trials', f'select * from "{theirs}".trials', f'set role "{theirs}"']
    said = spaces[0].exec(pod["metadata"]["name"], "python", "-c", THIEF, *tried).splitlines()
    assert said == ["ok [(1,)]", "InsufficientPrivilege", "InsufficientPrivilege"]


def test_the_study_first(cluster: Cluster, spaces: list[Kubectl]) -> None:
    """Its worker runs; afterwards nothing is left of it, in the cluster or in the database."""
    kubectl = spaces[0]
    assert stored(cluster, kubectl.namespace) == "1"
    kubectl("delete", "hps", "one", "--timeout=120s")
    kubectl("wait", "--for=delete", "jobs,pods,services,secrets", "--selector=hpstudy.io/study=one", "--timeout=60s")
    kubectl("wait", "--for=delete", "secret/hpstudy-storage", "--timeout=60s")
    assert left(kubectl) == []
    assert stored(cluster, kubectl.namespace) == "0"


def test_the_namespace_with_everything_in_it(cluster: Cluster, spaces: list[Kubectl]) -> None:
    kubectl = spaces[1]
    cluster.kubectl("delete", "namespace", kubectl.namespace, "--timeout=180s")
    assert stored(cluster, kubectl.namespace) == "0"


def test_the_release_first(cluster: Cluster, spaces: list[Kubectl]) -> None:
    """Its worker runs on without an operator, and nothing holds the study."""
    kubectl = spaces[2]
    cluster.helm("uninstall", "hpstudy", f"--namespace={SYSTEM}", "--wait", "--timeout=3m")
    try:
        assert "finalizers" not in kubectl.get("hps", "one")["metadata"]
        kubectl("delete", "hps", "one", "--timeout=30s")
        kubectl("wait", "--for=delete", "jobs,pods,services", "--selector=hpstudy.io/study=one", "--timeout=120s")
        kubectl("wait", "--for=delete", "secret/hpstudy-storage", "--timeout=60s")
        assert left(kubectl) == []
        system = cluster.kubectl.in_namespace(SYSTEM)
        assert [job["metadata"]["name"] for job in system.list("jobs")] == []
    finally:
        cluster.helm("upgrade", "--install", "hpstudy", str(CHART), f"--namespace={SYSTEM}", "--wait", "--timeout=5m")
    assert stored(cluster, kubectl.namespace) == "1"  # nobody was there to remove it
