"""What follows a study that has succeeded."""

from typing import Annotated, Any, Literal

from pydantic import Field

from hpstudy.api.model import ApiModel, Rule


def _pod_spec(template: dict[str, Any]) -> dict[str, Any]:
    """Of a JobTemplateSpec; empty where that does not have its shape."""
    found: Any = template
    for key in ("spec", "template", "spec"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


class OnSuccess(ApiModel):
    """One Job that is made from the best trial when the study has succeeded: the final training, say. In its texts
    {{ NAME }} stands for a hyperparameter, or for trial.number, trial.value, trial.checkpoint or trial.hyperparameters
    (JSON). Its end is in status.onSuccess and changes nothing about the study's. When the study succeeds again with
    another best trial, the Job is made anew."""

    template: dict[str, Any]
    """JobTemplateSpec, as of a CronJob. The container named worker, or else the first, gets the image of the workers
    where it names none, and the volume of checkpoints at /checkpoints; the pod gets the workers' imagePullSecrets and
    serviceAccountName where it names none. An argument or a variable that names a hyperparameter which the best trial
    does not have is left out. Without spec.ttlSecondsAfterFinished: the Job goes with the study, which has its own."""

    rules = (
        # What a template is made of the schema leaves open, and CEL does not see.
        Rule(
            "onSuccess.template must be the template of a Job, with spec.template.spec.containers",
            lambda s: (
                isinstance(containers := _pod_spec(s.template).get("containers"), list)
                and bool(containers)
                and all(isinstance(container, dict) for container in containers)
            ),
        ),
        Rule(
            "onSuccess.template cannot set spec.ttlSecondsAfterFinished: the Job is the study's and goes with it; set"
            " ttlSecondsAfterFinished of the study",
            lambda s: (
                not isinstance(s.template.get("spec"), dict) or "ttlSecondsAfterFinished" not in s.template["spec"]
            ),
        ),
    )


class OnSuccessStatus(ApiModel):
    """The Job of spec.onSuccess."""

    job: Annotated[str, Field(max_length=253)]
    """Its name."""
    trial: int | None = None
    """Number of the trial whose hyperparameters it got; absent where the study has no best trial."""
    state: Literal["Pending", "Running", "Succeeded", "Failed"]
    """Pending: it is not made yet, or none of its pods is ready."""
    message: Annotated[str, Field(max_length=32768)] | None = None
    """What it waits for, or why it failed."""
    start_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When it was made."""
    waiting_since: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Since when it waits for a first pod to start; absent once one has, and while a queue holds it."""
    completion_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When it succeeded or failed."""
    observed_generation: int
    """Generation of the spec that it was made from."""
