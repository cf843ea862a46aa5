"""Studies on a real cluster: manifest in, status out; real images, real PostgreSQL, real gloo between pods.

All are applied at once and awaited one by one: the operator serves them side by side, and their imports overlap.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.studies import code, reviews, study
from tests.support.cluster import Cluster
from tests.support.kubectl import Kubectl

TWO_BY_TWO = {"nodes": 2, "processesPerNode": 2}
TRADE = [{"metric": "left", "direction": "minimize"}, {"metric": "right", "direction": "minimize"}]
STUDIES = [
    study("one-pod", function="bowl", pruner={"name": "MedianPruner", "options": {"n_startup_trials": 1}}),
    study("gloo", function="ranks", workers=TWO_BY_TWO),
    reviews("reviews", workers=TWO_BY_TWO, budget={"maxTrials": 2}),
    study("two-groups", function="trade", objectives=TRADE, parallelism=2, budget={"maxTrials": 9}),
    study("by-run", function="bowl", searchSpace={"python": "user_code:space"}, budget={"maxTrials": 3}),
    study("broken", function="broken", budget={"maxFailedTrials": 1}),
    study("unmeasured", function="unmeasured", budget={"maxFailedTrials": 0}),
    study("absent", function="nowhere"),
    study("no-image", trial={"function": "m:f"}, workers={"template": {"spec": {"containers": [
        {"name": "worker", "image": "registry.invalid/none:1"}]}}}),
    reviews("no-metric", objectives=[{"metric": "eval_bleu", "direction": "maximize"}], budget={"maxFailedTrials": 0}),
]  # fmt: skip


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """A namespace of the restricted Pod Security Standard in which all studies run."""
    with cluster.namespace() as namespace:
        namespace.apply(code(), *STUDIES)
        yield namespace


def finished(kubectl: Kubectl, name: str, condition: str = "Succeeded") -> dict[str, Any]:
    """Wait for the condition as a user would, and return the status."""
    kubectl.wait(f"hps/{name}", f"condition={condition}", timeout=300)
    status: dict[str, Any] = kubectl.get("hps", name)["status"]
    return status


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(found for found in status["conditions"] if found["type"] == kind)


def test_a_one_pod_study_succeeds_and_shows_its_best_trial(kubectl: Kubectl) -> None:
    status = finished(kubectl, "one-pod")
    assert status["progress"] == "4/4"
    assert status["trials"]["complete"] + status["trials"]["pruned"] == 4
    best = status["bestTrials"][0]
    assert best["values"]["loss"] == pytest.approx((best["hyperparameters"]["x"] - 1) ** 2)
    assert best["worker"] == "0"


def test_four_ranks_on_two_nodes_train_each_trial_together(kubectl: Kubectl) -> None:
    status = finished(kubectl, "gloo")
    assert status["trials"]["complete"] == 4

    log = kubectl.logs("job/gloo-0", "--all-pods=true")
    ended = [json.loads(line.split(" end ", 1)[1]) for line in log.splitlines() if "hpstudy end " in line]
    assert len(ended) == 4
    assert all((end["metrics"]["ranks"], end["metrics"]["sum"]) == (4, 6.0) for end in ended)


def test_the_trainer_runs_on_two_nodes_of_two_processes(kubectl: Kubectl) -> None:
    status = finished(kubectl, "reviews")
    assert status["trials"]["complete"] == 2
    assert 0 < status["bestTrials"][0]["values"]["eval_f1"] <= 1


def test_two_groups_share_one_budget_and_the_status_has_the_front(kubectl: Kubectl) -> None:
    status = finished(kubectl, "two-groups")
    assert status["trials"]["complete"] == status["trials"]["total"] == 9
    front = status["bestTrials"]
    assert status["paretoFrontSize"] == len(front)
    assert status["best"] == f"{len(front)} on the front"
    points = [tuple(trial["values"][objective["metric"]] for objective in TRADE) for trial in front]
    for one in points:
        assert not any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in points)
    assert len(kubectl.list("jobs", "hpstudy.io/study=two-groups")) == 2


def test_a_define_by_run_space_is_searched(kubectl: Kubectl) -> None:
    status = finished(kubectl, "by-run")
    names = [set(trial["hyperparameters"]) for trial in status["bestTrials"]]
    assert all(found in ({"kind", "x"}, {"kind", "y"}) for found in names)


def test_a_function_that_raises_fails_the_study_with_its_words(kubectl: Kubectl) -> None:
    failed = condition(finished(kubectl, "broken", "Failed"), "Failed")
    assert failed["reason"] == "MaxFailedTrialsExceeded"
    assert "RuntimeError: the disk of the trial is full" in failed["message"]


def test_a_missing_metric_fails_the_study_with_those_there(kubectl: Kubectl) -> None:
    failed = condition(finished(kubectl, "unmeasured", "Failed"), "Failed")
    assert "metric 'loss' was not reported; the trial reported accuracy" in failed["message"]


def test_a_metric_that_no_evaluation_produces_is_refused_with_those_there(kubectl: Kubectl) -> None:
    kubectl.wait("hps/no-metric", "condition=Accepted=False", timeout=60)
    accepted = condition(kubectl.get("hps", "no-metric")["status"], "Accepted")
    assert accepted["reason"] == "InvalidSpec"
    assert "no trial will have the metric eval_bleu; there are accuracy, f1, loss," in accepted["message"]
    assert not kubectl.list("pods", "hpstudy.io/study=no-metric")


def test_a_function_that_cannot_be_imported_fails_the_study_at_once(kubectl: Kubectl) -> None:
    status = finished(kubectl, "absent", "Failed")
    failed = condition(status, "Failed")
    assert failed["reason"] == "ImportFailed"
    assert "module 'user_code' has no function 'nowhere'" in failed["message"]
    assert status["trials"]["total"] == 0


def test_an_image_that_cannot_be_pulled_stalls_the_study_and_says_so(kubectl: Kubectl) -> None:
    stalled = condition(finished(kubectl, "no-image", "Stalled"), "Stalled")
    assert stalled["reason"] == "ImagePullFailed"
    assert "registry.invalid/none:1" in stalled["message"]


def test_kubectl_shows_progress_and_the_best_value(kubectl: Kubectl) -> None:
    finished(kubectl, "one-pod")
    header, row = kubectl("get", "hps", "one-pod").splitlines()
    assert header.split() == ["NAME", "BACKEND", "PROGRESS", "BEST", "AGE"]
    assert row.split()[:3] == ["one-pod", "optuna", "4/4"]


def test_the_studies_ran_in_the_namespaces_own_role(kubectl: Kubectl) -> None:
    """No pod holds an API token, and the storage's URL is the namespace's own."""
    finished(kubectl, "one-pod")
    for pod in kubectl.list("pods", "hpstudy.io/study"):
        assert pod["spec"]["automountServiceAccountToken"] is False
    assert kubectl.find("secret", "hpstudy-storage") is not None


def test_deleting_a_study_leaves_nothing_of_it(kubectl: Kubectl) -> None:
    finished(kubectl, "by-run")
    kubectl("delete", "hps", "by-run", "--timeout=60s")
    kubectl(
        "wait", "--for=delete", "jobs,pods,services,configmaps", "--selector=hpstudy.io/study=by-run", "--timeout=60s"
    )
