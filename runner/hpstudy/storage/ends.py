"""How a worker's pod ended, as the operator saw it: a container that is killed at its memory limit cannot say so, and
its successor finds only a trial that nobody runs."""

from datetime import UTC, datetime, timedelta

import optuna
from optuna.trial import FrozenTrial

from hpstudy.api.model import ApiModel
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure

_RESOLUTION = timedelta(seconds=1)
"""Of Kubernetes' times, which are cut off to whole seconds."""


class PodEnd(ApiModel):
    """The end of a pod of a worker group."""

    uid: str
    """Of the pod."""
    failure: Failure
    """What it means for the trial that the group was running."""
    message: str
    at: datetime
    """With a time zone."""

    def ended(self, trial: FrozenTrial) -> bool:
        """Whether the trial had begun by then; else it is the end of an earlier pod."""
        begun = trial.datetime_start
        return begun is not None and begun.astimezone(UTC) < self.at + _RESOLUTION


def record_end(study: optuna.Study, group: int, end: PodEnd) -> None:
    """Write how the group's latest pod ended, in place of an earlier one."""
    study.set_user_attr(f"{attributes.ENDED_PREFIX}{group}", end.model_dump(mode="json"))


def read_end(study: optuna.Study, group: int) -> PodEnd | None:
    """How the group's latest pod ended, where an operator recorded one."""
    stored = study.user_attrs.get(f"{attributes.ENDED_PREFIX}{group}")
    return None if stored is None else PodEnd.model_validate(stored)
