"""Where trials run and are recorded: worker groups and the storage."""

from typing import Annotated, Any, Literal

from pydantic import Field

from hpstudy.api.fields import Name
from hpstudy.api.model import ApiModel, Rule

MAX_TRIALS_PER_POD = 64

ONE_TRIAL = "!has(self.trialsPerPod) || (type(self.trialsPerPod) == int && int(self.trialsPerPod) == 1)"
"""In CEL, of workers: a pod trains one trial at a time."""


class Workers(ApiModel):
    """The shape of a worker group."""

    nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    """Pods of a group."""
    processes_per_node: Annotated[int, Field(ge=1, le=128)] | Literal["auto"] = "auto"
    """Ranks in each pod; auto is one for each GPU of the pod's limits, or 1."""
    isolation: Literal["process", "inline"] = "process"
    """process: each trial has processes of its own, which end with it. inline: the ranks live for many trials, which
    saves their start; for short trials. What a trial leaves behind (garbage, seeds, the process group, environment
    variables) is put back before the next."""
    trials_per_pod: Annotated[int, Field(ge=1, le=MAX_TRIALS_PER_POD)] | Literal["auto"] = 1
    """Trials side by side in a group of one pod, which share its CPUs and GPUs. auto: one for each rank's CPU; with
    GPUs one for each, and when the first has told how much of a GPU's memory it took, as many as fit."""
    template: dict[str, Any] = Field(default_factory=dict)
    """PodTemplateSpec of the workers. The container named worker, or else the first, runs the trials."""

    rules = (
        Rule(
            "trialsPerPod other than 1 needs nodes: 1 (a group of several pods trains one trial at a time)",
            lambda w: w.trials_per_pod == 1 or w.nodes == 1,
            f"{ONE_TRIAL} || !has(self.nodes) || self.nodes == 1",
        ),
        Rule(
            "trialsPerPod other than 1 needs isolation: process (inline ranks run one trial after another)",
            lambda w: w.trials_per_pod == 1 or w.isolation == "process",
            f"{ONE_TRIAL} || !has(self.isolation) || self.isolation == 'process'",
        ),
    )


class SecretKey(ApiModel):
    """A key of a Secret in the study's namespace."""

    name: Name
    """Name of the Secret."""
    key: Name = "url"
    """Key in it."""


class Storage(ApiModel):
    """Where trials are recorded."""

    secret_ref: SecretKey
    """A Secret with the URL of an Optuna RDB storage (postgresql://user:password@host/database)."""
