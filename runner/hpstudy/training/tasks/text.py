"""Text classification and regression: one label for a text, or for a pair of texts."""

from collections.abc import Mapping
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, EvalPrediction, PreTrainedConfig, PreTrainedTokenizerBase

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.metrics import CLASSIFICATION, REGRESSION, compute
from hpstudy.training.splits import Identity, Splits
from hpstudy.training.tasks.base import Encoded, ProcessorSource, Task, classes_of, indices, labels_of
from hpstudy.training.tasks.tokens import TextCollator, inputs_of, limit_length

_TEXT, _PAIR, _LABEL = "text", "textPair", "label"


class _Sequences(Task):
    """What classification and regression share."""

    auto_model = AutoModelForSequenceClassification
    peft_task = "SEQ_CLS"

    def load_processor(self, source: ProcessorSource, train: Dataset) -> PreTrainedTokenizerBase:
        return source.tokenizer(lambda: [text for part in self._texts(train) for text in part])

    def _texts(self, rows: Dataset) -> list[list[str]]:
        """The texts, and what they are paired with where they are."""
        columns = [column for column in (_TEXT, _PAIR) if column in rows.column_names]
        for column in columns:
            if any(not isinstance(text, str) for text in rows[column]):
                raise InvalidStudyError(reasons.INVALID_DATASET, f"dataset: the column for {column} must hold text")
        return [[text.strip() for text in rows[column]] for column in columns]

    def _keys(self, rows: Dataset) -> list[tuple[str, ...] | None]:
        return [texts if texts[0] else None for texts in zip(*self._texts(rows), strict=True)]

    def _tokenise(
        self, rows: Dataset, labels: list[Any], tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
    ) -> Dataset:
        length = limit_length(self._spec, tokenizer, config)
        encoded = tokenizer(*self._texts(rows), truncation=True, max_length=length)
        return Dataset.from_dict({**inputs_of(encoded, config), "labels": labels})


class TextClassification(_Sequences):
    """A class for each text."""

    def identify(self, rows: Dataset) -> Identity:
        labels = labels_of(rows, _LABEL)
        return Identity(self._keys(rows), answers=labels, strata=labels)

    def encode(self, splits: Splits, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> Encoded:
        names = classes_of(splits.train, _LABEL)
        classes = {name: index for index, name in enumerate(names)}

        def encode(rows: Dataset, what: str) -> Dataset:
            return self._tokenise(rows, indices(labels_of(rows, _LABEL), classes, what), tokenizer, config)

        return Encoded(
            encode(splits.train, "the training data"),
            encode(splits.validation, "the validation data"),
            encode(splits.test, "the test data") if splits.test is not None else None,
            TextCollator(tokenizer),
            labels=names,
            fields={"problem_type": "single_label_classification"},
        )

    def compute_metrics(self, prediction: EvalPrediction, data: Any) -> dict[str, float]:
        predicted = prediction.predictions.argmax(axis=-1)
        return compute(CLASSIFICATION, self._spec.metric_names, prediction.label_ids, predicted)


class Regression(_Sequences):
    """A number for each text."""

    unsupported: Mapping[str, str] = {"label_smoothing_factor": "it smooths classes, and regression has none"}

    def identify(self, rows: Dataset) -> Identity:
        return Identity(self._keys(rows), answers=_numbers(rows))

    def encode(self, splits: Splits, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> Encoded:
        def encode(rows: Dataset) -> Dataset:
            return self._tokenise(rows, _numbers(rows), tokenizer, config)

        return Encoded(
            encode(splits.train),
            encode(splits.validation),
            encode(splits.test) if splits.test is not None else None,
            TextCollator(tokenizer, label_type=torch.float32),
            labels=["value"],
            fields={"problem_type": "regression"},
        )

    def compute_metrics(self, prediction: EvalPrediction, data: Any) -> dict[str, float]:
        return compute(
            REGRESSION, self._spec.metric_names, prediction.label_ids.reshape(-1), prediction.predictions.reshape(-1)
        )


def _numbers(rows: Dataset) -> list[float]:
    try:
        numbers = [float(value) for value in rows[_LABEL]]
        if all(map(_is_finite, numbers)):
            return numbers
        complaint = "a number that is not finite"
    except (TypeError, ValueError) as error:
        complaint = str(error)
    raise InvalidStudyError(reasons.INVALID_DATASET, f"dataset: regression needs a number for each label: {complaint}")


def _is_finite(number: float) -> bool:
    return abs(number) != float("inf") and number == number
