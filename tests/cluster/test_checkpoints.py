"""Checkpoints on a volume of a real cluster: a trial whose pod is deleted goes on in the next one, and the best model
is where the status says.

The claim is of the cluster's default storage class: one node at a time, as many disks are.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.studies import code, reviews, study
from tests.support.cluster import Cluster
from tests.support.kubectl import Kubectl

CLAIM = "checkpoints"
VOLUME = {"persistentVolumeClaim": {"claimName": CLAIM}}
LOAD = """
import json, sys
from pathlib import Path
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
tokens = AutoTokenizer.from_pretrained(sys.argv[1])(["a fine text"], return_tensors="pt")
print(json.dumps({"labels": model(**{k: tokens[k] for k in ("input_ids", "attention_mask")}).logits.shape[1],
                  "evaluations": len([e for e in json.loads(Path(sys.argv[1], "trainer_state.json").read_text())
                                      ["log_history"] if "eval_f1" in e])}))
"""


def claim() -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "200Mi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": spec}


def reader(image: str) -> dict[str, Any]:
    """A pod of somebody who was given the path; on the node of the volume."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    mounts = [{"name": CLAIM, "mountPath": "/checkpoints"}, {"name": "tmp", "mountPath": "/tmp"}]
    container = {
        "name": "reader",
        "image": image,
        "command": ["sleep", "600"],
        "securityContext": security,
        "volumeMounts": mounts,
    }
    volumes = [{"name": CLAIM, **VOLUME}, {"name": "tmp", "emptyDir": {}}]
    spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"}, "spec": spec}


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """A namespace of the restricted Pod Security Standard with a claim, and both studies."""
    counting = study("counting", function="counts_on", budget={"maxTrials": 1}, checkpoints={"volume": VOLUME})
    training = reviews("training", budget={"maxTrials": 1}, checkpoints={"volume": VOLUME})
    training["spec"]["trial"]["transformers"]["arguments"]["num_train_epochs"] = 60
    with cluster.namespace() as namespace:
        namespace.apply(code(), claim(), counting, training)
        yield namespace


def delete_pod_that_saved(kubectl: Kubectl, name: str, pattern: str) -> None:
    """Delete the study's pod as soon as its trial has left what is looked for."""
    kubectl.wait(f"hps/{name}", "jsonpath={.status.trials.running}=1", timeout=400)
    (pod,) = kubectl.list("pods", f"hpstudy.io/study={name}")
    found = f"until ls {pattern}; do sleep 0.5; done"
    kubectl.exec(pod["metadata"]["name"], "sh", "-c", found)
    kubectl.delete("pod", pod["metadata"]["name"])


def succeeded(kubectl: Kubectl, name: str) -> dict[str, Any]:
    kubectl.wait(f"hps/{name}", "condition=Succeeded", timeout=500)
    status: dict[str, Any] = kubectl.get("hps", name)["status"]
    counts = status["trials"]
    assert (counts["complete"], counts["preempted"], counts["total"]) == (1, 1, 2)
    (best,) = status["bestTrials"]
    assert best["number"] == 1
    return dict(best)


def test_a_trial_saves_when_its_pod_is_deleted_and_goes_on_in_another(kubectl: Kubectl) -> None:
    delete_pod_that_saved(kubectl, "counting", "/tmp/began")
    best = succeeded(kubectl, "counting")
    assert best["values"]["loss"] >= 20, "where it went on from: it saves only when it is told to stop"


def test_a_trainer_goes_on_and_its_best_model_is_where_the_status_says(kubectl: Kubectl) -> None:
    delete_pod_that_saved(kubectl, "training", "-d /checkpoints/*/training-*/trial-0/last/")
    best = succeeded(kubectl, "training")
    assert best["checkpoint"].startswith(f"/checkpoints/{kubectl.namespace}/training-")
    assert best["checkpoint"].endswith("/trial-1/best")
    job = kubectl.get("job", "training-0")
    kubectl.apply(reader(job["spec"]["template"]["spec"]["containers"][0]["image"]))
    kubectl.wait("pod/reader", "condition=Ready", timeout=120)
    left = kubectl.exec("reader", "sh", "-c", "ls -d /checkpoints/*/training-*/trial-*/*").split()
    assert left == [best["checkpoint"]], "nothing else is kept of this study"
    loaded = json.loads(kubectl.exec("reader", "python", "-c", LOAD, best["checkpoint"]).splitlines()[-1])
    assert loaded["labels"] == 2
    assert loaded["evaluations"] >= 1
    kubectl.exec("reader", "python", "-c", "import gcsfs, s3fs")  # what checkpoints.url needs
