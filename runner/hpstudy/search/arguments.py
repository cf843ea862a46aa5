"""A trial's TrainingArguments: made anew from the user's own, with the trial's values."""

import copy
import dataclasses
import inspect
import os
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import IntervalStrategy, TrainingArguments

from hpstudy.training.arguments import typed_by

_OF_DEVICES = ("distributed_state", "_setup_devices")
"""Set when the arguments' device is first asked for."""


def trial_arguments(args: TrainingArguments, values: Mapping[str, Any], output_dir: str) -> TrainingArguments:
    """New arguments of the user's own class. What Transformers derives from a field (bf16's precision, the folder of
    logs) is derived again, which setting the field on a copy would not do. What the user's class does as it is made was
    done once, and stays.

    Args:
        values: fields by name, and attributes that the arguments have beside them; others are left out.

    Raises:
        InvalidStudyError: a value does not fit its field.
    """
    kind = type(args)
    given = {field.name: copy.deepcopy(getattr(args, field.name)) for field in dataclasses.fields(args) if field.init}
    hints = dict.fromkeys(given, Any) | _hints(kind)
    searched = {name: _whole(value, hints[name]) for name, value in values.items() if name in given}
    typed = typed_by(hints, searched, "hyperparameters")
    given |= dict.fromkeys(_derived(args, typed).intersection(given)) | typed
    given["output_dir"] = output_dir
    made: TrainingArguments = object.__new__(kind)
    vars(made).update({field.name: getattr(args, field.name) for field in dataclasses.fields(args)} | given)
    TrainingArguments.__post_init__(made)
    made._n_gpu = args._n_gpu  # the Trainer's word, of a model that is spread over GPUs
    for name, value in vars(args).items():  # what the user, or the user's class, set beside the fields
        if name not in vars(made) and name not in _OF_DEVICES:
            setattr(made, name, copy.copy(value))
    for name, value in values.items():
        if name not in given and _is_attribute(args, name):
            setattr(made, name, _like(getattr(args, name), name, value))
    return made


def _hints(kind: type[TrainingArguments]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except NameError:  # one that is imported for type checkers alone, or is a function's own
        return typing.get_type_hints(TrainingArguments)


def _derived(args: TrainingArguments, searched: Mapping[str, Any]) -> set[str]:
    """Fields that ``TrainingArguments.__post_init__`` derived from others which are searched now. Given as they are
    they would pass for the user's own, and hold up what is searched."""
    compared, by_steps = args.metric_for_best_model, args.eval_strategy == IntervalStrategy.STEPS
    sources = {  # by the field that is derived: from which, and what
        "activation_checkpointing": ("gradient_checkpointing", args.gradient_checkpointing),
        "activation_checkpointing_kwargs": ("gradient_checkpointing_kwargs", args.gradient_checkpointing_kwargs),
        "eval_steps": ("logging_steps", args.logging_steps if by_steps else None),
        "greater_is_better": ("metric_for_best_model", not compared.endswith("loss") if compared else None),
    }
    fields = {
        field
        for field, (source, value) in sources.items()
        if source in searched and getattr(args, field, None) == value
    }
    if searched.get("torch_compile") is False:  # either of them would switch it on again
        fields |= {"torch_compile_backend", "torch_compile_mode"}
    return fields


def unknown_names(args: TrainingArguments, names: Iterable[str]) -> list[str]:
    """Those that are neither fields of the arguments nor attributes beside them."""
    known = {field.name for field in dataclasses.fields(args) if field.init}
    return [name for name in names if name not in known and not _is_attribute(args, name)]


def fields_set(args: TrainingArguments, base: TrainingArguments) -> dict[str, Any]:
    """Fields of arguments that are no longer as they were."""
    fields = (field.name for field in dataclasses.fields(args) if field.init)
    return {name: getattr(args, name) for name in fields if getattr(args, name) is not getattr(base, name)}


def run_folder(output_dir: str, name: str) -> str:
    """Folder of a trial's files, as in Transformers."""
    return os.path.join(output_dir, name)  # noqa: PTH118 (a field of type str, which may be a URL's path)


def _is_attribute(args: TrainingArguments, name: str) -> bool:
    """Whether the user set it on the arguments, or their class has it: no method, no property."""
    if name.startswith("_") or name in _OF_DEVICES:
        return False
    return name in vars(args) or not hasattr(inspect.getattr_static(type(args), name, property), "__get__")


def _like(old: Any, name: str, value: Any) -> Any:
    """A string that stands for a number, as SigOpt's categories do, for an attribute that is one."""
    if isinstance(value, str) and isinstance(old, bool | int | float):
        return typed_by({name: type(old)}, {name: value}, "hyperparameters")[name]
    return value


def _whole(value: Any, hint: Any) -> Any:
    """A whole number for a field of such: Ray's default space draws the seed from ``uniform(1, 40)``."""
    members = set(typing.get_args(hint)) or {hint}
    if isinstance(value, float) and int in members and float not in members:
        return int(value)
    return value
