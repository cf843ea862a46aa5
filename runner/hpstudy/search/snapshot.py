"""A Trainer as its user made it, to which it is put back before every trial and after the last."""

import inspect
from typing import Any

from transformers import Trainer, TrainerControl, TrainingArguments
from transformers.trainer_utils import TrainerMemoryTracker

from hpstudy.search.contents import Contents

_OF_A_TRIAL = ("model", "model_wrapped", "deepspeed", "optimizer", "lr_scheduler")
_OF_THE_HANDLER = ("model", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader")
_DATA = ("train_dataset", "eval_dataset", "processing_class", "data_collator")


class Snapshot:
    """What a trial may change of a Trainer, of a subclass, of its arguments, its callbacks and its collator.

    The objects stay the same, and so do those that they hold, so that what refers to them does; their contents are put
    back. Data, tokenizer, models and functions are shared. The user's first model goes to the CPU until the search is
    over.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._model = trainer.model
        parameters = trainer.model.parameters() if trainer.model is not None else ()
        self._device = next((parameter.device for parameter in parameters), None)
        _move(self._model, "cpu")
        self._accelerator = vars(trainer).get("accelerator")
        self._callbacks = list(trainer.callback_handler.callbacks)
        self._contents = Contents(left=(trainer, *vars(trainer).values()))
        self._contents.remember(trainer.args, objects=False)
        for callback in self._callbacks:
            self._contents.remember(callback, objects=True)
        collator = trainer.data_collator
        if hasattr(collator, "__dict__") and not inspect.isroutine(collator):
            self._contents.remember(collator, objects=False)  # its generator would go on from trial to trial
        vars(trainer).update(dict.fromkeys(_OF_A_TRIAL))
        self._own = Contents(left=())  # here, its containers are not left alone
        self._own.remember(trainer, objects=False, but=_DATA)

    def restore(self) -> None:
        """Put it back, without a model; what the trial held is let go."""
        trainer = self._trainer
        accelerator = vars(trainer).get("accelerator")
        if accelerator is not None and accelerator is not self._accelerator:
            accelerator.free_memory()
        trainer._memory_tracker.peak_monitoring = False  # else the thread of a trial that failed goes on
        self._own.restore()
        self._contents.restore()
        trainer.control = TrainerControl()
        trainer._memory_tracker = TrainerMemoryTracker(trainer.args.skip_memory_metrics)
        trainer._memory_tracker.init_reported = True  # the user's own saw how the Trainer was made
        handler = trainer.callback_handler
        handler.callbacks = list(self._callbacks)
        for name in _OF_THE_HANDLER:
            setattr(handler, name, None)

    def finish(self) -> None:
        """Put everything back: the user's Trainer is as it was before the search."""
        self.restore()
        trainer = self._trainer
        if self._device is not None:
            _move(self._model, self._device)
        trainer.model = trainer.model_wrapped = trainer.callback_handler.model = self._model
        _prepare_devices(trainer.args)
        trainer.create_accelerator_and_postprocess()


def _prepare_devices(args: TrainingArguments) -> None:
    """Make the state that accelerate keeps for the process, the last trial's until now, that of these arguments. (Where
    it shards, a new one on top of it would not.)"""
    devices = args._n_gpu
    vars(args).pop("_setup_devices", None)
    _ = args.device
    args._n_gpu = devices  # a Trainer of a model that is spread over devices has set it


def _move(model: Any, device: Any) -> None:
    if model is None:
        return
    try:
        model.to(device)
    except (RuntimeError, ValueError, NotImplementedError):  # quantised or on the meta device: it stays where it is
        return
