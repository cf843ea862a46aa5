"""Where pods land, and who may connect to them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hpstudy import __version__
from tests.cluster.conftest import SYSTEM
from tests.cluster.studies import code, study
from tests.support.cluster import Cluster
from tests.support.kubectl import Kubectl

OWN_GROUP = {
    "topologyKey": "kubernetes.io/hostname",
    "labelSelector": {"matchLabels": {"app.kubernetes.io/managed-by": "hpstudy-operator"}},
    "matchLabelKeys": ["hpstudy.io/study", "hpstudy.io/group"],
}
TOGETHER = {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [OWN_GROUP]}}}
APART = {"topologySpreadConstraints": [{**OWN_GROUP, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}]}
ENDLESS_SIDECAR = {
    "name": "endless",
    "image": f"ghcr.io/hpstudy/operator:{__version__}",
    "command": ["python", "-c", "import signal; signal.signal(15, lambda *_: exit()); signal.pause()"],
    "restartPolicy": "Always",
}
SHAPE = {"nodes": 2, "processesPerNode": 1}
PROBE = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close(); print('connected')"


def placed(name: str, **pod: Any) -> dict[str, Any]:
    """A study whose pods carry more than the user's code; its ranks meet by gloo."""
    made = study(name, function="ranks", budget={"maxTrials": 1}, parallelism=2, workers=SHAPE)
    made["spec"]["workers"]["template"]["spec"] |= pod
    return made


@pytest.fixture(scope="module")
def restricted(cluster: Cluster) -> Iterator[Kubectl]:
    with cluster.namespace() as namespace:
        together = placed("together", **TOGETHER, initContainers=[ENDLESS_SIDECAR])
        namespace.apply(code(), together, placed("apart", **APART))
        yield namespace


def nodes_of(kubectl: Kubectl, name: str) -> list[set[str]]:
    """Nodes of each group's pods."""
    kubectl.wait(f"hps/{name}", "condition=Succeeded", timeout=400)
    groups: dict[str, set[str]] = {}
    for pod in kubectl.list("pods", f"hpstudy.io/study={name}"):
        groups.setdefault(pod["metadata"]["labels"]["hpstudy.io/group"], set()).add(pod["spec"]["nodeName"])
    return list(groups.values())


def test_a_group_lands_on_one_node_where_that_is_asked_and_ends_beside_a_native_sidecar(restricted: Kubectl) -> None:
    groups = nodes_of(restricted, "together")
    assert [len(nodes) for nodes in groups] == [1, 1]
    restricted.wait("job/together-0", "condition=Complete", timeout=60)


def test_a_group_is_spread_over_the_nodes_where_that_is_asked(restricted: Kubectl) -> None:
    assert [len(nodes) for nodes in nodes_of(restricted, "apart")] == [2, 2]


def test_ranks_meet_on_the_nodes_own_network(cluster: Cluster) -> None:
    """With interfaces of the node's own besides; both groups of a node would want its port 29400, so there is one."""
    with cluster.namespace(restricted=False) as kubectl:
        made = placed("host", **APART, hostNetwork=True)
        made["spec"]["parallelism"] = 1
        kubectl.apply(code(), made)
        assert [len(nodes) for nodes in nodes_of(kubectl, "host")] == [2]
        status = kubectl.get("hps", "host")["status"]
        assert status["trials"]["complete"] == 1, json.dumps(status)


def connects(kubectl: Kubectl, labels: dict[str, str], host: str, port: int) -> bool:
    """Whether a pod with these labels may connect; labels of ours do not make the pod anybody's."""
    name = "probe"
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": name,
        "image": ENDLESS_SIDECAR["image"],
        "command": ["python", "-c", PROBE, host, str(port)],
        "securityContext": security,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }
    kubectl.apply(pod)
    try:
        kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.containerStatuses[0].state.terminated.reason}",
                "--timeout=120s")  # fmt: skip
        return "connected" in kubectl.logs(name)
    finally:
        kubectl.delete("pod", name)


def test_postgresql_takes_connections_of_workers_and_not_of_strangers(cluster: Cluster) -> None:
    host = f"hpstudy-postgresql.{SYSTEM}.svc"
    with cluster.namespace() as kubectl:
        assert connects(kubectl, {"hpstudy.io/study": "probe"}, host, 5432)
        if not enforces(cluster):
            pytest.skip("this cluster's network does not enforce NetworkPolicies")
        assert not connects(kubectl, {}, host, 5432)


def enforces(cluster: Cluster) -> bool:
    """Whether a policy that lets nobody in keeps a pod of the same namespace out."""
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "nobody"}}
    server = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "server", "labels": {"app": "server"}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "server",
                    "image": ENDLESS_SIDECAR["image"],
                    "command": ["python", "-m", "http.server", "8000", "--directory", "/tmp"],
                }
            ],
        },
    }
    with cluster.namespace(restricted=False) as kubectl:
        kubectl.apply({**policy, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}, server)
        kubectl.wait("pod/server", "condition=Ready", timeout=120)
        return not connects(kubectl, {}, kubectl.get("pod", "server")["status"]["podIP"], 8000)
