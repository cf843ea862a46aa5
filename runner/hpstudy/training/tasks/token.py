"""Token classification: a tag for each word (named entities, parts of speech)."""

from typing import Any

import numpy
from datasets import Dataset
from transformers import AutoModelForTokenClassification, EvalPrediction, PreTrainedConfig, PreTrainedTokenizerBase

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.transformers import TransformersTrial
from hpstudy.training.entities import entity_scores, is_tag
from hpstudy.training.splits import Identity, Splits
from hpstudy.training.tasks.base import (
    Encoded,
    Loss,
    ProcessorSource,
    Task,
    indices,
    label_names,
    label_of,
    sort_labels,
)
from hpstudy.training.tasks.tokens import IGNORED, TextCollator, inputs_of, limit_length, token_loss

_TOKENS, _TAGS = "tokens", "tags"


class TokenClassification(Task):
    """A tag for each word; the model gives it at the word's first token, its other tokens count for nothing."""

    auto_model = AutoModelForTokenClassification
    peft_task = "TOKEN_CLS"

    def __init__(self, spec: TransformersTrial) -> None:
        self._spec = spec
        self._names: list[str] = []

    def identify(self, rows: Dataset) -> Identity:
        words, tags = _words(rows), _tags(rows)
        for number, (sentence, labels) in enumerate(zip(words, tags, strict=True)):
            if len(sentence) != len(labels):
                raise InvalidStudyError(
                    reasons.INVALID_DATASET,
                    f"dataset: row {number} has {len(sentence)} tokens and {len(labels)} tags; each needs one",
                )
        return Identity([tuple(row) or None for row in words], answers=[tuple(row) for row in tags])

    def load_processor(self, source: ProcessorSource, train: Dataset) -> PreTrainedTokenizerBase:
        tokenizer = source.tokenizer(lambda: [" ".join(row) for row in _words(train)])
        require_fast(tokenizer, self._spec.task)
        return tokenizer

    def encode(self, splits: Splits, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> Encoded:
        self._names = label_names(splits.train, _TAGS) or sort_labels(
            {tag for row in _tags(splits.train) for tag in row}
        )
        entities = set(self._spec.metric_names) - {"accuracy"}
        odd = [name for name in self._names if not is_tag(name)]
        if entities and odd:
            raise InvalidStudyError(
                reasons.INVALID_DATASET,
                f"trial.transformers.metrics: {', '.join(sorted(entities))} count entities, and {', '.join(odd[:5])} "
                "are no tags of such (B-TYPE, I-TYPE, O); set metrics to [accuracy]",
            )
        classes = {name: index for index, name in enumerate(self._names)}
        length = limit_length(self._spec, tokenizer, config)

        def encode(rows: Dataset, what: str) -> Dataset:
            encoded = tokenizer(_words(rows), is_split_into_words=True, truncation=True, max_length=length)
            labels = []
            for number, tags in enumerate(_tags(rows)):
                values, row, before = indices(tags, classes, what), [], None
                for word in encoded.word_ids(number):
                    row.append(IGNORED if word is None or word == before else values[word])
                    before = word
                labels.append(row)
            return Dataset.from_dict({**inputs_of(encoded, config), "labels": labels})

        return Encoded(
            encode(splits.train, "the training data"),
            encode(splits.validation, "the validation data"),
            encode(splits.test, "the test data") if splits.test is not None else None,
            TextCollator(tokenizer),
            labels=self._names,
        )

    def loss(self, smoothing: float) -> Loss:
        return token_loss(smoothing)

    def preprocess_logits(self, logits: Any, labels: Any) -> Any:
        return super().preprocess_logits(logits, labels).argmax(dim=-1)

    def compute_metrics(self, prediction: EvalPrediction, data: Any) -> dict[str, float]:
        predicted, labels = prediction.predictions, prediction.label_ids
        counted = labels != IGNORED
        known = {"accuracy": float(numpy.mean(predicted[counted] == labels[counted]))}
        if set(self._spec.metric_names) - known.keys():
            named = numpy.array(self._names, dtype=object)
            rows = range(len(labels))
            known |= entity_scores(
                (named[labels[row][counted[row]]] for row in rows),
                (named[predicted[row][counted[row]]] for row in rows),
            )
        return {name: known[name] for name in self._spec.metric_names}


def require_fast(tokenizer: PreTrainedTokenizerBase, task: str) -> None:
    """Refuse tokenizers that do not say where in the text their tokens are."""
    if not tokenizer.is_fast:
        raise InvalidStudyError(
            reasons.INVALID_MODEL,
            f"model: {task} needs a fast tokenizer, and {type(tokenizer).__name__} is none; give model.tokenizer",
        )


def _words(rows: Dataset) -> list[list[str]]:
    return [[str(word) for word in row] for row in _lists(rows, _TOKENS)]


def _tags(rows: Dataset) -> list[list[str]]:
    names = label_names(rows, _TAGS)
    return [[label_of(tag, names, _TAGS) for tag in row] for row in _lists(rows, _TAGS)]


def _lists(rows: Dataset, column: str) -> list[list[Any]]:
    """Lists of words or tags; a string (in a CSV file) is split at white space."""
    found = []
    for number, row in enumerate(rows[column]):
        words = row.split() if isinstance(row, str) else row
        if not isinstance(words, list) or None in words:
            raise InvalidStudyError(
                reasons.INVALID_DATASET, f"dataset: the {column} of row {number} must be a list, got {row!r:.80}"
            )
        found.append(words)
    return found
