"""A Trainer as its user made it, to which it is put back before every trial and after the last."""

import copy
from collections import deque
from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl
from transformers.trainer_utils import TrainerMemoryTracker

_OF_A_TRIAL = ("model", "model_wrapped", "deepspeed", "optimizer", "lr_scheduler")
_OF_THE_HANDLER = ("model", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader")


class Snapshot:
    """What a trial may change of a Trainer, of a subclass and of its callbacks.

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

    def finish(self) -> None:
        """Put everything back: the user's Trainer is as it was before the search."""
        self.restore()
        trainer = self._trainer
        if self._device is not None:
            _move(self._model, self._device)
        trainer.model = trainer.model_wrapped = trainer.callback_handler.model = self._model
        trainer.create_accelerator_and_postprocess()  # the state that accelerate keeps was the last trial's

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


def _copied(value: Any) -> Any:
    """Containers anew, with what they hold shared."""
    if type(value) is dict:
        return {key: _copied(each) for key, each in value.items()}
    if type(value) in (list, set, deque):
        return type(value)(map(_copied, value)) if type(value) is not set else set(value)
    return value


def _move(model: Any, device: Any) -> None:
    try:
        model.to(device)
    except (RuntimeError, ValueError, NotImplementedError):  # quantised or on the meta device: it stays where it is
        return
