"""FSDP and DeepSpeed in the ``transformers`` form: their options, and models that are made and saved whole."""

import copy
import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError

_WHOLE = "FULL_STATE_DICT"
_GATHER = "stage3_gather_16bit_weights_on_model_save"


def is_sharded(arguments: Mapping[str, Any]) -> bool:
    """Whether the arguments ask for one of them."""
    return bool(arguments.get("fsdp") or arguments.get("deepspeed"))


def with_options(arguments: Mapping[str, Any], folder: Path, *, gpus: bool, saves_models: bool) -> dict[str, Any]:
    """The arguments with the options of FSDP and DeepSpeed that they name by file, fit for a study's trials.

    Args:
        folder: where relative paths start.
        gpus: the worker has some.
        saves_models: the study publishes them.

    Raises:
        InvalidStudyError: they would have no effect, cannot be read, or give no whole models.
    """
    given = copy.deepcopy(dict(arguments))  # TrainingArguments writes into the options of FSDP
    for name, options in (("fsdp", "fsdp_config"), ("deepspeed", "deepspeed")):
        if not given.get(name):
            continue
        if not gpus:
            raise _invalid(name, "the worker has no GPU, and on CPUs accelerate takes no notice of it; remove it")
        if isinstance(given.get(options), str):
            given[options] = _read(options, given[options], folder)
    if given.get("deepspeed"):
        given["deepspeed"] = _for_trials(given["deepspeed"], saves_models=saves_models)
    return given


def _for_trials(options: Mapping[str, Any], *, saves_models: bool) -> dict[str, Any]:
    if importlib.util.find_spec("deepspeed") is None:
        raise _invalid("deepspeed", "the worker's image lacks the package deepspeed")
    zero = options.get("zero_optimization") or {}
    if not saves_models or zero.get("stage") != 3:
        return dict(options)
    if not zero.get(_GATHER, True):
        raise _invalid(
            f"deepspeed.zero_optimization.{_GATHER}",
            "the study publishes whole models, for from_pretrained; remove it, or set checkpoints.keep: none",
        )
    return {**options, "zero_optimization": {**zero, _GATHER: True}}


def _read(name: str, given: str, folder: Path) -> dict[str, Any]:
    """From a file, or from JSON where it begins as such, as TrainingArguments tells them apart."""
    path = folder / given
    is_json = given.startswith("{")
    try:
        options = json.loads(given if is_json else path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _invalid(name, f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise _invalid(name, f"{given if is_json else path} is not JSON: {error}") from None
    if not isinstance(options, dict):
        raise _invalid(name, f"{path} holds no object")
    return options


def _invalid(name: str, problem: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_OPTION, f"arguments.{name}: {problem}")


@contextmanager
def whole_models(arguments: TrainingArguments) -> Iterator[None]:
    """Models made here are whole. Under ZeRO-3 Transformers makes them in parts, which take no state of a whole one and
    count no parameters; DeepSpeed divides a whole one when training begins."""
    config = getattr(arguments, "hf_deepspeed_config", None)
    if config is None:
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(config)


def saves_parts(trainer: Trainer) -> bool:
    """Whether the Trainer's checkpoints hold the model only in parts, one from each rank."""
    return trainer.is_fsdp_enabled and _WHOLE not in str(trainer.accelerator.state.fsdp_plugin.state_dict_type)


def save_whole(trainer: Trainer, folder: Path) -> None:
    """Save the model for from_pretrained, also where checkpoints hold it in parts. All ranks call it."""
    if not saves_parts(trainer):
        trainer.save_model(str(folder), _internal_call=True)
        return
    plugin = trainer.accelerator.state.fsdp_plugin
    kind, config, of_optimizer = plugin.state_dict_type, plugin.state_dict_config, plugin.optim_state_dict_config
    plugin.state_dict_config = plugin.optim_state_dict_config = None
    plugin.set_state_dict_type(_WHOLE)
    try:
        trainer.save_model(str(folder), _internal_call=True)
    finally:
        plugin.state_dict_type, plugin.state_dict_config = kind, config
        plugin.optim_state_dict_config = of_optimizer
