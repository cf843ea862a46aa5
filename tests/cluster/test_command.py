"""Programs in an image that has nothing of ours: PostgreSQL's, of which they use the shell. Every node has it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import CHART
from tests.cluster.studies import study
from tests.support.cluster import Cluster
from tests.support.kubectl import Kubectl

SPACE = {"parameters": {"x": {"type": "int", "low": 0, "high": 9}}}
BOWL = """
[ -z "$HPSTUDY_STORAGE_URL" ] || { echo "a secret is here"; exit 1; }
loss=$((($1 - 3) * ($1 - 3)))
for step in 1 2 3; do
  echo "{\\"step\\": $step, \\"loss\\": $((loss + 3 - step))}" >> "$HPSTUDY_METRICS"
  sleep 0.3
done
"""
TOGETHER = """
[ "$PET_NNODES" = 2 ] && [ "$RANK" = "$2" ] && [ "$MASTER_PORT" -gt 0 ] || exit 1
getent hosts "$MASTER_ADDR" > /dev/null || { echo "no host $MASTER_ADDR"; exit 1; }
echo "step 1 loss $1"
"""
GREEDY = """
set -e
[ "$1" != 0 ] || head -c 300M /dev/zero | tail
echo "loss 0"
"""
PATTERN = {"pattern": r"loss (?P<loss>\d+)"}


def image() -> str:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    return str(values["postgresql"]["image"])


def program(name: str, *argv: str, metrics: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """A study of a program in the image, with little memory and without rights."""
    container = {
        "name": "worker",
        "image": image(),
        "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
    }
    template = {"spec": {"containers": [container], "securityContext": {"runAsUser": 1000, "runAsGroup": 1000}}}
    workers = {"template": template, **fields.pop("workers", {})}
    command = {"argv": list(argv)} | ({"metrics": metrics} if metrics else {})
    return study(name, trial={"command": command}, searchSpace=SPACE, workers=workers, **fields)


PRUNER = {"name": "MedianPruner", "options": {"n_startup_trials": 1}}
STUDIES = [
    program("bowl", "sh", "-c", BOWL, "bowl", "{{ x }}", pruner=PRUNER, budget={"maxTrials": 6}),
    program("two-nodes", "sh", "-c", TOGETHER, "together", "{{ x }}", "{{ trial.node_rank }}", metrics=PATTERN,
            workers={"nodes": 2}, budget={"maxTrials": 3}),
    program("greedy", "sh", "-c", GREEDY, "greedy", "{{ x }}", metrics=PATTERN,
            initialTrials=[{"x": 0}, {"x": 1}], budget={"maxTrials": 1, "maxFailedTrials": 1}),
    program("fails", "sh", "-c", "echo out of luck; exit 3", budget={"maxFailedTrials": 0}),
    program("absent", "no-such-program"),
    program("typo", "sh", "{{ y }}"),
]  # fmt: skip


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """A namespace of the restricted Pod Security Standard in which all studies run."""
    with cluster.namespace() as namespace:
        namespace.apply(*STUDIES)
        yield namespace


def finished(kubectl: Kubectl, name: str, condition: str = "Succeeded") -> dict[str, Any]:
    kubectl.wait(f"hps/{name}", f"condition={condition}", timeout=300)
    status: dict[str, Any] = kubectl.get("hps", name)["status"]
    return status


def message(status: dict[str, Any], condition: str) -> str:
    return next(str(found["message"]) for found in status["conditions"] if found["type"] == condition)


def test_a_program_in_any_image_is_tuned_and_its_pod_ends(kubectl: Kubectl) -> None:
    status = finished(kubectl, "bowl")
    assert status["trials"]["complete"] + status["trials"]["pruned"] == 6
    assert status["trials"]["failed"] == 0
    best = status["bestTrials"][0]
    assert best["values"]["loss"] == (best["hyperparameters"]["x"] - 3) ** 2
    kubectl.wait("job/bowl-0", "condition=Complete", timeout=60)
    (pod,) = kubectl.list("pods", "hpstudy.io/study=bowl")
    assert [(each["name"], each["image"]) for each in pod["spec"]["initContainers"]][1:] == [("worker", image())]
    assert "secretKeyRef" not in json.dumps(pod["spec"]["initContainers"])
    assert "HPSTUDY_STORAGE_URL" not in kubectl.logs(pod["metadata"]["name"], "--container=worker")


def test_a_program_runs_on_every_node_and_finds_the_first(kubectl: Kubectl) -> None:
    status = finished(kubectl, "two-nodes")
    assert status["trials"]["complete"] == 3
    best = status["bestTrials"][0]
    assert best["values"]["loss"] == best["hyperparameters"]["x"]


def test_a_program_that_needs_too_much_memory_fails_its_trial_and_no_other(kubectl: Kubectl) -> None:
    """The pod stays: its container is started again, where the kernel ended all of it."""
    status = finished(kubectl, "greedy")
    assert (status["trials"]["complete"], status["trials"]["failed"]) == (1, 1)
    assert len(kubectl.list("pods", "hpstudy.io/study=greedy")) == 1


def test_a_program_that_fails_ends_the_study_with_its_last_words(kubectl: Kubectl) -> None:
    said = message(finished(kubectl, "fails", "Failed"), "Failed")
    assert "sh ended with exit code 3" in said
    assert "out of luck" in said


def test_a_program_that_is_not_in_the_image_fails_the_study_at_once(kubectl: Kubectl) -> None:
    status = finished(kubectl, "absent", "Failed")
    assert "there is no program 'no-such-program'" in message(status, "Failed")
    assert status["trials"]["total"] == 0


def test_a_template_that_names_nothing_starts_no_pod(kubectl: Kubectl) -> None:
    kubectl.wait("hps/typo", "condition=Accepted=False", timeout=60)
    assert "'y' is no hyperparameter" in message(kubectl.get("hps", "typo")["status"], "Accepted")
    assert kubectl.list("pods", "hpstudy.io/study=typo") == []
