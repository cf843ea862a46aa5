"""A user's script under torchrun whose Trainer shards: python -m torch.distributed.run ... KIND FOLDER."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from hpstudy import hyperparameter_search
from tests.support.sharding import BACKEND, SHARDINGS, shard_on_cpus

KIND, FOLDER = sys.argv[1], Path(sys.argv[2])
CONFIG = BertConfig(
    vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=2
)


def model_init(trial: Any) -> BertForSequenceClassification:
    if trial is not None and trial.number == 1:
        raise ValueError("no such model")
    return BertForSequenceClassification(CONFIG)


class Seen(TrainerCallback):
    """What trained the model."""

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        names.append(type(trainer.model_wrapped).__name__)


shard_on_cpus()
torch.set_num_threads(1)
names: list[str] = []
tokens = torch.randint(0, 40, (64, 8), generator=torch.Generator().manual_seed(0))
data = Dataset.from_dict({"input_ids": tokens.tolist(), "labels": (tokens[:, 0] > 19).long().tolist()})
arguments = TrainingArguments(
    str(FOLDER / "output"),
    num_train_epochs=2,
    per_device_train_batch_size=8,
    eval_strategy="epoch",
    save_strategy="no",
    report_to=[],
    disable_tqdm=True,
    ddp_backend=BACKEND,
    **SHARDINGS[KIND],
)
trainer = Trainer(model_init=model_init, args=arguments, train_dataset=data, eval_dataset=data, callbacks=[Seen()])
best = hyperparameter_search(
    trainer,
    hp_space=lambda trial: {
        "learning_rate": trial.suggest_categorical("learning_rate", [3e-3]),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [8]),
    },
    n_trials=3,
    storage=f"sqlite:///{FOLDER / 'study.db'}",
    study_name="search",
)
trainer.train()  # as a script does with the best trial
words = {"best": best.objective, "names": names, "again": trainer.evaluate()["eval_loss"]}
(FOLDER / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(words))
