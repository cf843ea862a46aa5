"""What the operator tells running workers by way of the storage: they have no API token, and read their study once."""

from collections.abc import Mapping
from typing import Any

import optuna

from hpstudy.api.model import ApiModel
from hpstudy.api.retries import Retries
from hpstudy.api.study import Budget, Objective, StudySpec
from hpstudy.storage import attributes


class Settings(ApiModel):
    """Fields of the spec whose change counts at once. Those that the operator did not write, because it is an older
    one, are None: then the spec counts that the worker has read."""

    retries: Retries | None = None
    parallelism: int | None = None
    budget: Budget | None = None
    objectives: list[Objective] | None = None
    """For their goals; nothing else of them changes that workers use."""

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> "Settings":
        """What was recorded; what a newer operator says besides is left out."""
        return cls.model_validate(stored, extra="ignore")

    def over(self, spec: StudySpec) -> StudySpec:
        """The spec as it is now, of a worker that has read this one."""
        return spec.model_copy(update={name: value for name in _LIVE if (value := getattr(self, name)) is not None})


_LIVE = ("retries", "parallelism", "budget", "objectives")


def record_settings(study: optuna.Study, spec: StudySpec) -> None:
    """Write what workers should know now, where it changed."""
    settings = Settings(**{name: getattr(spec, name) for name in _LIVE})
    wanted = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    if study.user_attrs.get(attributes.SETTINGS) != wanted:
        study.set_user_attr(attributes.SETTINGS, wanted)
