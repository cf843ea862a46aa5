"""What the scripts search_*.py share: reviews, a tokenizer of single characters, a small BERT from scratch, and a
Trainer with ``model_init``, as any script for the Trainer has them."""

import csv
import random
from pathlib import Path
from typing import Any

import numpy
import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

REVIEWS = Path(__file__).parent / "data" / "reviews.csv"
ROWS, HELD_OUT = 2000, 400


def load() -> tuple[Dataset, Dataset, PreTrainedTokenizerFast]:
    """Rows to train on, rows to evaluate on, and the tokenizer."""
    if not REVIEWS.exists():
        raise SystemExit("python examples/fetch_reviews.py first")
    with REVIEWS.open(encoding="utf-8", newline="") as file:
        rows = sorted({(row["text"], row["label"] == "positive") for row in csv.DictReader(file)})
    rows = random.Random(0).sample(rows, ROWS)  # noqa: S311 (no secret)
    characters = sorted({character for text, _ in rows[HELD_OUT:] for character in text})
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 (a token of text)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")  # noqa: S106

    def encode(part: list[tuple[str, bool]]) -> Dataset:
        encoded = fast([text for text, _ in part], truncation=True, max_length=32)
        return Dataset.from_dict({**encoded, "labels": [int(label) for _, label in part]})

    return encode(rows[HELD_OUT:]), encode(rows[:HELD_OUT]), fast


train, evaluation, tokenizer = load()


def model_init(trial: Any) -> BertForSequenceClassification:
    """A fresh model for each trial."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


def compute_metrics(prediction: Any) -> dict[str, float]:
    """The share of reviews that are put into the right class."""
    return {"accuracy": float(numpy.mean(prediction.predictions.argmax(axis=-1) == prediction.label_ids))}


def make_trainer(output_dir: str) -> Trainer:
    """The Trainer, as without a search."""
    arguments = TrainingArguments(
        output_dir=output_dir,
        eval_strategy="epoch",
        save_strategy="no",
        num_train_epochs=2,
        per_device_eval_batch_size=64,
        disable_tqdm=True,
        report_to="none",
        use_cpu=not torch.accelerator.is_available(),  # or processes on CPUs would each train by itself
    )
    return Trainer(
        model_init=model_init,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,
    )
