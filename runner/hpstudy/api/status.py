"""The status of an HPStudy. Its size is bounded, whatever the number of trials."""

from typing import Annotated, Any, Literal

from pydantic import Field

from hpstudy.api.model import ApiModel
from hpstudy.api.success import OnSuccessStatus

MAX_BEST_TRIALS = 10
"""Best trials listed for one objective."""
MAX_FRONT_TRIALS = 50
"""Trials of the Pareto front listed for several; paretoFrontSize tells the true size."""

CONDITION_TYPES = ("Accepted", "StorageReady", "Running", "Suspended", "Stalled", "Succeeded", "Failed")


class Condition(ApiModel):
    """As metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    """Accepted, StorageReady, Running, Suspended, Stalled, Succeeded or Failed."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=1024)]
    """A word for programs."""
    message: Annotated[str, Field(max_length=32768)]
    """A sentence for people; it says what to do."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When the status of the condition last changed."""
    observed_generation: int | None = None
    """Generation of the spec that the condition is about."""


class TrialCounts(ApiModel):
    """Trials by state."""

    total: int = 0
    """All trials ever created."""
    waiting: int = 0
    """Queued to be run, retries among them."""
    running: int = 0
    """In training now."""
    complete: int = 0
    """Ended with values."""
    pruned: int = 0
    """Ended early by the pruner."""
    failed: int = 0
    """Ended without values, and run again no more."""
    preempted: int = 0
    """Ended by the loss of their worker; their hyperparameters run again."""
    retried: int = 0
    """Failed in another way, with retries left; their hyperparameters run again."""


class BestTrial(ApiModel):
    """A finished trial."""

    number: int
    """Number of the trial in the study."""
    values: dict[str, float]
    """Values of the objectives by metric."""
    hyperparameters: dict[str, Any]
    """What the sampler chose."""
    worker: str | None = None
    """Worker group that ran it."""
    duration: float | None = None
    """Seconds from ask to tell."""
    checkpoint: str | None = None
    """Where its model is: a folder for from_pretrained, below the mount of the volume of checkpoints (/checkpoints in
    the worker pods), or its URL."""


class WarmStartCounts(ApiModel):
    """What was taken from the studies of warmStartFrom."""

    trials: int
    """Trials that the sampler learns from."""
    values_left_out: int
    """Hyperparameters of theirs that are out of bounds here; those trials lack them."""
    trials_left_out: int
    """Complete trials without a metric of the constraints, or without any hyperparameter of this study."""


class WorkerCounts(ApiModel):
    """Worker groups."""

    desired: int = 0
    """Groups that should run."""
    ready: int = 0
    """Groups whose pods are all ready."""


class KilledGroup(ApiModel):
    """A worker group some of whose pods were killed (OOMKilled, say)."""

    group: int
    """Its index."""
    trials: int
    """Trials that it has begun."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """Since when it has begun no other, as far as the operator saw."""


class StudyStatus(ApiModel):
    """What the operator saw last."""

    observed_generation: int | None = None
    """Generation of the spec that this status is about."""
    start_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When the first worker group was made."""
    completion_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When the study succeeded or failed."""
    conditions: Annotated[
        list[Condition],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = Field(default_factory=list)
    """Accepted, StorageReady, Running, Suspended, Stalled, Succeeded, Failed."""
    trials: TrialCounts = TrialCounts()
    """Trials by state."""
    last_trial_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When a trial last started or ended, as the operator saw it."""
    progress: str | None = None
    """Trials that count against the budget, of how many (12/20)."""
    objectives: str | None = None
    """What is optimised, in short (maximize eval_f1, minimize model_parameters)."""
    sampler: str | None = None
    """Who proposes the trials; where the study left the choice open, with the reason."""
    best: str | None = None
    """The best value, or how many trials are on the Pareto front."""
    best_trials: list[BestTrial] = Field(default_factory=list)
    """The best trials, best first; with several objectives the Pareto front. Bounded."""
    pareto_front_size: int | None = None
    """Trials on the Pareto front, also where bestTrials lists fewer."""
    hypervolume: float | None = None
    """Volume between the Pareto front and the objectives' references: higher is better. With more than three objectives
    only for fronts that take no long time."""
    warm_start: WarmStartCounts | None = None
    """What was taken from the studies of warmStartFrom."""
    workers: WorkerCounts = WorkerCounts()
    """Worker groups."""
    killed_groups: list[KilledGroup] | None = None
    """Worker groups some of whose pods were killed. Bounded."""
    on_success: OnSuccessStatus | None = None
    """The Job of spec.onSuccess."""
