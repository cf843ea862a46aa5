"""One study for each backend, under two worker groups of two pods: one budget, one memory, whoever proposes."""

from collections.abc import Iterator

import pytest

from tests.cluster.studies import code, study
from tests.support.cluster import Cluster
from tests.support.kubectl import Kubectl

TRIALS = 8
SPACE = {
    "x": {"type": "float", "low": -2, "high": 2},
    "batch": {"type": "int", "low": 8, "high": 32, "step": 8},
    "kind": {"type": "categorical", "choices": ["adam", "sgd"]},
}
BACKENDS = ["optuna", "ray", "wandb", "sigopt"]


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """A namespace in which the four studies run side by side."""
    with cluster.namespace() as namespace:
        studies = [
            study(
                f"by-{backend}",
                backend=backend,
                function="ranks",
                searchSpace={"parameters": SPACE},
                parallelism=2,
                workers={"nodes": 2, "processesPerNode": 1},
                budget={"maxTrials": TRIALS},
            )
            for backend in BACKENDS
        ]
        namespace.apply(code(), *studies)
        yield namespace


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_proposes_to_two_groups_of_two_pods(kubectl: Kubectl, backend: str) -> None:
    name = f"by-{backend}"
    kubectl.wait(f"hps/{name}", "condition=Succeeded", timeout=400)
    status = kubectl.get("hps", name)["status"]
    assert status["trials"]["complete"] == status["trials"]["total"] == TRIALS
    assert len(kubectl.list("jobs", f"hpstudy.io/study={name}")) == 2

    trials = status["bestTrials"]
    for parameters in (trial["hyperparameters"] for trial in trials):
        assert -2 <= parameters["x"] <= 2
        assert parameters["batch"] in (8, 16, 24, 32)
        assert parameters["kind"] in ("adam", "sgd")
    points = [tuple(trial["hyperparameters"].items()) for trial in trials]
    assert len(set(points)) == len(points), "no group was given another's point"
