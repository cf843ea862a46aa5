"""Hyperparameters by name to TrainingArguments and model configuration."""

import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation
from transformers import TrainingArguments

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError

MODEL_PREFIX = "model."
"""A parameter model.FIELD sets a field of the model's configuration."""

_OURS = {
    "output_dir": "each trial has a folder of its own",
    "report_to": "metrics go to the study",
    "disable_tqdm": "the study shows the progress",
}


def split_parameters(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of TrainingArguments, and fields of the model's configuration."""
    arguments = {name: value for name, value in parameters.items() if not name.startswith(MODEL_PREFIX)}
    model = {
        name.removeprefix(MODEL_PREFIX): value for name, value in parameters.items() if name.startswith(MODEL_PREFIX)
    }
    return arguments, model


def check_names(names: Iterable[str], field: str) -> None:
    """Check that each name is a field of TrainingArguments that is free to set.

    Raises:
        InvalidStudyError: it is none, with the nearest one. (Transformers' own search warns and trains on.)
    """
    known = typing.get_type_hints(TrainingArguments)
    for name in names:
        if name in _OURS:
            raise InvalidStudyError(reasons.UNKNOWN_PARAMETER, f"{field}.{name}: cannot be set, {_OURS[name]}")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "see the documentation of TrainingArguments"
            raise InvalidStudyError(
                reasons.UNKNOWN_PARAMETER,
                f"{field}.{name}: neither a field of TrainingArguments nor {MODEL_PREFIX}FIELD; {hint}",
            )


def typed(arguments: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The arguments with the types that TrainingArguments declares.

    Raises:
        InvalidStudyError: a value does not fit.
    """
    hints = typing.get_type_hints(TrainingArguments)
    result = {}
    for name, value in arguments.items():
        try:
            adapter = TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))
            result[name] = adapter.validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]["msg"].lower()
            raise InvalidStudyError(reasons.INVALID_OPTION, f"{field}.{name}: {problem}, got {value!r}") from None
        except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
            result[name] = value
    return result
