"""The cluster that the tests share: kind with three nodes, the chart installed from this tree."""

from pathlib import Path

import pytest

from tests.support.cluster import POD_SECURITY, Cluster, ensure_cluster

CHART = Path(__file__).parents[2] / "charts" / "hpstudy"
SYSTEM = "hpstudy-system"


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A cluster that runs the operator as the source is now, in a namespace of the restricted Pod Security Standard."""
    made = ensure_cluster()
    made.kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": dict(POD_SECURITY)}}
    )
    made.helm("upgrade", "--install", "hpstudy", str(CHART), f"--namespace={SYSTEM}")
    system = made.kubectl.in_namespace(SYSTEM)
    # The tag of an image built here stays the same when its content changes.
    system("rollout", "restart", "deployment/hpstudy")
    system("rollout", "status", "deployment/hpstudy", "--timeout=180s")
    return made
