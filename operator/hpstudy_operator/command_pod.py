"""The pod of a `command` trial: the user's image with nothing of ours, and the worker beside it.

```
initContainers   hpstudy-agent   the runner's image: a shell script and a FIFO into the volume that all share
                 worker          the user's: /bin/sh runs the script, as a sidecar (restartPolicy: Always)
containers       hpstudy         the runner's image: the worker, with the storage's Secret and the study
```
As a sidecar the user's container starts before the worker and is stopped after it, never decides how the pod ends, and
is started again in place when a program takes it along (its memory limit, say); the Job sees the worker's exit codes
alone. https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
"""

from collections.abc import Mapping
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.names import AGENT_SCRIPT, AGENT_VARIABLE
from hpstudy_operator.kube import Resource
from hpstudy_operator.template import CONTAINER, WORKER_SECURITY, gpus, list_of, object_of, worker_container

OWN_CONTAINER = "hpstudy"
"""The worker's container. One of this name in the template is ours with the user's changes: its resources, image or
variables (a backend's API key, say)."""
INSTALLER = "hpstudy-agent"
SHARED_FOLDER = "/hpstudy"
"""In both containers, so that a trial's files have one path."""
OUTPUT_FOLDER = f"{SHARED_FOLDER}/output"
_SHARED = {"name": "hpstudy-shared", "mountPath": SHARED_FOLDER}
_OWN_RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}}
"""What a worker needs that does not train: 0.28 GB during a trial (docs/design.md). The program's container keeps its
own."""
_USER = ("runAsUser", "runAsGroup")


def is_command(study: Resource) -> bool:
    """Whether the study's trials are programs."""
    return "command" in study["spec"]["trial"]


def program_container(study: Resource) -> Mapping[str, Any]:
    """The user's container that trials run in: its GPUs, CPUs and image are theirs. Empty where there is none.

    Raises:
        InvalidStudyError: the template does not have the shape of a pod template.
    """
    template = study["spec"].get("workers", {}).get("template", {})
    return _program_of(template) if is_command(study) else worker_container(template)


def _program_of(template: Mapping[str, Any]) -> Mapping[str, Any]:
    containers = list_of(object_of(template, "spec"), "containers")
    return worker_container(
        {"spec": {"containers": [each for each in containers if each.get("name") != OWN_CONTAINER]}}
    )


def side_by_side(study: Resource) -> int:
    """Programs that run at once in a pod: trialsPerPod, where auto is one for each CPU that the container may use.

    Raises:
        InvalidStudyError: they would have to share GPUs among them, which nobody does for them.
    """
    asked = study["spec"].get("workers", {}).get("trialsPerPod", 1)
    program = program_container(study)
    found = gpus(program)
    count = (1 if found else _cpus(program)) if asked == "auto" else int(asked)
    if count > 1 and found > 1:
        raise InvalidStudyError(
            reasons.INVALID_SPEC,
            f"workers.trialsPerPod: {count} programs in one container would all take the first of its {found} GPUs;"
            " give the container one GPU, and the study more parallelism",
        )
    return count


def agent_template(template: Mapping[str, Any], image: str) -> dict[str, Any]:
    """The user's template with the worker in a container of its own, in front.

    Args:
        image: of the runner.

    Raises:
        InvalidStudyError: the template does not have the shape of a pod template.
    """
    spec = dict(object_of(template, "spec"))
    containers = list_of(spec, "containers")
    own = next((each for each in containers if each.get("name") == OWN_CONTAINER), {"name": OWN_CONTAINER})
    program = _program_of(template)
    others = [each for each in containers if each.get("name") != OWN_CONTAINER and each is not program]
    own = _own(own, program, image)
    spec["containers"] = [own, *others]
    spec["initContainers"] = [_installer(own), *list_of(spec, "initContainers"), _program(program, image)]
    spec["volumes"] = [
        *list_of(spec, "volumes"),
        {"name": _SHARED["name"], "emptyDir": {}},
        {"name": "hpstudy-program-tmp", "emptyDir": {}},
        {"name": "hpstudy-program-shm", "emptyDir": {"medium": "Memory"}},
    ]
    return {**template, "spec": spec}


def _own(user: Mapping[str, Any], program: Mapping[str, Any], image: str) -> dict[str, Any]:
    container = {"image": image, "resources": _OWN_RESOURCES, **user}
    # As the same user, the worker can remove what the program wrote.
    same = {key: value for key, value in object_of(program, "securityContext").items() if key in _USER}
    container["securityContext"] = {**same, **object_of(user, "securityContext")}
    container["env"] = [*list_of(user, "env"), {"name": AGENT_VARIABLE, "value": SHARED_FOLDER}]
    container["volumeMounts"] = [*list_of(user, "volumeMounts"), _SHARED]
    return container


def _installer(own: Mapping[str, Any]) -> dict[str, Any]:
    copied = ("image", "imagePullPolicy")
    return {
        "name": INSTALLER,
        **{key: own[key] for key in copied if key in own},
        "command": ["hpstudy", "agent", SHARED_FOLDER],
        "resources": {"requests": _OWN_RESOURCES["requests"]},
        "securityContext": {**WORKER_SECURITY, **own["securityContext"]},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [_SHARED],
    }


def _program(user: Mapping[str, Any], image: str) -> dict[str, Any]:
    """The user's container, which keeps what it has: image, variables, resources with its GPUs, mounts."""
    container = dict(user)
    container.setdefault("name", CONTAINER)
    container.setdefault("image", image)
    container["restartPolicy"] = "Always"
    container["command"] = ["/bin/sh", f"{SHARED_FOLDER}/{AGENT_SCRIPT}", SHARED_FOLDER]
    container["securityContext"] = {**WORKER_SECURITY, **object_of(container, "securityContext")}
    mounts = list_of(container, "volumeMounts")
    taken = {mount.get("mountPath") for mount in mounts}
    writable = (
        {"name": "hpstudy-program-tmp", "mountPath": "/tmp"},  # noqa: S108  the pod's own
        {"name": "hpstudy-program-shm", "mountPath": "/dev/shm"},  # noqa: S108
    )
    container["volumeMounts"] = [*mounts, _SHARED, *(each for each in writable if each["mountPath"] not in taken)]
    return container


def _cpus(container: Mapping[str, Any]) -> int:
    """Whole CPUs of the container's limits, or else of its requests; at least 1."""
    resources = object_of(container, "resources")
    quantity = str(object_of(resources, "limits").get("cpu") or object_of(resources, "requests").get("cpu") or 1)
    try:
        cpus = float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
    except ValueError:
        return 1  # for the API server to say
    return max(1, int(cpus))
