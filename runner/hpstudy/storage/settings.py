"""What the operator tells running workers by way of the storage: they have no API token, and read their study once."""

import optuna

from hpstudy.api.model import ApiModel
from hpstudy.api.retries import Retries
from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes


class Settings(ApiModel):
    """Fields of the spec whose change counts at once."""

    retries: Retries
    parallelism: int


def read_settings(study: optuna.Study, spec: StudySpec) -> Settings:
    """What holds now.

    Args:
        spec: as the worker has read it, which counts where no operator looks after the study.
    """
    stored = study.user_attrs.get(attributes.SETTINGS)
    return _of(spec) if stored is None else Settings.model_validate(stored)


def record_settings(study: optuna.Study, spec: StudySpec) -> None:
    """Write what workers should know now, where it changed."""
    wanted = _of(spec).model_dump(by_alias=True)
    if study.user_attrs.get(attributes.SETTINGS) != wanted:
        study.set_user_attr(attributes.SETTINGS, wanted)


def _of(spec: StudySpec) -> Settings:
    return Settings(retries=spec.retries, parallelism=spec.parallelism)
