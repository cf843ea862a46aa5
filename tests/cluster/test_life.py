"""Studies that are suspended and changed while they run, on a real cluster."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.studies import code, study
from tests.support.cluster import Cluster
from tests.support.kubectl import Kubectl

CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "checkpoints"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}},
}
PLACE = {"keep": "best", "volume": {"persistentVolumeClaim": {"claimName": "checkpoints"}}}


def versioned(name: str, version: int, **fields: Any) -> dict[str, Any]:
    """A study whose trials tell the version in their environment."""
    made = study(name, function="versioned", **fields)
    container = made["spec"]["workers"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "VERSION", "value": str(version)}]
    return made


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """A namespace with what the studies share."""
    with cluster.namespace() as namespace:
        namespace.apply(code(), CLAIM)
        yield namespace


def eventually(look: Callable[[], bool], what: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(1)


def ends(kubectl: Kubectl, target: str) -> list[dict[str, Any]]:
    """What a worker's log says of the trials that ended there."""
    log = kubectl.logs(target)
    return [json.loads(line.split(" end ", 1)[1]) for line in log.splitlines() if "hpstudy end " in line]


def test_a_suspended_study_holds_no_pods_and_its_trial_goes_on_from_its_checkpoint(kubectl: Kubectl) -> None:
    kubectl.apply(
        study("paused", function="counted", checkpoints=PLACE, budget={"maxTrials": 2}, retries={"preempted": 0})
    )
    eventually(lambda: '"number": 0, "step": 3' in _log(kubectl, "job/paused-0"), "the third step")
    kubectl.patch("hps", "paused", {"spec": {"suspend": True}})
    kubectl.wait("hps/paused", "condition=Suspended", timeout=60)
    kubectl("wait", "--for=delete", "pods", "--selector=hpstudy.io/study=paused", "--timeout=120s")
    assert kubectl.find("job", "paused-0") is None
    kubectl.wait("hps/paused", "jsonpath={.status.trials.preempted}=1", timeout=60)
    assert kubectl.get("hps", "paused")["status"]["trials"]["running"] == 0

    kubectl.patch("hps", "paused", {"spec": {"suspend": False}})
    kubectl.wait("hps/paused", "condition=Succeeded", timeout=300)
    status = kubectl.get("hps", "paused")["status"]
    assert (status["trials"]["complete"], status["trials"]["preempted"], status["trials"]["failed"]) == (2, 1, 0)
    first = ends(kubectl, "job/paused-0")[0]
    assert (first["number"], first["metrics"]["begun_after"]) == (1, 3)


def test_a_group_that_is_removed_ends_its_trial_which_counts(kubectl: Kubectl) -> None:
    kubectl.apply(versioned("scaled", 1, parallelism=2, budget={"maxTrials": 6}))
    kubectl.wait("hps/scaled", "jsonpath={.status.trials.running}=2", timeout=300)
    kubectl.patch("hps", "scaled", {"spec": {"parallelism": 1}})
    kubectl.wait("job/scaled-1", "delete", timeout=180)
    kubectl("wait", "--for=delete", "pods", "--selector=hpstudy.io/study=scaled,hpstudy.io/group=1", "--timeout=60s")
    assert kubectl.find("service", "scaled-1") is None
    kubectl.patch("hps", "scaled", {"spec": {"parallelism": 2}})
    kubectl.wait("hps/scaled", "condition=Succeeded", timeout=400)
    status = kubectl.get("hps", "scaled")["status"]
    assert status["trials"] == {
        **dict.fromkeys(("waiting", "running", "pruned", "failed", "preempted", "retried"), 0),
        "complete": 6,
        "total": 6,
    }
    assert {trial["worker"] for trial in status["bestTrials"]} == {"0", "1"}


def test_a_new_template_is_for_new_trials_only(kubectl: Kubectl) -> None:
    kubectl.apply(versioned("renewed", 1, budget={"maxTrials": 3}))
    kubectl.wait("hps/renewed", "jsonpath={.status.trials.running}=1", timeout=300)
    before = kubectl.get("job", "renewed-0")["metadata"]["uid"]
    kubectl.apply(versioned("renewed", 2, budget={"maxTrials": 3}))
    kubectl.wait("hps/renewed", "condition=Succeeded", timeout=400)
    assert kubectl.get("job", "renewed-0")["metadata"]["uid"] != before
    status = kubectl.get("hps", "renewed")["status"]
    assert (status["trials"]["complete"], status["trials"]["total"]) == (3, 3), "the trial that ran was not lost"
    assert [end["metrics"]["version"] for end in ends(kubectl, "job/renewed-0")] == [2, 2]
    events = kubectl("get", "events", "--field-selector=involvedObject.name=renewed,involvedObject.kind=HPStudy")
    assert events.count("MaxTrialsReached") == 1


def _log(kubectl: Kubectl, target: str) -> str:
    try:
        return kubectl.logs(target)
    except RuntimeError:  # it has not started
        return ""
