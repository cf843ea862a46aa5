"""The pod of a worker: the user's ``workers.template``, with our defaults where it says nothing.

What a study cannot run without (command, storage, the resolved study) is set; everything else is a default.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.names import (
    CHECKPOINTS_FOLDER,
    DEFAULT_GRACE_SECONDS,
    GRACE_VARIABLE,
    REVISION_VARIABLE,
    STORAGE_URL_VARIABLE,
)
from hpstudy.api.workers import SecretKey

CONTAINER = "worker"
STUDY_FOLDER = "/etc/hpstudy"
STUDY_FILE = "study.json"
PORT = 29400  # torchrun's own
_MIG = "nvidia.com/mig-"
_SHARED = "/gpu.shared"
_GPU = re.compile(rf"[^/]+/gpu(\.shared)?|gpu\.intel\.com/(i915|xe)|{re.escape(_MIG)}.+")
"""Resources of device plugins: VENDOR/gpu (nvidia.com, amd.com; .shared where NVIDIA's slices its time), Intel's by
driver, NVIDIA's MIG slices by size."""

_POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
_CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""With ``_POD_SECURITY`` the restricted standard;
https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
_VOLUME_SECURITY = {"fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"}
"""A new volume belongs to root: workers, who are not, write to it as this group, whoever they are. A template that
sets fsGroup, null among others, knows better."""
WORKER_SECURITY = {**_CONTAINER_SECURITY, "readOnlyRootFilesystem": True}


@dataclass(frozen=True)
class WorkerPod:
    """What is the same in every template: where things are, and what the container runs."""

    image: str
    arguments: tuple[str, ...]
    subdomain: str
    config_map: str
    storage: SecretKey
    revision: str = ""
    """Of the spec that the pod is made from."""
    checkpoints: Mapping[str, Any] | None = None
    """Volume for them."""


def worker_container(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """The user's container that runs trials: the one named worker, or the first; empty when there is none.

    Raises:
        InvalidStudyError: the template does not have the shape of a pod template.
    """
    containers = list_of(object_of(template, "spec"), "containers")
    named = [container for container in containers if container.get("name") == CONTAINER]
    return (named or containers or [{}])[0]


def gpus(container: Mapping[str, Any]) -> int:
    """GPUs that a container is limited to (a request without a limit is refused by the API server).

    NVIDIA's MIG slices count as one, however many there are: a CUDA process sees one slice and no other. So do shares
    of a GPU's time: they may all be of one, on which NCCL takes no second rank.
    https://docs.nvidia.com/datacenter/tesla/mig-user-guide/

    Raises:
        InvalidStudyError: a limit is no whole number.
    """
    limits = object_of(object_of(container, "resources"), "limits")
    total = 0
    for name, quantity in limits.items():
        if _GPU.fullmatch(name):
            try:
                count = int(quantity)
            except (TypeError, ValueError):
                raise invalid(f"the limit of {name} must be a whole number, got {quantity!r}") from None
            total += min(count, 1) if name.startswith(_MIG) or name.endswith(_SHARED) else count
    return total


def pod_template(template: Mapping[str, Any], pod: WorkerPod, labels: Mapping[str, str]) -> dict[str, Any]:
    """The complete PodTemplateSpec.

    Raises:
        InvalidStudyError: as :func:`worker_container`.
    """
    user = deepcopy(dict(template))
    metadata = object_of(user, "metadata")
    spec = dict(object_of(user, "spec"))
    worker = worker_container(user)
    # Said to Kubernetes and to the worker, which saves and hands back its trial within it.
    grace = spec.setdefault("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
    others = [harden(container) for container in list_of(spec, "containers") if container is not worker]
    spec |= {
        # Ours first: kubectl logs and exec take the first container when none is named.
        "containers": [_worker(worker, pod, grace), *others],
        "restartPolicy": "Never",  # so that the Job, not the kubelet, decides whether a failed worker is replaced
        "subdomain": pod.subdomain,
    }
    if spec.get("initContainers"):
        spec["initContainers"] = [harden(container) for container in list_of(spec, "initContainers")]
    if spec.get("hostNetwork"):
        spec.setdefault("dnsPolicy", "ClusterFirstWithHostNet")  # the node's own resolver does not know the group
    secure_pod(spec, writes_to_volume=bool(pod.checkpoints))
    _add_volumes(spec, pod)
    result: dict[str, Any] = {"metadata": {"labels": {**object_of(metadata, "labels"), **labels}}, "spec": spec}
    if metadata.get("annotations"):
        result["metadata"]["annotations"] = metadata["annotations"]
    return result


def _worker(user: Mapping[str, Any], pod: WorkerPod, grace: Any) -> dict[str, Any]:
    container = dict(user)
    container.setdefault("name", CONTAINER)
    container.setdefault("image", pod.image)
    # The last lines of the log become the message of a worker that ends without one.
    container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    container["securityContext"] = {**WORKER_SECURITY, **object_of(container, "securityContext")}
    container["command"] = ["hpstudy"]
    container["args"] = list(pod.arguments)
    url = {"secretKeyRef": {"name": pod.storage.name, "key": pod.storage.key}}
    container["env"] = [
        *list_of(container, "env"),
        {"name": STORAGE_URL_VARIABLE, "valueFrom": url},
        {"name": GRACE_VARIABLE, "value": str(grace)},
        # Not an argument: an image with an older runner ignores it.
        *([{"name": REVISION_VARIABLE, "value": pod.revision}] if pod.revision else []),
    ]
    ports = list_of(container, "ports")
    if not any(port.get("containerPort") == PORT for port in ports):
        container["ports"] = [*ports, {"name": "coordinator", "containerPort": PORT}]
    return container


def secure_pod(spec: dict[str, Any], *, writes_to_volume: bool) -> None:
    """Set the pod's part of the restricted standard where the user's spec says nothing.

    Args:
        writes_to_volume: it has a volume of ours that must be writable.
    """
    spec.setdefault("automountServiceAccountToken", False)
    spec.setdefault("enableServiceLinks", False)
    security = {**_POD_SECURITY, **(_VOLUME_SECURITY if writes_to_volume else {})}
    spec["securityContext"] = {**security, **object_of(spec, "securityContext")}


def harden(container: Mapping[str, Any]) -> dict[str, Any]:
    """The container with its part of the restricted standard where the user says nothing."""
    # Not the read-only root file system: a sidecar of someone else's may need to write to it.
    return {**container, "securityContext": {**_CONTAINER_SECURITY, **object_of(container, "securityContext")}}


def _add_volumes(spec: dict[str, Any], pod: WorkerPod) -> None:
    """The study, and the folders that must be writable: /tmp, and /dev/shm, which is 64 MiB in a container while a
    DataLoader's workers pass every batch through it. A user's own mount of the same path takes precedence.

    Shared memory has no sizeLimit: the kubelet then makes it as large as the pod's memory limit, and what is written
    counts against the container's. A smaller one would only add a way to fail (Bus error) before that limit.
    https://kubernetes.io/docs/concepts/storage/volumes/#emptydir
    """
    container = spec["containers"][0]
    mounts = list(list_of(container, "volumeMounts"))
    volumes = list(list_of(spec, "volumes"))
    taken = {mount.get("mountPath") for mount in mounts}
    if pod.checkpoints:
        add_checkpoints(mounts, volumes, pod.checkpoints)
    for name, path, source, read_only in (
        ("hpstudy-study", STUDY_FOLDER, {"configMap": {"name": pod.config_map}}, True),
        ("hpstudy-tmp", "/tmp", {"emptyDir": {}}, False),  # noqa: S108  # the pod's own
        ("hpstudy-shm", "/dev/shm", {"emptyDir": {"medium": "Memory"}}, False),  # noqa: S108
    ):
        if path in taken and path != STUDY_FOLDER:
            continue
        volumes.append({"name": name, **source})
        mounts.append({"name": name, "mountPath": path} | ({"readOnly": True} if read_only else {}))
    spec["volumes"] = volumes
    container["volumeMounts"] = mounts


def add_checkpoints(mounts: list[dict[str, Any]], volumes: list[dict[str, Any]], source: Mapping[str, Any]) -> None:
    """Add the volume of checkpoints to a container's mounts and its pod's volumes.

    Raises:
        InvalidStudyError: the user mounts something else there.
    """
    if any(mount.get("mountPath") == CHECKPOINTS_FOLDER for mount in mounts):
        raise invalid(f"{CHECKPOINTS_FOLDER} is where the volume of checkpoints is mounted; take another mountPath")
    volumes.append({"name": "hpstudy-checkpoints", **source})
    mounts.append({"name": "hpstudy-checkpoints", "mountPath": CHECKPOINTS_FOLDER})


def object_of(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object in the template; empty where there is none.

    Raises:
        InvalidStudyError: it is no object.
    """
    value = parent.get(key) or {}
    if not isinstance(value, dict):
        raise invalid(f"{key} must be an object, got {value!r:.80}")
    return value


def list_of(parent: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of objects in the template; empty where there is none.

    Raises:
        InvalidStudyError: it is no list of objects.
    """
    value = parent.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise invalid(f"{key} must be a list of objects, got {value!r:.80}")
    return value


def invalid(message: str) -> InvalidStudyError:
    """The error that says what is wrong with the template."""
    return InvalidStudyError(reasons.INVALID_TEMPLATE, f"workers.template: {message}")
