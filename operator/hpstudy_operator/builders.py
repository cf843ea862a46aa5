"""The objects of a study as they should be: pure functions from the HPStudy to what is applied."""

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from hpstudy import __version__
from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.exits import EXIT_INVALID, EXIT_PREEMPTED
from hpstudy.api.study import API_VERSION, KIND
from hpstudy.api.workers import SecretKey
from hpstudy_operator import command_pod, names
from hpstudy_operator.kube import Resource
from hpstudy_operator.reserved import check_reserved
from hpstudy_operator.template import (
    PORT,
    STUDY_FILE,
    STUDY_FOLDER,
    WorkerPod,
    gpus,
    object_of,
    pod_template,
    worker_container,
)

EXIT_KILLED = 137
"""Exit code of a container that was killed: at its memory limit (OOMKilled), or when its time to stop was over."""
_GPU_OF_A_RANK = ("nvidia.com/gpu", "amd.com/gpu")
"""Resources of which torch sees as many devices as a container is limited to."""
BACKOFF_LIMIT = 10
"""Pods of a group that may be lost to crashes before its Job gives up. The Job's back-off grows from 10 s to six
minutes, so ten take about half an hour: longer than a node needs to come back or an outage to be noticed. A Job counts
for as long as it lives, which may be months; so that one whose pods did not fail in a row is made anew."""


def build_config_map(study: Resource) -> Resource:
    """The study as its workers read it: resolved, and without the template, which is the pod's own."""
    spec = deepcopy(study["spec"])
    workers = spec.setdefault("workers", {})
    workers.pop("template", None)
    if command_pod.is_command(study):
        workers |= {"processesPerNode": 1, "trialsPerPod": command_pod.side_by_side(study)}
    elif workers.get("processesPerNode", "auto") == "auto":
        workers["processesPerNode"] = gpus(command_pod.program_container(study)) or 1
    metadata = {key: study["metadata"][key] for key in ("name", "namespace", "uid")}
    resolved = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
    config_metadata = _metadata(study, names.config_name(metadata["name"]))
    config_metadata["annotations"][names.ANNOTATION_GENERATION] = str(study["metadata"]["generation"])
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": config_metadata,
        "data": {STUDY_FILE: json.dumps(resolved, indent=2, sort_keys=True)},
    }


def build_service(study: Resource, group: int) -> Resource:
    """The headless Service that gives the pods of a group their names (reviews-0-1.reviews-0)."""
    name = study["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(study, names.group_name(name, group), group),
        "spec": {
            "clusterIP": "None",
            # The pods have to find one another before they can be ready.
            "publishNotReadyAddresses": True,
            "selector": names.labels(name, group),
            "ports": [{"name": "coordinator", "port": PORT}],
        },
    }


def build_worker_job(
    study: Resource,
    group: int,
    *,
    image: str,
    storage: SecretKey,
    revision: str = "",
    fingerprint: str = "",
    identity: str = "",
    attempt: int = 0,
) -> Resource:
    """The Indexed Job of a worker group, one pod for each node.

    Args:
        image: for a template that names none.
        storage: the Secret with the URL of the storage.
        revision: of the spec, on which running workers see that it changed.
        fingerprint: of the spec, on which a corrected study is known whose workers have failed.
        identity: of the storage, on which a Secret is known that names another one now.
        attempt: how often the group was started again.

    Raises:
        InvalidStudyError: the template does not have the shape of a pod template.
    """
    metadata = study["metadata"]
    workers = study["spec"].get("workers", {})
    name = names.group_name(metadata["name"], group)
    nodes = workers.get("nodes", 1)
    template = _template(study, image)
    pod = WorkerPod(
        image=image,
        arguments=_arguments(study, name, group),
        subdomain=name,
        config_map=names.config_name(metadata["name"]),
        storage=storage,
        revision=revision,
        checkpoints=study["spec"].get("checkpoints", {}).get("volume"),
    )
    job_metadata = _metadata(study, name, group)
    made = pod_template(template, pod, names.labels(metadata["name"], group))
    labels, annotations = names.queueing(study, nodes, made["spec"].get("schedulerName", ""))
    job_metadata["labels"] |= labels
    job_metadata["annotations"] |= {
        **annotations,
        names.ANNOTATION_REVISION: revision,
        names.ANNOTATION_FINGERPRINT: fingerprint,
        names.ANNOTATION_ATTEMPT: str(attempt),
        **({names.ANNOTATION_STORAGE: identity} if identity else {}),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": job_metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": BACKOFF_LIMIT,
            "podReplacementPolicy": "Failed",  # two pods of one rank would meet in the group's lock
            "podFailurePolicy": {"rules": _failure_rules(worker_container(template))},
            "template": made,
        },
    }


