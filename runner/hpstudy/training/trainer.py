"""The ``transformers`` form: a Hugging Face Trainer run from names alone."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import torch
import transformers
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.api.trials import TransformersTrial
from hpstudy.space.load import read_space
from hpstudy.training.arguments import check_names, split_parameters, typed
from hpstudy.training.callback import StudyCallback
from hpstudy.training.characters import character_tokenizer
from hpstudy.training.dataset import Split, read_text_dataset
from hpstudy.training.metrics import classification_metrics
from hpstudy.training.objective import load_objective
from hpstudy.training.trial import Trial

_DEFAULTS: dict[str, Any] = {
    "eval_strategy": "epoch",
    "save_strategy": "no",
    "logging_strategy": "no",
}
_DEFAULT_VOCABULARY = 2000
TEST_PREFIX = "test"
_RENDEZVOUS_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class TransformersForm:
    """Trains a classifier with the Trainer; data, tokenizer and pretrained weights are loaded once for all trials."""

    def __init__(self, trial: TransformersTrial, spec: StudySpec, folder: Path) -> None:
        self._spec = trial
        self._study = spec
        self._folder = folder

    def prepare(self) -> None:
        """Load and tokenise the data, load the tokenizer and the weights, check every name that can be checked."""
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        check_names(self._spec.arguments, "arguments")
        space = read_space(self._study)
        if space is not None:
            searched, _ = split_parameters(space.distributions)
            check_names(searched, "searchSpace")
        self._arguments = _DEFAULTS | typed(self._spec.arguments, "arguments")

        dataset = read_text_dataset(self._spec.dataset, self._folder)
        self._classes = dataset.classes
        self._tokenizer = self._make_tokenizer(dataset.train)
        self._pretrained = self._load_pretrained()
        self._train, self._validation = self._tokenise(dataset.train), self._tokenise(dataset.validation)
        self._test = self._tokenise(dataset.test) if dataset.test.texts else None
        self._compute_metrics = classification_metrics(self._spec.metrics)
        self._compute_objective = load_objective(self._spec, self._study.objectives)
        self._make_model({}, on_meta=True)  # a configuration that no model takes is found here and not by each trial

    def run(self, trial: Trial) -> Mapping[str, Any]:
        """Train and evaluate; the metrics are those of the evaluation that counts."""
        searched, model_fields = split_parameters(trial.params)
        check_names(searched, "hyperparameters")
        cpu = not torch.cuda.is_available()
        device: dict[str, Any] = {"use_cpu": cpu, "dataloader_pin_memory": not cpu}
        if trial.world_size > 1:
            device |= {"ddp_backend": "gloo" if cpu else "nccl", "ddp_find_unused_parameters": False}
        else:
            # accelerate would make a process group of one, and DDP costs a copy of the gradients at every step.
            for name in _RENDEZVOUS_VARIABLES:
                os.environ.pop(name, None)
        arguments = TrainingArguments(
            output_dir=str(trial.output_dir),
            report_to="none",
            disable_tqdm=True,
            **(device | self._arguments | typed(searched, "hyperparameters")),
        )
        # Before the model is made, and with this trial's own seed (Transformers' search seeds with the previous one's).
        set_seed(arguments.seed)
        callback = StudyCallback(trial, self._compute_objective, last=self._spec.evaluation == "last")
        trainer = Trainer(
            model=self._make_model(model_fields),
            args=arguments,
            train_dataset=self._train,
            eval_dataset=self._validation,
            processing_class=self._tokenizer,
            data_collator=DataCollatorWithPadding(self._tokenizer),
            compute_metrics=self._compute_metrics,
            callbacks=[callback],
        )
        # Classifiers take the count of a batch's items and do not normalise their loss by it; the Trainer, which thinks
        # that they do, multiplies loss and gradients by the number of ranks and of accumulated steps.
        trainer.model_accepts_loss_kwargs = False
        trainer.remove_callback(PrinterCallback)
        callback.attach(trainer, self._test, TEST_PREFIX)
        trainer.train()
        if callback.pruned:
            raise optuna.TrialPruned
        if callback.chosen is None:  # eval_strategy: no
            trainer.evaluate()
        return callback.chosen or {}

    def _make_tokenizer(self, train: Split) -> transformers.PreTrainedTokenizerBase:
        if self._spec.model.config is not None:
            size = self._spec.model.config.get("vocab_size", _DEFAULT_VOCABULARY)
            return character_tokenizer(train.texts, size)
        try:
            return AutoTokenizer.from_pretrained(self._spec.model.name)
        except (OSError, ValueError) as error:
            raise self._invalid_model(error) from None

    def _load_pretrained(self) -> PreTrainedModel | None:
        if self._spec.model.name is None:
            return None
        try:
            return AutoModelForSequenceClassification.from_pretrained(
                self._spec.model.name, num_labels=len(self._classes)
            )
        except (OSError, ValueError) as error:
            raise self._invalid_model(error) from None

    def _tokenise(self, split: Split) -> Dataset:
        encoded = self._tokenizer(split.texts, truncation=True, max_length=self._spec.dataset.max_length)
        columns = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        return Dataset.from_dict({**columns, "labels": split.labels})

    def _make_model(self, fields: Mapping[str, Any], *, on_meta: bool = False) -> PreTrainedModel:
        """A model for one trial: the shared weights, what they lack initialised under the trial's seed."""
        names = dict(enumerate(self._classes))
        labels = {"num_labels": len(names), "id2label": names, "label2id": {v: k for k, v in names.items()}}
        try:
            if self._pretrained is None:
                config = dict(self._spec.model.config or {})
                config.setdefault("vocab_size", len(self._tokenizer))
                config.setdefault("pad_token_id", self._tokenizer.pad_token_id)
                made = AutoConfig.for_model(**{**config, **labels, **fields})
            else:
                made = type(self._pretrained.config).from_dict(
                    {**self._pretrained.config.to_dict(), **labels, **fields}
                )
            with torch.device("meta" if on_meta else "cpu"):
                model = AutoModelForSequenceClassification.from_config(made)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise self._invalid_model(error) from None
        if self._pretrained is not None and not on_meta:
            model.base_model.load_state_dict(self._pretrained.base_model.state_dict())
        return model

    def _invalid_model(self, error: Exception) -> InvalidStudyError:
        text = str(error).strip().partition("\n")[0]
        return InvalidStudyError(reasons.INVALID_MODEL, f"model: {text or type(error).__name__}")
