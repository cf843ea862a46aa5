"""The ``transformers`` form: a Hugging Face Trainer run from names alone."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import optuna
import torch
import transformers
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.api.tasks import TASKS
from hpstudy.api.transformers import TransformersTrial
from hpstudy.space.load import read_space
from hpstudy.training.adapters import Adapter
from hpstudy.training.arguments import PEFT_PREFIX, check_names, check_sharding, split_parameters, typed
from hpstudy.training.callback import StudyCallback
from hpstudy.training.models import Models
from hpstudy.training.objective import load_objective
from hpstudy.training.sources import Source
from hpstudy.training.splits import read_splits
from hpstudy.training.tasks.make import make_task
from hpstudy.training.trial import Trial

_DEFAULTS: dict[str, Any] = {
    "eval_strategy": "epoch",
    "save_strategy": "no",
    "logging_strategy": "no",
}
TEST_PREFIX = "test"
_RENDEZVOUS_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class TransformersForm:
    """Runs the Trainer; data, tokenizer and pretrained weights are loaded once for all trials."""

    def __init__(self, trial: TransformersTrial, spec: StudySpec, folder: Path) -> None:
        self._spec = trial
        self._study = spec
        self._folder = folder

    def prepare(self) -> None:
        """Load and encode the data, load the tokenizer and the weights, check every name that can be checked."""
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        datasets.disable_progress_bars()  # they start a thread
        self._task = make_task(self._spec)
        self._adapter = Adapter(self._spec.peft, self._task) if self._spec.peft is not None else None
        check_names(self._spec.arguments, "arguments", self._task.unsupported)
        self._arguments = _DEFAULTS | typed(self._spec.arguments, "arguments")
        check_sharding(self._arguments, gpus=torch.cuda.is_available())
        space = read_space(self._study)
        if space is not None:
            self._split_parameters(space.distributions, "searchSpace")
        self._compute_objective = load_objective(self._spec, self._study.objectives)

        source = Source(self._spec.dataset, TASKS[self._spec.task], self._folder)
        splits = read_splits(source, self._spec.dataset, self._task.identify)
        self._models = Models(self._spec.model, self._task, self._folder, self._adapter)
        self._processor = self._task.load_processor(self._models, splits.train)
        self._data = self._task.encode(splits, self._processor, self._models.config(self._processor))
        self._models.load(self._data)

    def run(self, trial: Trial) -> Mapping[str, Any]:
        """Train and evaluate; the metrics are those of the evaluation that counts."""
        searched, model_fields, adapter_fields = self._split_parameters(trial.params, "hyperparameters")
        cpu = not torch.cuda.is_available()
        device: dict[str, Any] = {"use_cpu": cpu, "dataloader_pin_memory": not cpu}
        if trial.world_size > 1:
            device |= {"ddp_backend": "gloo" if cpu else "nccl", "ddp_find_unused_parameters": False}
        else:
            # accelerate would make a process group of one, and DDP costs a copy of the gradients at every step.
            for name in _RENDEZVOUS_VARIABLES:
                os.environ.pop(name, None)
        if trial.checkpoints.active:
            device["save_total_limit"] = 1  # of the node's own; what is published is another matter
        arguments = TrainingArguments(
            output_dir=str(trial.output_dir),
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,  # the collators take what the model does
            **(device | self._arguments | typed(searched, "hyperparameters")),
        )
        # Before the model is made, and with this trial's own seed (Transformers' search seeds with the previous one's).
        set_seed(arguments.seed)
        callback = StudyCallback(trial, self._compute_objective, last=self._spec.evaluation == "last")
        trainer: Trainer = Trainer(
            model=self._models.make(model_fields, adapter_fields),
            args=arguments,
            train_dataset=self._data.train,
            eval_dataset=self._data.validation,
            processing_class=self._processor,
            data_collator=self._data.collate,
            compute_loss_func=self._task.loss(arguments.label_smoothing_factor),
            # The task's metrics may need more of the evaluated rows than the model takes.
            compute_metrics=lambda prediction: self._task.compute_metrics(
                prediction, trainer.callback_handler.eval_dataloader.dataset
            ),
            preprocess_logits_for_metrics=self._task.preprocess_logits,
            callbacks=[callback],
        )
        # Classifiers take the count of a batch's items and do not normalise their loss by it; the Trainer, which thinks
        # that they do, multiplies loss and gradients by the number of ranks and of accumulated steps.
        trainer.model_accepts_loss_kwargs = False
        trainer.remove_callback(PrinterCallback)
        callback.attach(trainer, self._data.test, TEST_PREFIX)
        trainer.train(resume_from_checkpoint=callback.resumes_from)
        if callback.pruned:
            raise optuna.TrialPruned
        if callback.chosen is None:  # eval_strategy: no
            callback.evaluate_at_the_end()
        return callback.chosen or {}

    def _split_parameters(
        self, parameters: Mapping[str, Any], field: str
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Parameters by what they set, their names checked.

        Raises:
            InvalidStudyError: one sets nothing.
        """
        arguments, model, adapter = split_parameters(parameters)
        check_names(arguments, field, self._task.unsupported)
        if self._adapter is not None:
            self._adapter.check_names(adapter, f"{field}.peft")
        elif adapter:
            names = ", ".join(f"{PEFT_PREFIX}{name}" for name in adapter)
            raise InvalidStudyError(
                reasons.UNKNOWN_PARAMETER, f"{field}.{names}: there is no adapter; set trial.transformers.peft"
            )
        return arguments, model, adapter
