"""A real cluster with the project's images on its nodes, and namespaces for tests in it."""

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.support.kubectl import Kubectl, KubectlError, program
from tests.support.processes import hack

POD_SECURITY = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
}


class HelmError(RuntimeError):
    """helm failed; the message is what it said."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    kubeconfig: Path

    @cached_property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.kubeconfig)

    def helm(self, *arguments: str) -> str:
        """Run `helm ARGUMENTS` against this cluster and return what it printed."""
        return helm(*arguments, kubeconfig=self.kubeconfig)

    def workers(self) -> list[str]:
        """Return the names of the nodes that run pods."""
        nodes = self.kubectl.list("nodes", "!node-role.kubernetes.io/control-plane") or self.kubectl.list("nodes")
        return [node["metadata"]["name"] for node in nodes]

    def stop_node(self, name: str) -> None:
        """Take a node's power away, as a crash would. Only for clusters that the test made itself."""
        hack("cluster/node.sh", "stop", name)

    def start_node(self, name: str) -> None:
        """Give it back, and return when the node is Ready."""
        hack("cluster/node.sh", "start", name)

    def pretend_gpus(self, count: int = 8, resource: str = "nvidia.com/gpu") -> None:
        """Let every worker offer GPUs that are not there; pods that ask for them are scheduled."""
        amount = {resource: str(count)}
        for node in self.workers():
            self.kubectl.patch("node", node, {"status": {"capacity": amount, "allocatable": amount}}, "status")

    @contextlib.contextmanager
    def namespace(self, prefix: str = "test", *, restricted: bool = True) -> Iterator[Kubectl]:
        """Make a namespace of the block's own and yield kubectl in it. It is deleted afterwards, without waiting.

        restricted: admit only pods of the restricted Pod Security Standard.
        """
        name = f"{prefix}-{secrets.token_hex(3)}"
        labels = POD_SECURITY if restricted else {}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        try:
            yield self.kubectl.in_namespace(name)
        finally:
            # The API server may be what the test broke; its own failure says more than this one would.
            with contextlib.suppress(KubectlError):
                self.kubectl.delete("namespace", name, wait=False)


def helm(*arguments: str, kubeconfig: Path | None = None) -> str:
    """Run `helm ARGUMENTS` and return what it printed; raise HelmError if it failed."""
    environment = {**os.environ, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})}
    done = subprocess.run([program("helm"), *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HelmError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def ensure_cluster(*, images: bool = True) -> Cluster:
    """Return the tests' cluster, made if there is none, with the project's images as the source is now."""
    kubeconfig = Path(hack("cluster/up.sh"))
    if images:
        hack("images/load.sh")
    return Cluster(kubeconfig)
