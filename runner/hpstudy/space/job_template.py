"""The Job of ``onSuccess``: templates in any text of a JobTemplateSpec, filled in from the best trial."""

from collections.abc import Callable, Mapping
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.space.dimensions import SearchSpace
from hpstudy.space.templates import TRIAL_PREFIX, check_text, fill, missing

NUMBER, VALUE, CHECKPOINT, HYPERPARAMETERS = (
    TRIAL_PREFIX + name for name in ("number", "value", "checkpoint", "hyperparameters")
)
_NAMES = (NUMBER, VALUE, CHECKPOINT, HYPERPARAMETERS)
_FIELD = "onSuccess.template"
_LEFT_OUT = object()


def check_job_template(spec: StudySpec, space: SearchSpace | None) -> None:
    """Check every template of ``onSuccess``.

    Args:
        space: None where only the trials know their hyperparameters.

    Raises:
        InvalidStudyError: one is not well-formed, names nothing that the best trial will have, or a checkpoint where
            the study keeps none.
    """
    assert spec.on_success is not None
    keeps = spec.checkpoints is not None and spec.checkpoints.keep != "none"

    def check(field: str, text: str, _: bool) -> str:
        check_text(field, text, space, _NAMES, reasons.INVALID_ON_SUCCESS)
        if not keeps and CHECKPOINT in missing(text, {}):
            raise InvalidStudyError(
                reasons.INVALID_ON_SUCCESS,
                f"{field}: there will be no {CHECKPOINT}: add checkpoints: {{keep: best}} with a volume or url",
            )
        return text

    _each_text(spec.on_success.template, _FIELD, check)


def fill_job_template(template: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The template with the values in place. As in a command, an argument that names what the best trial does not have
    is left out, and so is a variable.

    Raises:
        InvalidStudyError: another text names it.
    """

    def put(field: str, text: str, optional: bool) -> Any:
        filled = fill(text, values)
        if filled is not None:
            return filled
        if optional:
            return _LEFT_OUT
        raise InvalidStudyError(
            reasons.INVALID_ON_SUCCESS,
            f"{field}: the best trial has no {', '.join(missing(text, values))}; only arguments and variables of the"
            " environment may name what a trial may lack",
        )

    filled: dict[str, Any] = _each_text(template, _FIELD, put)
    return filled


def _each_text(value: Any, field: str, change: Callable[[str, str, bool], Any], *, optional: bool = False) -> Any:
    """The value with every text in it changed.

    Args:
        change: gets the field, the text, and whether it may be left out.
        optional: the value may be, an element of a list.
    """
    match value:
        case str():
            return change(field, value, optional)
        case {"name": str(name), "value": str(text), **more} if optional and not more:  # a variable
            made = change(f"{field}.value", text, True)
            return made if made is _LEFT_OUT else {"name": name, "value": made}
        case Mapping():
            return {key: _each_text(each, f"{field}.{key}", change) for key, each in value.items()}
        case list():
            made = [_each_text(each, f"{field}[{i}]", change, optional=True) for i, each in enumerate(value)]
            return [each for each in made if each is not _LEFT_OUT]
    return value
