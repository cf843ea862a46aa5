"""kubectl as a function: what a person would type, with Python objects in and out."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.processes import hack

Manifest = Mapping[str, Any]
#: Long enough for a pod to start on a busy two-core machine.
WAIT_TIMEOUT = 120.0


class KubectlError(RuntimeError):
    """kubectl failed; the message is what it said."""


@cache
def program(name: str) -> Path:
    """Return the path of one of the cluster's programs (kubectl, helm, etcd, ...), built if it is missing."""
    return Path(hack("cluster/binaries.sh", name)) / name


@dataclass(frozen=True)
class Kubectl:
    """One cluster and one namespace, as one user of it."""

    kubeconfig: Path
    namespace: str = "default"
    user: str | None = None  # to impersonate, as in "system:serviceaccount:ns:name"

    def in_namespace(self, namespace: str) -> "Kubectl":
        return replace(self, namespace=namespace)

    def as_user(self, user: str) -> "Kubectl":
        return replace(self, user=user)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run `kubectl ARGUMENTS` and return what it printed; raise KubectlError if it failed."""
        command = [str(program("kubectl")), f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}"]
        if self.user:
            command.append(f"--as={self.user}")
        done = subprocess.run([*command, *arguments], input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def apply(self, *manifests: Manifest | str | Path) -> None:
        """Apply objects, YAML texts or files, server-side as a controller would."""
        for manifest in manifests:
            text = (
                manifest.read_text() if isinstance(manifest, Path)
                else manifest if isinstance(manifest, str)
                else json.dumps(manifest)
            )  # fmt: skip
            self("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return one object."""
        found: dict[str, Any] = json.loads(self("get", kind, name, "-o", "json"))
        return found

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return one object, or None if there is none."""
        text = self("get", kind, name, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] | None = json.loads(text) if text else None
        return found

    def list(self, kind: str, selector: str = "") -> Sequence[dict[str, Any]]:
        """Return the objects of a kind that a label selector selects."""
        items: list[dict[str, Any]] = json.loads(self("get", kind, f"--selector={selector}", "-o", "json"))["items"]
        return items

    def patch(self, kind: str, name: str, patch: Manifest, subresource: str = "") -> None:
        """Merge a patch into an object, or into its subresource."""
        extra = [f"--subresource={subresource}"] if subresource else []
        self("patch", kind, name, "--type=merge", "-p", json.dumps(patch), *extra)

    def wait(self, target: str, condition: str, timeout: float = WAIT_TIMEOUT) -> None:
        """Wait for a target such as "hps/reviews" until a condition such as "condition=Succeeded" or "delete"."""
        self("wait", target, f"--for={condition}", f"--timeout={timeout:g}s")

    def logs(self, target: str, *arguments: str) -> str:
        """Return the logs of a target such as "job/NAME"."""
        return self("logs", target, *arguments)

    def exec(self, pod: str, *command: str) -> str:
        """Run a command in a pod."""
        return self("exec", pod, "--", *command)

    def delete(self, kind: str, name: str, *, wait: bool = True) -> None:
        """Delete an object, which may be gone already."""
        self("delete", kind, name, "--ignore-not-found", f"--wait={str(wait).lower()}")
