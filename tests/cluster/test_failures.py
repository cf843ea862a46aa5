"""Pods that end in the middle of a trial, on a real cluster: killed at a real memory limit, deleted, evicted; and the
database killed. After each: nothing runs for ever, nothing counts twice, the budget is exact.

All studies but the database's are applied at once and awaited one by one.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.conftest import SYSTEM
from tests.cluster.studies import code, study
from tests.support.cluster import Cluster
from tests.support.kubectl import Kubectl

LIMIT = "1500Mi"
"""More than torch and the driver need, and less than any node has."""
BUDGET = {"maxTrials": 3, "maxFailedTrials": 0}
TRIALS = 3


def limited(name: str, **fields: Any) -> dict[str, Any]:
    """A study whose workers have a memory limit."""
    made = study(name, **fields)
    container = made["spec"]["workers"]["template"]["spec"]["containers"][0]
    container["resources"] = {"limits": {"memory": LIMIT}, "requests": {"memory": "256Mi"}}
    return made


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """A namespace in which the studies run side by side."""
    with cluster.namespace() as namespace:
        namespace.apply(
            code(),
            limited("hungry", function="hungry", budget=BUDGET, retries={"oom": 1}),
            limited("insatiable", function="insatiable", budget=BUDGET),
            study("deleted", function="slow_at_first", budget=BUDGET),
            study("evicted", function="slow_at_first", budget=BUDGET),
        )
        yield namespace


def succeeded(kubectl: Kubectl, name: str, **ended: int) -> None:
    """Wait for the end of the study; these and no other trials ended without values, and nothing is left."""
    kubectl.wait(f"hps/{name}", "condition=Succeeded", timeout=400)
    counts = dict.fromkeys(("waiting", "running", "pruned", "failed", "preempted", "retried"), 0)
    expected = {**counts, **ended, "complete": TRIALS, "total": TRIALS + sum(ended.values())}
    assert kubectl.get("hps", name)["status"]["trials"] == expected


def pod_of(kubectl: Kubectl, name: str) -> str:
    """The pod that runs the study's first trial."""
    kubectl.wait(f"hps/{name}", "jsonpath={.status.trials.running}=1", timeout=300)
    (pod,) = kubectl.list("pods", f"hpstudy.io/study={name}")
    return str(pod["metadata"]["name"])


def failed_pods(kubectl: Kubectl, name: str) -> int:
    """What counts against the Job's limit."""
    return int(kubectl.get("job", f"{name}-0")["status"].get("failed", 0))


def test_a_deleted_pod_hands_its_trial_back_and_another_runs_it_again(kubectl: Kubectl) -> None:
    kubectl.delete("pod", pod_of(kubectl, "deleted"))
    succeeded(kubectl, "deleted", preempted=1)
    assert failed_pods(kubectl, "deleted") == 0


def test_an_evicted_pod_does_so_too(kubectl: Kubectl) -> None:
    """As when its node is drained."""
    pod = pod_of(kubectl, "evicted")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{pod}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    succeeded(kubectl, "evicted", preempted=1)
    assert failed_pods(kubectl, "evicted") == 0


def test_a_trial_that_is_killed_at_the_memory_limit_runs_again_as_often_as_the_study_says(kubectl: Kubectl) -> None:
    succeeded(kubectl, "hungry", retried=1)
    assert failed_pods(kubectl, "hungry") == 0


def test_a_trial_that_never_fits_fails_the_study_which_says_so(kubectl: Kubectl) -> None:
    kubectl.wait("hps/insatiable", "condition=Failed", timeout=400)
    status = kubectl.get("hps", "insatiable")["status"]
    (failed,) = [condition for condition in status["conditions"] if condition["type"] == "Failed"]
    assert failed["reason"] == "MaxFailedTrialsExceeded"
    assert "trial 0, oom: " in failed["message"]
    assert (status["trials"]["failed"], status["trials"]["running"], status["trials"]["total"]) == (1, 0, 1)


def test_a_killed_database_ends_no_trial(cluster: Cluster) -> None:
    system = cluster.kubectl.in_namespace(SYSTEM)
    with cluster.namespace() as namespace:
        namespace.apply(code(), study("outage", function="steady", budget=BUDGET))
        pod_of(namespace, "outage")
        system("delete", "pod", "hpstudy-postgresql-0", "--grace-period=0", "--force")
        system("rollout", "status", "statefulset/hpstudy-postgresql", "--timeout=180s")
        succeeded(namespace, "outage")
