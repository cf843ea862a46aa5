"""The ``transformers`` form: a Hugging Face Trainer run from names alone."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import datasets
import optuna
import transformers
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import SaveStrategy

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.api.tasks import TASKS
from hpstudy.api.transformers import TransformersTrial
from hpstudy.space.load import read_space
from hpstudy.training.adapters import Adapter
from hpstudy.training.arguments import MODEL_PREFIX, PEFT_PREFIX, check_names, split_parameters, typed
from hpstudy.training.callback import StudyCallback
from hpstudy.training.devices import count_gpus
from hpstudy.training.models import Models
from hpstudy.training.objective import load_objective
from hpstudy.training.sharding import is_sharded, whole_models, with_options
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
_NEEDS_ALL = (
    "a trial that goes on needs its optimizer, schedule and random generators; remove it, or the study's checkpoints"
)


class _Trainer(Trainer):  # type: ignore[misc]  # its decorators have no types
    """Makes no step beyond the last one. Resumed after it Transformers' would: it looks only when it has made one."""

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)
        else:
            self.control.should_training_stop = True


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
        self._gpus = count_gpus()
        self._arguments = self._with_options(_DEFAULTS | typed(self._spec.arguments, "arguments"))
        if self._study.checkpoints is not None and self._arguments.get("save_only_model"):
            raise InvalidStudyError(reasons.INVALID_OPTION, f"arguments.save_only_model: {_NEEDS_ALL}")
        space = read_space(self._study)
        if space is not None:
            self._split_parameters(space.distributions, "searchSpace")
        _check_strategies(self._arguments, space.distributions if space is not None else ())
        self._compute_objective = load_objective(self._spec, self._study.objectives)

        source = Source(self._spec.dataset, TASKS[self._spec.task], self._folder)
        splits = read_splits(source, self._spec.dataset, self._task.identify)
        self._models = Models(self._spec.model, self._task, self._folder, self._adapter)
        self._processor = self._task.load_processor(self._models, splits.train)
        config = self._models.config(self._processor)
        if space is not None:
            types = getattr(space.distributions.get(f"{MODEL_PREFIX}model_type"), "choices", ())
            self._models.check_fields(split_parameters(space.distributions)[1], "searchSpace.model", types)
        self._data = self._task.encode(splits, self._processor, config)
        self._models.load(self._data)

    def run(self, trial: Trial) -> Mapping[str, Any]:
        """Train and evaluate; the metrics are those of the evaluation that counts."""
        searched, model_fields, adapter_fields = self._split_parameters(trial.params, "hyperparameters")
        self._models.check_fields(model_fields, "hyperparameters.model", [model_fields.get("model_type", "")])
        given = self._with_options(self._arguments | typed(searched, "hyperparameters"))
        cpu = given.get("use_cpu") or not self._gpus
        device: dict[str, Any] = {"use_cpu": cpu, "dataloader_pin_memory": not cpu}
        if trial.world_size > 1:
            device |= {"ddp_backend": "gloo" if cpu else "nccl", "ddp_find_unused_parameters": False}
        elif not is_sharded(given):  # these work with a group of one, and with none at all they do not
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
            **(device | given),
        )
        if trial.checkpoints.active and arguments.save_strategy == SaveStrategy.BEST:
            # The study saves at each evaluation; of those that Transformers does not find better it would save none.
            arguments.save_strategy = SaveStrategy.NO
        if trial.world_size == 1:
            arguments._n_gpu = min(arguments.n_gpu, 1)  # or it trains on all that it sees, by DataParallel
        # Before the model is made, and with this trial's own seed (Transformers' search seeds with the previous one's).
        set_seed(arguments.seed)
        callback = StudyCallback(trial, self._compute_objective, last=self._spec.evaluation == "last")
        with whole_models(arguments):
            model = self._models.make(model_fields, adapter_fields)
        trainer: Trainer = _Trainer(
            model=model,
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

    def _with_options(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        checkpoints = self._study.checkpoints
        return with_options(
            arguments,
            self._folder,
            gpus=not arguments.get("use_cpu") and self._gpus > 0,
            saves_models=checkpoints is not None and checkpoints.keep != "none",
        )

    def _split_parameters(
        self, parameters: Mapping[str, Any], field: str
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Parameters by what they set, their names checked.

        Raises:
            InvalidStudyError: one sets nothing.
        """
        arguments, model, adapter = split_parameters(parameters)
        of_checkpoints = {"save_only_model": _NEEDS_ALL} if self._study.checkpoints is not None else {}
        check_names(arguments, field, {**self._task.unsupported, **of_checkpoints})
        if self._adapter is not None:
            self._adapter.check_names(adapter, f"{field}.peft")
        elif adapter:
            names = ", ".join(f"{PEFT_PREFIX}{name}" for name in adapter)
            raise InvalidStudyError(
                reasons.UNKNOWN_PARAMETER, f"{field}.{names}: there is no adapter; set trial.transformers.peft"
            )
        return arguments, model, adapter


def _check_strategies(arguments: Mapping[str, Any], searched: Collection[str]) -> None:
    """Check what Transformers would refuse in every trial, or ignore in every trial.

    Raises:
        InvalidStudyError: an interval of steps without the strategy that goes by steps; or it would save the best model
            by no metric, or load it without having saved it.
    """

    def strategy(name: str) -> str | None:
        """Its value; None where trials have several."""
        return None if name in searched else str(getattr(arguments[name], "value", arguments[name]))

    evaluate, save = strategy("eval_strategy"), strategy("save_strategy")
    for steps, name, value in (("eval_steps", "eval_strategy", evaluate), ("save_steps", "save_strategy", save)):
        if value not in ("steps", None) and (steps in searched or steps in arguments):
            where = "searchSpace" if steps in searched else "arguments"
            problem = f"changes nothing without arguments.{name}: steps, it is {value}"
            raise InvalidStudyError(reasons.INVALID_OPTION, f"{where}.{steps}: {problem}")
    if "load_best_model_at_end" in searched:
        return
    loads = arguments.get("load_best_model_at_end")
    if save == SaveStrategy.BEST and not loads and "metric_for_best_model" not in {*arguments, *searched}:
        raise InvalidStudyError(
            reasons.INVALID_OPTION, "arguments.save_strategy: best of what? Give arguments.metric_for_best_model too"
        )
    if loads and evaluate and save not in (SaveStrategy.BEST, evaluate, None):
        raise InvalidStudyError(
            reasons.INVALID_OPTION,
            f"arguments.load_best_model_at_end: needs save_strategy: {evaluate} (or best), as eval_strategy is; or "
            "leave it out: the best evaluation counts, and checkpoints keep its model",
        )
