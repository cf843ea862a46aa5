"""The Job of ``spec.onSuccess``: the user's template with the best trial filled in, and our defaults."""

from collections.abc import Mapping
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.names import LABEL_FINAL, LABEL_GROUP, LABEL_STUDY
from hpstudy.space.job_template import fill_job_template
from hpstudy_operator import names
from hpstudy_operator.command_pod import program_container
from hpstudy_operator.kube import Resource
from hpstudy_operator.template import (
    CONTAINER,
    add_checkpoints,
    harden,
    list_of,
    object_of,
    secure_pod,
    worker_container,
)

_SHM = {"name": "hpstudy-shm", "mountPath": "/dev/shm"}  # noqa: S108  the pod's own
_ACCOUNT = ("serviceAccountName", "serviceAccount")  # one field by two names
ANY_TEXT = "0"
"""In place of a value that is not known yet: a number, a quantity, a name, a label and a path."""


def build_final_job(study: Resource, values: Mapping[str, str], *, image: str) -> Resource:
    """The Job of a study that has succeeded.

    Args:
        values: of the best trial, by what a template names.
        image: for workers that name none.

    Raises:
        InvalidStudyError: the template does not have the shape of one, or names what the best trial does not have.
    """
    template = fill_job_template(study["spec"]["onSuccess"]["template"], values)
    try:
        return _build(study, template, image)
    except InvalidStudyError as error:  # what reads pod templates reads those of workers elsewhere
        message = error.message.replace("workers.template", "onSuccess.template")
        raise InvalidStudyError(reasons.INVALID_ON_SUCCESS, message) from None


def build_trial_balloon(study: Resource) -> Resource:
    """The Job as it may once be, with any values, for the API server to look at and not to make.

    Raises:
        InvalidStudyError: see :func:`build_final_job`.
    """
    job = build_final_job(study, _AnyText(), image=ANY_TEXT)
    del job["metadata"]["name"]
    return job | {"metadata": job["metadata"] | {"generateName": f"{names.final_name(study['metadata']['name'])}-"}}


class _AnyText(dict[str, str]):
    """Has a value for every name."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return ANY_TEXT


def _build(study: Resource, template: Mapping[str, Any], image: str) -> Resource:
    name, namespace = study["metadata"]["name"], study["metadata"]["namespace"]
    user = object_of(template, "metadata")
    spec = dict(object_of(template, "spec"))
    labels, annotations = names.queueing(study, 1, "")
    annotations.pop(names.MIN_MEMBER, None)  # of a worker group; this Job's is the template's to say
    spec["template"] = _pod(study, object_of(spec, "template"), image)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.final_name(name),
            "namespace": namespace,
            "labels": {**labels, **object_of(user, "labels"), **names.labels(name), LABEL_FINAL: name},
            "annotations": {
                **annotations,
                **object_of(user, "annotations"),
                names.ANNOTATION_GENERATION: str(study["metadata"]["generation"]),
            },
            "ownerReferences": [names.owner(study)],
        },
        "spec": spec,
    }


def _pod(study: Resource, template: Mapping[str, Any], image: str) -> dict[str, Any]:
    metadata = object_of(template, "metadata")
    spec = dict(object_of(template, "spec"))
    workers = object_of(study["spec"].get("workers", {}).get("template", {}), "spec")
    main = worker_container(template)
    container = {"name": CONTAINER, "image": program_container(study).get("image", image), **main}
    # The last lines of its log are the status' message when it fails.
    container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    containers = [container if each is main else dict(each) for each in list_of(spec, "containers")]
    spec["containers"] = [harden(each) for each in containers]
    if spec.get("initContainers"):
        spec["initContainers"] = [harden(each) for each in list_of(spec, "initContainers")]
    spec.setdefault("restartPolicy", "Never")
    # What their image is pulled with, and what their volumes may be opened to.
    for fields in (("imagePullSecrets",), _ACCOUNT):
        if not any(field in spec for field in fields):
            spec |= {field: workers[field] for field in fields if field in workers}
    checkpoints = study["spec"].get("checkpoints", {}).get("volume")
    secure_pod(spec, writes_to_volume=checkpoints is not None)
    place = containers.index(container)
    mounts, volumes = list(list_of(container, "volumeMounts")), list(list_of(spec, "volumes"))
    if checkpoints is not None:
        add_checkpoints(mounts, volumes, checkpoints)
    if not any(mount.get("mountPath") == _SHM["mountPath"] for mount in mounts):
        # 64 MiB in a container, while a DataLoader's workers pass every batch through it.
        mounts.append(dict(_SHM))
        volumes.append({"name": _SHM["name"], "emptyDir": {"medium": "Memory"}})
    spec["containers"][place]["volumeMounts"], spec["volumes"] = mounts, volumes
    # Not the study's labels, by which its workers are known.
    kept = {k: v for k, v in object_of(metadata, "labels").items() if k not in {LABEL_STUDY, LABEL_GROUP}}
    labels = {**kept, LABEL_FINAL: study["metadata"]["name"]}
    return {**template, "metadata": {**metadata, "labels": labels}, "spec": spec}
