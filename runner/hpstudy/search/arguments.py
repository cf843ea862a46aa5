"""A trial's TrainingArguments: made anew from the user's own, with the trial's values."""

import copy
import dataclasses
import os
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import TrainingArguments

from hpstudy.training.arguments import check_known, typed_by

_KEPT = "distributed_state"
"""Set when the arguments' device is first asked for."""


def trial_arguments(args: TrainingArguments, values: Mapping[str, Any], output_dir: str) -> TrainingArguments:
    """New arguments of the user's own class. What derives from a field (bf16's precision, the folder of logs) is
    derived again, which setting the field on a copy would not do.

    Args:
        values: fields by name; those that are none are left out.

    Raises:
        InvalidStudyError: a value does not fit its field.
    """
    kind = type(args)
    given = {field.name: copy.deepcopy(getattr(args, field.name)) for field in dataclasses.fields(args) if field.init}
    hints = typing.get_type_hints(kind)
    searched = {name: _whole(value, hints[name]) for name, value in values.items() if name in given}
    given |= typed_by(hints, searched, "hyperparameters")
    given["output_dir"] = output_dir
    made: TrainingArguments = kind(**given)
    for name, value in vars(args).items():  # what the user set beside the fields
        if name not in given and name not in vars(made) and not name.startswith("_") and name != _KEPT:
            setattr(made, name, copy.copy(value))
    return made


def unknown_names(args: TrainingArguments, names: Iterable[str]) -> list[str]:
    """Those that are no fields of the arguments."""
    known = {field.name for field in dataclasses.fields(args) if field.init}
    return [name for name in names if name not in known]


def refuse_unknown(args: TrainingArguments, names: Iterable[str]) -> None:
    """Refuse hyperparameters that nothing takes. (Transformers' own search warns and trains on.)

    Raises:
        InvalidStudyError: there is one, with the nearest field.
    """
    known = [field.name for field in dataclasses.fields(args)]
    what = f"no field of {type(args).__name__}, and model_init did not read it"
    check_known(names, known, {}, "hyperparameters", what)


def run_folder(output_dir: str, name: str) -> str:
    """Folder of a trial's files, as in Transformers."""
    return os.path.join(output_dir, name)  # noqa: PTH118 (a field of type str, which may be a URL's path)


def _whole(value: Any, hint: Any) -> Any:
    """A whole number for a field of such: Ray's default space draws the seed from ``uniform(1, 40)``."""
    members = set(typing.get_args(hint)) or {hint}
    if isinstance(value, float) and int in members and float not in members:
        return int(value)
    return value
