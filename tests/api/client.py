"""The API server for a test that asks often: without a process for every question."""

import json
from typing import Any, NamedTuple

import urllib3

from tests.support.apiserver import ApiServer

Resource = dict[str, Any]

_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
PATHS = {
    "hpstudies": "/apis/hpstudy.io/v1alpha1",
    "jobs": "/apis/batch/v1",
    **dict.fromkeys(("pods", "services", "configmaps", "secrets", "events"), "/api/v1"),
}


class Writes(NamedTuple):
    """Requests that write, by who made them; a test's own are not among them."""

    by_operators: list[str]
    by_controllers: list[str]


class Api:
    """A client of it, as administrator."""

    def __init__(self, server: ApiServer) -> None:
        config = json.loads(server.kubeconfig.read_text())
        self._url = server.url
        self._audit_log = server.directory / "audit.log"
        self._headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
        self._http = urllib3.PoolManager(ca_cert_data=server.certificate.decode())

    def find(self, kind: str, namespace: str, name: str) -> Resource | None:
        """An object, or None."""
        response = self._request("GET", kind, namespace, name)
        found: Resource | None = None if response.status == 404 else response.json()
        return found

    def list(self, kind: str, namespace: str) -> list[Resource]:
        """All objects of a namespace."""
        items: list[Resource] = self._request("GET", kind, namespace).json()["items"]
        return items

    def create(self, kind: str, namespace: str, manifest: Resource) -> str:
        """Create an object as kubectl does, unknown fields refused; returns what the API server has against it."""
        response = self._request("POST", kind, namespace, "?fieldValidation=Strict", manifest)
        return "" if response.status == 201 else str(response.json()["message"])

    def create_namespace(self, name: str) -> None:
        """Create a namespace."""
        url, body = f"{self._url}/api/v1/namespaces", json.dumps({"metadata": {"name": name}})
        assert self._http.request("POST", url, body=body, headers=self._headers).status == 201

    def delete_namespace(self, name: str) -> None:
        """Have a namespace and everything in it deleted in the background."""
        assert (
            self._http.request("DELETE", f"{self._url}/api/v1/namespaces/{name}", headers=self._headers).status == 200
        )

    def patch(self, kind: str, namespace: str, name: str, change: Resource) -> None:
        """Merge into an object, and into its status when that is what changes."""
        path = f"{name}/status" if set(change) == {"status"} else name
        response = self._request("PATCH", kind, namespace, path, change)
        assert response.status == 200, response.data.decode()

    def audited(self) -> int:
        """How long the audit log is, in bytes."""
        return self._audit_log.stat().st_size

    def written(self, namespace: str, since: int) -> Writes:
        """What was written in a namespace since the audit log had that length, also what changed nothing."""
        with self._audit_log.open("rb") as log:
            log.seek(since)
            events = [json.loads(line) for line in log if namespace.encode() in line and line.endswith(b"\n")]
        writes = Writes([], [])
        for event in events:
            where, what = event.get("objectRef", {}).get("namespace"), event["requestURI"]
            if where == namespace and event["verb"] in _WRITES and "dryRun=" not in what:
                ours = not event["user"]["username"].startswith("system:serviceaccount:kube-system:")
                (writes.by_operators if ours else writes.by_controllers).append(f"{event['verb']} {what}")
        return writes

    def metrics(self) -> str:
        """The API server's metrics."""
        text: str = self._http.request("GET", f"{self._url}/metrics", headers=self._headers).data.decode()
        return text

    def _request(self, method: str, kind: str, namespace: str, path: str = "", change: Any = None) -> Any:
        url = f"{self._url}{PATHS[kind]}/namespaces/{namespace}/{kind}"
        url += path if path.startswith("?") else f"/{path}".rstrip("/")
        content = "application/json" if method == "POST" else "application/merge-patch+json"
        headers = {**self._headers, "Content-Type": content}
        body = None if change is None else json.dumps(change)
        return self._http.request(method, url, body=body, headers=headers)
