"""What each task of the ``transformers`` form knows: columns, metrics, and where its data may come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TABLES = ("name", "csv", "json", "parquet")
"""Sources whose rows have columns of any name."""


@dataclass(frozen=True)
class TaskFields:
    """The vocabulary of one task.

    ``columns`` are the columns it reads, with the names they have where ``dataset.columns`` gives no other; those of
    ``optional`` need not be there (and are read only where they are, or where ``dataset.columns`` names them).
    ``settings`` are fields of the dataset that not every task has. ``max_length`` holds where the user gives none and
    the model allows it.
    """

    columns: Mapping[str, str]
    metrics: tuple[str, ...]
    default_metrics: tuple[str, ...]
    optional: frozenset[str] = frozenset()
    sources: tuple[str, ...] = TABLES
    settings: frozenset[str] = field(default=frozenset({"max_length"}))
    max_length: int = 128


_CLASSES = ("accuracy", "f1", "precision", "recall")
_PAIR = {"textPair": "text_pair"}
_LANGUAGE = ("perplexity", "accuracy")

TASKS: Mapping[str, TaskFields] = {
    "text-classification": TaskFields(
        columns={"text": "text", **_PAIR, "label": "label"},
        optional=frozenset(_PAIR),
        metrics=_CLASSES,
        default_metrics=("accuracy", "f1"),
        sources=(*TABLES, "folder"),
    ),
    "regression": TaskFields(
        columns={"text": "text", **_PAIR, "label": "label"},
        optional=frozenset(_PAIR),
        metrics=("mse", "rmse", "mae", "r2", "pearson", "spearman"),
        default_metrics=("rmse", "pearson"),
    ),
    "token-classification": TaskFields(
        columns={"tokens": "tokens", "tags": "ner_tags"},
        metrics=("f1", "precision", "recall", "accuracy"),
        default_metrics=("f1", "accuracy"),
    ),
    "question-answering": TaskFields(
        columns={"question": "question", "context": "context", "answers": "answers", "answerStart": "answer_start"},
        optional=frozenset({"answerStart"}),
        metrics=("exact_match", "f1"),
        default_metrics=("exact_match", "f1"),
        settings=frozenset({"max_length", "stride"}),
        max_length=384,
    ),
    "causal-language-modeling": TaskFields(
        columns={"text": "text"},
        metrics=_LANGUAGE,
        default_metrics=("perplexity",),
        sources=(*TABLES, "text", "folder"),
    ),
    "masked-language-modeling": TaskFields(
        columns={"text": "text"},
        metrics=_LANGUAGE,
        default_metrics=("perplexity",),
        sources=(*TABLES, "text", "folder"),
        settings=frozenset({"max_length", "mlm_probability"}),
    ),
    "image-classification": TaskFields(
        columns={"image": "image", "label": "label"},
        metrics=_CLASSES,
        default_metrics=("accuracy", "f1"),
        sources=(*TABLES, "folder"),
        settings=frozenset(),
    ),
}

SPEED = ("runtime", "samples_per_second", "steps_per_second")
"""What the Trainer measures at each evaluation beside the metrics that it is asked for."""
ALWAYS = ("loss", *SPEED, "epoch", "model_parameters")
"""Metrics that every task has, whatever ``metrics`` says."""
