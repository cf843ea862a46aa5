"""python -m benchmarks.bare_search MANIFEST STORAGE_URL: what one would write without HPStudy.

``Trainer.hyperparameter_search(backend="optuna")`` on the data, split, model, tokenizer, search space and sampler of a
study in the ``transformers`` form, with the same defaults and the same evaluations on held-out data.
"""

import sys
from pathlib import Path
from typing import Any

import optuna
import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hpstudy.api.load import read_manifest
from hpstudy.api.tasks import TASKS
from hpstudy.samplers.build import build_pruner, build_sampler
from hpstudy.space.load import load_suggest, read_space
from hpstudy.training.characters import character_tokenizer
from hpstudy.training.sources import Source
from hpstudy.training.splits import read_splits
from hpstudy.training.tasks.text import TextClassification

STUDY_NAME = "bare"


class HeldOut(TrainerCallback):  # type: ignore[misc]  # untyped here
    """Evaluates each best model on the test data, as the study does: the same work on both sides."""

    trainer: Trainer
    test: Dataset

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.best = -1.0

    def on_evaluate(self, *_: Any, metrics: dict[str, float], **__: Any) -> None:
        if metrics["eval_f1"] > self.best:
            self.best = metrics["eval_f1"]
            self.trainer.predict(self.test, metric_key_prefix="test")


def main() -> None:
    manifest, url = Path(sys.argv[1]), sys.argv[2]
    spec = read_manifest(manifest).spec
    form = spec.trial.transformers
    assert form is not None
    assert form.model.config is not None
    task = TextClassification(form)
    splits = read_splits(Source(form.dataset, TASKS[form.task], manifest.parent), form.dataset, task.identify)
    tokenizer = character_tokenizer(splits.train["text"], form.model.config["vocab_size"])
    config = {**form.model.config, "pad_token_id": tokenizer.pad_token_id}
    data = task.encode(splits, tokenizer, AutoConfig.for_model(**config))
    config["num_labels"] = len(data.labels)

    def make_model(_: optuna.Trial | None) -> PreTrainedModel:
        return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**config))

    arguments = TrainingArguments(
        output_dir=str(manifest.parent / "bare"),
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        **form.arguments,
    )
    held_out = HeldOut()
    trainer = Trainer(
        args=arguments,
        model_init=make_model,
        train_dataset=data.train,
        eval_dataset=data.validation,
        processing_class=tokenizer,
        data_collator=data.collate,
        compute_metrics=lambda prediction: task.compute_metrics(prediction, data.validation),
        callbacks=[held_out],
    )
    held_out.trainer, held_out.test = trainer, data.test
    space = read_space(spec)
    trainer.hyperparameter_search(
        hp_space=load_suggest(spec, space),
        compute_objective=lambda metrics: metrics["eval_f1"],
        n_trials=spec.budget.max_trials,
        direction=spec.objectives[0].direction,
        backend="optuna",
        sampler=build_sampler(spec, space),
        pruner=build_pruner(spec),  # Optuna would take the MedianPruner where a study takes none
        storage=url,
        study_name=STUDY_NAME,
    )


if __name__ == "__main__":
    main()
