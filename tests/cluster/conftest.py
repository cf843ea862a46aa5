"""The cluster that the tests share: kind with three nodes, the chart installed from this tree."""

from pathlib import Path

import pytest

from tests.support.cluster import Cluster, ensure_cluster

CHART = Path(__file__).parents[2] / "charts" / "hpstudy"
SYSTEM = "hpstudy-system"


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A cluster that runs the operator as the source is now."""
    made = ensure_cluster()
    made.helm("upgrade", "--install", "hpstudy", str(CHART), f"--namespace={SYSTEM}", "--create-namespace")
    system = made.kubectl.in_namespace(SYSTEM)
    # The tag of an image built here stays the same when its content changes.
    system("rollout", "restart", "deployment/hpstudy")
    system("rollout", "status", "deployment/hpstudy", "--timeout=180s")
    return made
