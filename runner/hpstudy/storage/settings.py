"""What the operator tells running workers by way of the storage: they have no API token, and read their study once."""

from collections.abc import Mapping
from typing import Any

import optuna

from hpstudy.api.model import ApiModel
from hpstudy.api.retries import Retries
from hpstudy.api.revision import LIVE, revision
from hpstudy.api.study import Budget, Objective, StudySpec
from hpstudy.storage import attributes


class Settings(ApiModel):
    """What holds now of the spec. What the operator did not write, because it is an older one, is None: then the spec
    counts that the worker has read."""

    retries: Retries | None = None
    parallelism: int | None = None
    budget: Budget | None = None
    objectives: list[Objective] | None = None
    """For their goals; nothing else of them changes that workers use."""
    suspend: bool | None = None
    revision: str | None = None
    """Of what worker groups are made from now: those of another one start again after their trial."""

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> "Settings":
        """What was recorded; what a newer operator says besides is left out."""
        return cls.model_validate(stored, extra="ignore")

    def over(self, spec: StudySpec) -> StudySpec:
        """The spec as it is now, of a worker that has read this one."""
        return spec.model_copy(update={name: value for name in LIVE if (value := getattr(self, name)) is not None})

    def unwanted(self, group: int, revision: str) -> str | None:
        """Why the study has no more trials for a worker group, where that is so.

        Args:
            group: its index.
            revision: of what it was made from; empty: nobody knows.
        """
        if self.suspend:
            return "the study is suspended"
        if self.parallelism is not None and group >= self.parallelism:
            return "the study has fewer worker groups now"
        if revision and self.revision and self.revision != revision:
            return "the study has changed: the group starts again"
        return None


def record_settings(study: optuna.Study, spec: StudySpec) -> None:
    """Write what workers should know now, where it changed."""
    settings = Settings(**{name: getattr(spec, name) for name in LIVE}, revision=revision(spec))
    wanted = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    if study.user_attrs.get(attributes.SETTINGS) != wanted:
        study.set_user_attr(attributes.SETTINGS, wanted)
