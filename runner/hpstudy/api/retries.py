"""How often the parameters of a trial that failed are run again."""

from typing import Annotated

from pydantic import Field

from hpstudy.api.model import ApiModel

Limit = Annotated[int, Field(ge=0, le=100)]


class Retries(ApiModel):
    """How often hyperparameters run again after each class of failure. A trial whose hyperparameters run again costs no
    budget and counts as retried or preempted, not as failed."""

    error: Limit = 0
    """The trial raised, or one of its processes ended by itself."""
    oom: Limit = 0
    """It ran out of the GPU's memory, or its container was killed at its memory limit."""
    metric_missing: Limit = 0
    """It ended without the metric of an objective, or with one that is no finite number."""
    timeout: Limit = 0
    """It took longer than trialTimeout."""
    preempted: Limit = 3
    """Its worker was told to stop: an eviction, a drained node, a scale-down."""
    lost: Limit = 3
    """Its worker, pod or node is gone. Limited, for a trial may take its worker down every time."""
