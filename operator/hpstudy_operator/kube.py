"""The few calls to the API server that the operator makes, on plain dictionaries.

The official client's transport, credentials and errors; its generated models would cost memory and drop unknown fields.
"""

import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import kubernetes
from urllib3.exceptions import HTTPError

from hpstudy import __version__
from hpstudy.api.study import API_VERSION, KIND, PLURAL

Resource = dict[str, Any]

FIELD_MANAGER = "hpstudy-operator"
_TIMEOUT = (5.0, 30.0)
"""Seconds to connect and to read. The API server itself gives up on a request after 60 s; one that takes 30 is better
tried again."""
_PATHS = {
    KIND: (f"/apis/{API_VERSION}", PLURAL),
    "Job": ("/apis/batch/v1", "jobs"),
    "Service": ("/api/v1", "services"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Pod": ("/api/v1", "pods"),
    "Secret": ("/api/v1", "secrets"),
    "Event": ("/api/v1", "events"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
}
EXCEEDED = "exceeded quota"
"""What the API server says where a quota has no room."""
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class ApiError(Exception):
    """The API server says no."""

    def __init__(self, call: str, status: int, message: str) -> None:
        super().__init__(f"{call}: {status} {message}")
        self.status = status
        self.message = message


class RefusedError(Exception):
    """The API server does not take an object as it is: its content, a quota, a right or an admission policy."""

    def __init__(self, resource: Resource, status: int, message: str) -> None:
        super().__init__(message)
        self.kind: str = resource["kind"]
        self.name: str = resource["metadata"].get("name", "")
        self.status = status


class UnavailableError(Exception):
    """The API server does not answer, or not now."""


class NotLeadingError(UnavailableError):
    """This replica may not write: it does not hold the Lease, or has not renewed it in time."""


@dataclass(frozen=True)
class Ref:
    """An object that exists, or existed: a deletion never hits a successor of the same name."""

    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def to(cls, resource: Resource, kind: str) -> "Ref":
        """The reference of an object as the API server returned it (objects of a list do not name their kind)."""
        metadata = resource["metadata"]
        return cls(kind, metadata["namespace"], metadata["name"], metadata["uid"])


class Kube:
    """A connection to the API server. Safe for many threads."""

    def __init__(
        self,
        connections: int,
        namespaces: Sequence[str] = (),
        *,
        timeout: tuple[float, float] = _TIMEOUT,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            connections: how many are kept open: one for each thread.
            namespaces: to which the rights are limited; empty when they are for all.
            timeout: seconds to connect and to read.
            may_write: asked before each call that changes something; False makes it a NotLeadingError.
        """
        self.namespaces: tuple[str, ...] | None = tuple(namespaces) or None
        """To which lists are limited; None when they are of all."""
        configuration = kubernetes.client.Configuration()
        config: Any = kubernetes.config  # not typed
        try:  # in the order in which kopf looks, or the two could work on different clusters
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            config.load_kube_config(client_configuration=configuration)
        configuration.connection_pool_maxsize = connections
        self._timeout = timeout
        self._may_write = may_write
        self._client: Any = kubernetes.client.ApiClient(configuration)
        self._client.user_agent = f"{FIELD_MANAGER}/{__version__}"
        # In a pod the token is read again when it is renewed, and the client does not guard that for threads.
        self._authorising = threading.Lock()

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        """The object, or None when there is none."""
        return self._call("GET", _path(kind, namespace, name), missing_ok=True)

    def select(self, kind: str, namespace: str, labels: str) -> list[Resource]:
        """Objects of a namespace by label selector."""
        return _items(self._call("GET", _path(kind, namespace), [("labelSelector", labels)]))

    def list_metadata(self, kind: str, labels: str = "") -> list[Resource]:
        """All objects of a kind that a label selector takes, in all namespaces that we have rights for, of each its
        metadata only."""
        paths = [_path(kind, namespace) for namespace in ((None,) if self.namespaces is None else self.namespaces)]
        query = [("labelSelector", labels)] if labels else None
        return [item for path in paths for item in _items(self._call("GET", path, query, accept=_METADATA_ONLY))]

    def may_list(self, kind: str, namespace: str) -> bool:
        """Whether we have the right to list objects in a namespace; it goes with the namespace."""
        try:
            self._call("GET", _path(kind, namespace), [("limit", "1")], accept=_METADATA_ONLY)
        except ApiError as error:
            if error.status == 403:
                return False
            raise
        return True

    def try_out(self, resource: Resource) -> None:
        """Ask whether the API server would make an object, which is not made. It gets a name of its own.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run

        Raises:
            RefusedError: with the API server's own words. A quota that is used up is none: there may be room by then.
        """
        prefix = resource["metadata"]["generateName"]
        path = _path(resource["kind"], resource["metadata"]["namespace"])
        query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict"), ("dryRun", "All")]
        try:
            self._call("POST", path, query, resource)
        except ApiError as error:
            if error.status in {400, 403, 422} and EXCEEDED not in error.message:
                # Without what is random in it: the same answer must not be news each time.
                words = re.sub(rf"{re.escape(prefix)}[a-z0-9]{{5}}\b", prefix.rstrip("-"), error.message)
                raise RefusedError(resource, error.status, words) from None
            if error.status not in {400, 403, 422}:
                raise

    def create(self, resource: Resource) -> Resource | None:
        """Make an object; None when one of this name exists."""
        path = _path(resource["kind"], resource["metadata"]["namespace"])
        try:
            return self._call("POST", path, [("fieldManager", FIELD_MANAGER)], resource)
        except ApiError as error:
            if error.status == 409:
                return None
            raise

    def replace(self, resource: Resource) -> Resource | None:
        """Replace an object as it was read; None when it has changed since, or is gone."""
        metadata = resource["metadata"]
        path = _path(resource["kind"], metadata["namespace"], metadata["name"])
        try:
            return self._call("PUT", path, [("fieldManager", FIELD_MANAGER)], resource, missing_ok=True)
        except ApiError as error:
            if error.status == 409:
                return None
            raise

    def apply(self, resource: Resource, subresource: str = "") -> None:
        """Server-side apply: what we set becomes ours, what others set stays theirs.

        https://kubernetes.io/docs/reference/using-api/server-side-apply/

        Raises:
            RefusedError: with the API server's own words.
        """
        metadata = resource["metadata"]
        path = _path(resource["kind"], metadata["namespace"], metadata["name"]) + (subresource and f"/{subresource}")
        query = [("fieldManager", FIELD_MANAGER), ("force", "true")]
        try:
            self._call("PATCH", path, query, resource, content_type=_APPLY)
        except ApiError as error:
            # 500 too: a field that the schema does not know, or has another type for, fails in the patch's conversion.
            untyped = error.status == 500 and "failed to create typed patch object" in error.message
            if untyped or error.status in {400, 403, 422}:
                raise RefusedError(resource, error.status, error.message) from None
            raise

    def set_finalizers(self, kind: str, resource: Resource, finalizers: list[str]) -> Resource | None:
        """Set all finalizers of an object; returns it as it is then, None when it has changed since it was read."""
        metadata = resource["metadata"]
        change = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}}
        path = _path(kind, metadata["namespace"], metadata["name"])
        query = [("fieldManager", FIELD_MANAGER)]
        try:
            return self._call("PATCH", path, query, change, content_type=_MERGE, missing_ok=True)
        except ApiError as error:
            if error.status == 409:
                return None
            raise

    def delete(self, ref: Ref) -> None:
        """Delete the object and, in the background, what it owns. No error when it is gone."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": ref.uid},
        }
        try:
            self._call("DELETE", _path(ref.kind, ref.namespace, ref.name), body=body, missing_ok=True)
        except ApiError as error:
            if error.status != 409:  # another object has the name by now
                raise

    def _call(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]] | None = None,
        body: Resource | None = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        missing_ok: bool = False,
    ) -> Resource | None:
        if method != "GET" and not self._may_write():
            raise NotLeadingError(f"{method} {path}: not sent, as this replica does not hold the Lease")
        headers = {"Accept": accept}
        content: Resource | str | None = None
        if body is not None:
            headers["Content-Type"] = content_type
            content = json.dumps(body) if content_type == _APPLY else body  # the client writes JSON itself
        with self._authorising:
            request = self._client.param_serialize(
                method,
                path,
                query_params=query or [],
                header_params=headers,
                body=content,
                auth_settings=["BearerToken"],
            )
        try:
            response = self._client.call_api(*request, _request_timeout=self._timeout)
            data: bytes = response.read()
        except HTTPError as error:
            raise UnavailableError(f"{method} {path}: {error}") from error
        if response.status == 404 and missing_ok:
            return None
        if response.status == 429 or response.status in {502, 503, 504}:
            raise UnavailableError(f"{method} {path}: {response.status} {response.reason}")
        if not 200 <= response.status <= 299:
            raise ApiError(f"{method} {path}", response.status, _message(data, response.reason))
        answer: Resource = json.loads(data)
        return answer


def _items(answer: Resource | None) -> list[Resource]:
    # Null, not an empty list, when there is nothing to list the metadata of.
    items: list[Resource] | None = answer["items"] if answer else None
    return items or []


def _path(kind: str, namespace: str | None, name: str = "") -> str:
    root, plural = _PATHS[kind]
    within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root}{within}/{plural}" + (f"/{quote(name, safe='')}" if name else "")


def _message(data: bytes, otherwise: str) -> str:
    try:
        return str(json.loads(data)["message"])
    except (TypeError, ValueError, KeyError):
        return otherwise