def _template(study: Resource, image: str) -> Mapping[str, Any]:
    template: Mapping[str, Any] = study["spec"].get("workers", {}).get("template", {})
    return command_pod.agent_template(template, image) if command_pod.is_command(study) else template


def _arguments(study: Resource, job: str, group: int) -> tuple[str, ...]:
    output = ("--output", command_pod.OUTPUT_FOLDER) if command_pod.is_command(study) else ()
    # Told, because a command's are in another container than the worker.
    held = gpus(command_pod.program_container(study))
    return (
        "worker",
        "--study",
        f"{STUDY_FOLDER}/{STUDY_FILE}",
        "--group",
        str(group),
        "--coordinator",
        f"{job}-0.{job}:{PORT}",
        *(("--gpus", str(held)) if held else ()),
        *output,
    )


def _failure_rules(container: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was done to a pod costs nothing: an eviction, a deletion, a kill (a trial that needed too much memory counts
    as a failed trial). An invalid study ends the Job at once; everything else counts against the limit."""
    name = container.get("name", "worker")
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "Ignore",
            "onExitCodes": {"containerName": name, "operator": "In", "values": [EXIT_KILLED, EXIT_PREEMPTED]},
        },
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": name, "operator": "In", "values": [EXIT_INVALID]},
        },
    ]


def _metadata(study: Resource, name: str, group: int | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": study["metadata"]["namespace"],
        "labels": names.labels(study["metadata"]["name"], group),
        "annotations": {names.ANNOTATION_VERSION: __version__},
        "ownerReferences": [names.owner(study)],
    }


def build_worker_balloon(study: Resource, *, image: str) -> Resource:
    """The Job of a worker group for the API server to look at and not to make. Of another name, for there may be one
    of its own; a short one, as pods are named after it."""
    job = build_worker_job(study, 0, image=image, storage=SecretKey(name="none"))
    del job["metadata"]["name"]
    return job | {"metadata": job["metadata"] | {"generateName": "hpstudy-"}}


def check_template(study: Resource) -> None:
    """Check what the builders need of ``workers.template``; the rest is for the API server to say.

    Raises:
        InvalidStudyError: it does not have the shape of a pod template, or cannot run what the study asks of it.
    """
    check_reserved(study)
    build_config_map(study)
    build_worker_job(study, 0, image="", storage=SecretKey(name="none"))
    if "gpuHours" in study["spec"].get("budget", {}) and not gpus(command_pod.program_container(study)):
        raise InvalidStudyError(
            reasons.INVALID_SPEC,
            "budget.gpuHours: the worker container of workers.template has no limit of GPUs, so that none would ever be"
            " used up; give it one (nvidia.com/gpu), or leave gpuHours out",
        )
    _check_ranks(study)


def _check_ranks(study: Resource) -> None:
    """As the worker does, once it sees its GPUs; of other limits (a share, a slice) only it knows what they come to.
    Who trains on CPUs takes no GPUs."""
    ranks = study["spec"].get("workers", {}).get("processesPerNode", "auto")
    limits = object_of(object_of(command_pod.program_container(study), "resources"), "limits")
    found = gpus({"resources": {"limits": {name: limits[name] for name in _GPU_OF_A_RANK if name in limits}}})
    if ranks != "auto" and 0 < found < ranks and not command_pod.is_command(study):
        raise InvalidStudyError(
            reasons.INVALID_SPEC,
            f"workers.processesPerNode: {ranks} ranks need a GPU each, and the worker container of workers.template is"
            f" limited to {found}; lower it to {found}, raise the limit, or leave the limit out to train on CPUs",
        )
