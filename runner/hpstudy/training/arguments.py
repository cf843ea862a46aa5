"""Hyperparameters by name to TrainingArguments and model configuration."""

import difflib
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation
from transformers import TrainingArguments

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError

MODEL_PREFIX = "model."
"""A parameter model.FIELD sets a field of the model's configuration."""

PEFT_PREFIX = "peft."
"""A parameter peft.FIELD sets a field of the adapter's configuration."""

_OURS = {
    "output_dir": "each trial has a folder of its own",
    "report_to": "metrics go to the study",
    "disable_tqdm": "the study shows the progress",
    "remove_unused_columns": "the task knows which columns the model takes",
    "label_names": "the task knows its labels",
    "include_for_metrics": "metrics are computed from predictions and labels",
    "batch_eval_metrics": "metrics are computed over all batches",
    "eval_do_concat_batches": "metrics are computed over all batches",
    "prediction_loss_only": "the study needs the metrics",
    "push_to_hub": "the study keeps the best trial's checkpoint, see checkpoints",
}

_WIDER = {"fsdp": bool | str | list[str] | None}
"""Types of what TrainingArguments takes, and declares as less."""


def split_parameters(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Fields of TrainingArguments, fields of the model's configuration, and fields of the adapter's."""
    arguments, model, adapter = {}, {}, {}
    for name, value in parameters.items():
        if name.startswith(MODEL_PREFIX):
            model[name.removeprefix(MODEL_PREFIX)] = value
        elif name.startswith(PEFT_PREFIX):
            adapter[name.removeprefix(PEFT_PREFIX)] = value
        else:
            arguments[name] = value
    return arguments, model, adapter


def check_names(names: Iterable[str], field: str, unsupported: Mapping[str, str]) -> None:
    """Check that each name is a field of TrainingArguments that is free to set.

    Args:
        unsupported: fields that the task cannot use, and why.

    Raises:
        InvalidStudyError: it is none, with the nearest one. (Transformers' own search warns and trains on.)
    """
    known = typing.get_type_hints(TrainingArguments)
    what = f"neither a field of TrainingArguments nor {MODEL_PREFIX}FIELD or {PEFT_PREFIX}FIELD"
    check_known(names, known, {**_OURS, **unsupported}, field, what)


def check_known(names: Iterable[str], known: Iterable[str], refused: Mapping[str, str], field: str, what: str) -> None:
    """Check that each name is known and not refused.

    Raises:
        InvalidStudyError: it is not, with the nearest one or the reason.
    """
    known = list(known)
    for name in names:
        if name in refused:
            raise InvalidStudyError(reasons.UNKNOWN_PARAMETER, f"{field}.{name}: cannot be set, {refused[name]}")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "see its documentation"
            raise InvalidStudyError(reasons.UNKNOWN_PARAMETER, f"{field}.{name}: {what}; {hint}")


def typed(arguments: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The arguments with the types that TrainingArguments declares.

    Raises:
        InvalidStudyError: a value does not fit.
    """
    hints = typing.get_type_hints(TrainingArguments) | _WIDER
    result = typed_by(hints, arguments, field)
    for name, value in result.items():
        # Declared as an enumeration or any text, and made the enumeration in the trial.
        kinds = [kind for kind in typing.get_args(hints[name]) if isinstance(kind, type) and issubclass(kind, Enum)]
        if isinstance(value, str) and kinds:
            try:
                kinds[0](value)
            except ValueError as error:
                raise InvalidStudyError(reasons.INVALID_OPTION, f"{field}.{name}: {error}") from None
    return result


def typed_by(hints: Mapping[str, Any], values: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The values with the types of the hints.

    Raises:
        InvalidStudyError: a value does not fit.
    """
    result = {}
    for name, value in values.items():
        try:
            adapter = TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))
            result[name] = adapter.validate_python(value)
        except ValidationError as error:
            # Of a union there is one for each of its types.
            problem = ", or ".join(dict.fromkeys(each["msg"].lower() for each in error.errors()))
            raise InvalidStudyError(reasons.INVALID_OPTION, f"{field}.{name}: {problem}, got {value!r}") from None
        except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
            result[name] = value
    return result
