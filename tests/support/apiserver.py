"""A real API server over a real etcd: validation, CEL, RBAC and watches without nodes, in a few seconds."""

import base64
import contextlib
import json
import secrets
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.kubectl import Kubectl, program
from tests.support.processes import free_port, hack, running, wait_until
from tests.support.tls import make_certificate

#: What makes owner references, namespace deletion and ttlSecondsAfterFinished of Jobs work.
COLLECTORS = ("garbage-collector-controller", "namespace-controller", "ttl-after-finished-controller")


#: Who did what, without what was in it: enough to know which rights a service account uses.
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}


@dataclass(frozen=True)
class ApiServer:
    """A running API server; the kubeconfig is its administrator's."""

    url: str
    directory: Path
    certificate: bytes

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "admin.kubeconfig"

    @cached_property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.kubeconfig)

    def audit(self, namespace: str, service_account: str) -> list[dict[str, Any]]:
        """What a service account asked for so far, as audit events."""
        user = f"system:serviceaccount:{namespace}:{service_account}"
        lines = (self.directory / "audit.log").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["user"]["username"] == user]

    def kubeconfig_of(self, namespace: str, service_account: str) -> Path:
        """Write a kubeconfig with a service account's own token, so that RBAC applies as it does in a cluster."""
        token = self.kubectl.in_namespace(namespace)("create", "token", service_account).strip()
        return self.write_kubeconfig(f"{namespace}-{service_account}", token, namespace)

    def write_kubeconfig(self, name: str, token: str, namespace: str = "default") -> Path:
        """Write NAME.kubeconfig for whoever has the token."""
        authority = base64.b64encode(self.certificate).decode()
        context = {"cluster": "test", "user": name, "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": context}],
        }
        path = self.directory / f"{name}.kubeconfig"
        path.write_text(json.dumps(config))
        return path


@contextlib.contextmanager
def api_server(controllers: Sequence[str] = ()) -> Iterator[ApiServer]:
    """Run etcd and kube-apiserver on loopback for the block, with RBAC on.

    controllers: names of kube-controller-manager's controllers to run as well, such as COLLECTORS. Without them nothing
    is collected: an object whose owner is gone stays.
    """
    hack(
        "cluster/binaries.sh",
        "etcd",
        "kube-apiserver",
        "kubectl",
        *(["kube-controller-manager"] if controllers else []),
    )
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpstudy-api-")))
        socket = directory / "etcd.sock"
        log = directory / "etcd.log"
        command: list[str | Path] = [
            program("etcd"),
            f"--data-dir={directory}/etcd",
            f"--listen-client-urls=unix://{socket}",
            "--advertise-client-urls=http://127.0.0.1:2379",  # wanted in this form, and used by nobody
            "--listen-peer-urls=http://127.0.0.1:0",
            "--unsafe-no-fsync",
        ]
        process = stack.enter_context(running(command, log))
        # The API server tries again only after seconds.
        wait_until(socket.is_socket, process, log)
        certificate = make_certificate(directory).file.read_bytes()
        token, port = secrets.token_hex(16), free_port()
        (directory / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        server = ApiServer(f"https://127.0.0.1:{port}", directory, certificate)
        server.write_kubeconfig("admin", token)
        (directory / "audit.json").write_text(json.dumps(_AUDIT_POLICY))
        log = directory / "apiserver.log"
        process = stack.enter_context(
            running(
                [
                    program("kube-apiserver"),
                    f"--etcd-servers=unix://{socket}",
                    "--bind-address=127.0.0.1",
                    "--advertise-address=127.0.0.1",
                    f"--secure-port={port}",
                    f"--tls-cert-file={directory}/server.crt",
                    f"--tls-private-key-file={directory}/server.key",
                    f"--token-auth-file={directory}/tokens.csv",
                    "--authorization-mode=RBAC",
                    f"--audit-policy-file={directory}/audit.json",
                    f"--audit-log-path={directory}/audit.log",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    f"--service-account-key-file={directory}/server.crt",
                    f"--service-account-signing-key-file={directory}/server.key",
                    "--service-cluster-ip-range=10.0.0.0/24",
                    "--allow-privileged=true",
                    # So that a test can change objects on their way in, as webhooks of other controllers do.
                    "--feature-gates=MutatingAdmissionPolicy=true",
                    "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
                    # No controller makes the default service accounts that this plugin would wait for.
                    "--disable-admission-plugins=ServiceAccount",
                    "--enable-priority-and-fairness=false",
                ],
                log,
            )
        )
        context = ssl.create_default_context(cadata=certificate.decode())
        wait_until(lambda: _ready(server.url, token, context), process, log)
        if controllers:
            stack.enter_context(
                running(
                    [
                        program("kube-controller-manager"),
                        f"--kubeconfig={server.kubeconfig}",
                        f"--controllers={','.join(controllers)}",
                        "--leader-elect=false",
                        "--secure-port=0",
                    ],
                    directory / "controllers.log",
                )
            )
        yield server


def _ready(url: str, token: str, context: ssl.SSLContext) -> bool:
    request = urllib.request.Request(f"{url}/readyz", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, context=context, timeout=5):
            return True
    except urllib.error.HTTPError as answer:
        answer.close()
        return False
    except OSError:
        return False
