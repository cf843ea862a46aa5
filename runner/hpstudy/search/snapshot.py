"""A Trainer as its user made it, to which it is put back before every trial and after the last."""

import copy
import inspect
import random
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer_utils import TrainerMemoryTracker

_OF_A_TRIAL = ("model", "model_wrapped", "deepspeed", "optimizer", "lr_scheduler")
_OF_THE_HANDLER = ("model", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader")


class Snapshot:
    """What a trial may change of a Trainer, of a subclass, of its callbacks and of its collator.

    The objects stay the same, so that what refers to them does; their attributes are put back. Containers are copied,
    as trials write into them. Data, tokenizer and functions are shared. The user's first model goes to the CPU until
    the search is over.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._model = trainer.model
        self._device = next((parameter.device for parameter in trainer.model.parameters()), None)
        _move(self._model, "cpu")
        self._shared = {id(value): value for value in (trainer, *vars(trainer).values())}
        self._attributes = {name: _copied(value) for name, value in vars(trainer).items() if name not in _OF_A_TRIAL}
        self._callbacks = list(trainer.callback_handler.callbacks)
        self._states = [self._state_of(callback) for callback in self._callbacks]
        collator = trainer.data_collator
        self._collator = None if inspect.isroutine(collator) else getattr(collator, "__dict__", None)
        self._collator = _copied(self._collator)
        self._rewinds = [rewind for value in (self._collator or {}).values() if (rewind := _rewind(value)) is not None]

    def restore(self) -> None:
        """Put it back, without a model; what the trial held is let go."""
        trainer = self._trainer
        accelerator = vars(trainer).get("accelerator")
        if accelerator is not None and accelerator is not self._attributes.get("accelerator"):
            accelerator.free_memory()
        fresh = {name: _copied(value) for name, value in self._attributes.items()}
        vars(trainer).clear()
        vars(trainer).update(fresh, **dict.fromkeys(_OF_A_TRIAL))
        trainer.control = TrainerControl()
        trainer._memory_tracker = TrainerMemoryTracker(trainer.args.skip_memory_metrics)
        handler = trainer.callback_handler
        handler.callbacks = list(self._callbacks)
        for name in _OF_THE_HANDLER:
            setattr(handler, name, None)
        for callback, state in zip(self._callbacks, self._states, strict=True):
            vars(callback).clear()
            vars(callback).update(self._deep(state))
        if self._collator is not None:  # its generator would go on from trial to trial
            vars(trainer.data_collator).clear()
            vars(trainer.data_collator).update(_copied(self._collator))
        for rewind in self._rewinds:
            rewind()

    def finish(self) -> None:
        """Put everything back: the user's Trainer is as it was before the search."""
        self.restore()
        trainer = self._trainer
        if self._device is not None:
            _move(self._model, self._device)
        trainer.model = trainer.model_wrapped = trainer.callback_handler.model = self._model
        _prepare_devices(trainer.args)
        trainer.create_accelerator_and_postprocess()

    def _state_of(self, callback: TrainerCallback) -> dict[str, Any]:
        return self._deep(vars(callback))

    def _deep(self, state: Mapping[str, Any]) -> dict[str, Any]:
        copied = {}
        for name, value in state.items():
            try:
                copied[name] = copy.deepcopy(value, dict(self._shared))
            except Exception:  # a module, a lock, an open file: shared, as nothing else can be done with it
                copied[name] = _copied(value)
        return copied


def _rewind(value: Any) -> Callable[[], Any] | None:
    """What brings a random generator back to where it is now; None for anything else."""
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, numpy.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    if isinstance(value, numpy.random.RandomState):
        return partial(value.set_state, value.get_state())
    return partial(value.setstate, value.getstate()) if isinstance(value, random.Random) else None


def _copied(value: Any) -> Any:
    """Containers anew, with what they hold shared."""
    if type(value) is dict:
        return {key: _copied(each) for key, each in value.items()}
    if type(value) in (list, set, deque):
        return type(value)(map(_copied, value)) if type(value) is not set else set(value)
    return value


def _prepare_devices(args: TrainingArguments) -> None:
    """Make the state that accelerate keeps for the process, the last trial's until now, that of these arguments. (Where
    it shards, a new one on top of it would not.)"""
    devices = args._n_gpu
    vars(args).pop("_setup_devices", None)
    _ = args.device
    args._n_gpu = devices  # a Trainer of a model that is spread over devices has set it


def _move(model: Any, device: Any) -> None:
    try:
        model.to(device)
    except (RuntimeError, ValueError, NotImplementedError):  # quantised or on the meta device: it stays where it is
        return
