"""What a pod template may not say because HPStudy says it: refused in words, never dropped in silence."""

from collections.abc import Mapping
from typing import Any

from hpstudy.api.names import AGENT_VARIABLE, GRACE_VARIABLE, REVISION_VARIABLE, STORAGE_URL_VARIABLE
from hpstudy_operator import command_pod, names
from hpstudy_operator.kube import Resource
from hpstudy_operator.template import invalid, list_of, object_of

_VARIABLES = {
    STORAGE_URL_VARIABLE: "a study's own storage is spec.storage.secretRef",
    GRACE_VARIABLE: "set terminationGracePeriodSeconds of the pod",
    AGENT_VARIABLE: "the operator sets it",
    REVISION_VARIABLE: "the operator sets it",
}


def check_reserved(study: Resource) -> None:
    """Check ``workers.template`` as the user wrote it.

    Raises:
        InvalidStudyError: naming the field and what to do instead.
    """
    template: Mapping[str, Any] = study["spec"].get("workers", {}).get("template", {})
    own = names.labels(study["metadata"]["name"], 0)
    for label in object_of(object_of(template, "metadata"), "labels"):
        if label in own:
            raise invalid(f"metadata.labels: remove {label}; the operator finds the pods by it")
    spec = object_of(template, "spec")
    if spec.get("restartPolicy", "Never") != "Never":
        raise invalid(
            f"restartPolicy {spec['restartPolicy']!r}: remove it; the Job, not the kubelet, replaces a worker that"
            " failed"
        )
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            raise invalid(f"{field}: remove it; the pods find one another by names that the operator gives")
    for container in _run_by_us(study, template):
        _check_container(container)


def _run_by_us(study: Resource, template: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Containers of the user's whose command is ours."""
    program = command_pod.program_container(study)
    if not command_pod.is_command(study):
        return [program]
    containers = list_of(object_of(template, "spec"), "containers")
    return [*(each for each in containers if each.get("name") == command_pod.OWN_CONTAINER), program]


def _check_container(container: Mapping[str, Any]) -> None:
    name = container.get("name", "worker")
    for field in ("command", "args"):
        if container.get(field):
            raise invalid(
                f"{field} of container {name!r}: remove it; this container runs the trials, and spec.trial says what"
                " they are (trial.command, if a program). Containers of other names keep their commands"
            )
    for variable in list_of(container, "env"):
        if advice := _VARIABLES.get(variable.get("name", "")):
            raise invalid(f"{variable['name']} of container {name!r}: remove it; {advice}")
