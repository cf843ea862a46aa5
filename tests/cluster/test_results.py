"""The Job of onSuccess on a cluster: it gets the best trial's hyperparameters, as arguments and as variables."""

import json

from tests.cluster.test_command import PATTERN, image, program
from tests.support.cluster import Cluster

SHOW = 'echo "x is $1, of trial $2, in the environment $HPSTUDY_PARAM_X"; [ "$3" = 0.0 ] || exit 1'


def test_the_final_job_prints_the_best_hyperparameters(cluster: Cluster) -> None:
    container = {
        "name": "final",
        "image": image(),
        "command": ["sh", "-c", SHOW, "final"],
        "args": ["{{ x }}", "{{ trial.number }}", "{{ trial.value }}"],
        "envFrom": [{"configMapRef": {"name": "chosen-best"}}],
    }
    pod = {"containers": [container], "securityContext": {"runAsUser": 1000}}
    found = program(
        "chosen",
        *("sh", "-c", 'echo "loss $((($1 - 3) * ($1 - 3)))"', "trial", "{{ x }}"),
        metrics=PATTERN,
        initialTrials=[{"x": 7}, {"x": 3}, {"x": 1}],
        budget={"maxTrials": 3},
        onSuccess={"template": {"spec": {"backoffLimit": 0, "template": {"spec": pod}}}},
    )
    with cluster.namespace() as kubectl:
        kubectl.apply(found)
        kubectl.wait("hps/chosen", "jsonpath={.status.onSuccess.state}=Succeeded", timeout=400)
        status = kubectl.get("hps", "chosen")["status"]
        best = json.loads(kubectl.get("configmap", "chosen-best")["data"]["best.json"])
        assert (best["hyperparameters"], best["values"]) == ({"x": 3}, {"loss": 0})
        assert status["onSuccess"]["trial"] == best["number"]
        said = kubectl("logs", "job/chosen-final")
        assert said.strip() == f"x is 3, of trial {best['number']}, in the environment 3"
        assert status["workers"] == {"desired": 0, "ready": 0}
