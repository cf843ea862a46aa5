"""Where trials run and are recorded: worker groups and the storage."""

from typing import Annotated, Any, Literal

from pydantic import Field

from hpstudy.api.fields import Name
from hpstudy.api.model import ApiModel


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
    template: dict[str, Any] = Field(default_factory=dict)
    """PodTemplateSpec of the workers. The container named worker, or else the first, runs the trials."""


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
