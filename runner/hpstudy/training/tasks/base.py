"""What a task is to the form that trains it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from datasets import ClassLabel, Dataset
from torch import Tensor
from transformers import EvalPrediction, PreTrainedConfig

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.transformers import TransformersTrial
from hpstudy.training.splits import Identity, Splits

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Encoded:
    """Data as the model takes it.

    Attributes:
        train, validation, test: data sets as the Trainer takes them; ``test`` is None where there is none.
        labels: names of what the model predicts, in the order of its outputs; empty where it has no head of its own.
        collate: a list of rows to a batch.
        fields: further fields of the model's configuration.
    """

    train: Any
    validation: Any
    test: Any | None
    collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]]
    labels: Sequence[str] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """One task of the ``transformers`` form.

    Attributes:
        auto_model: the AutoModel class that makes its models.
        peft_task: the adapter's type of task, by peft's own names.
        has_head: the model has layers for the task on top of the base, which train beside an adapter.
        unsupported: fields of TrainingArguments that its loss has no use for, and why.
    """

    auto_model: Any
    peft_task: str | None = None
    has_head = True
    unsupported: Mapping[str, str] = {}

    def __init__(self, spec: TransformersTrial) -> None:
        self._spec = spec

    @abstractmethod
    def identify(self, rows: Dataset) -> Identity:
        """Which rows are the same, and which belong together.

        Raises:
            InvalidStudyError: a column does not hold what the task needs.
        """

    @abstractmethod
    def load_processor(self, source: "ProcessorSource", train: Dataset) -> Any:
        """The tokenizer or image processor, saved beside each checkpoint."""

    @abstractmethod
    def encode(self, splits: Splits, processor: Any, config: PreTrainedConfig) -> Encoded:
        """Rows as the model takes them.

        Raises:
            InvalidStudyError: labels or texts do not fit the task.
        """

    def loss(self, smoothing: float) -> Loss | None:
        """``compute_loss_func`` of the Trainer. None: the model's own, the mean over the rows of a batch.

        Args:
            smoothing: ``label_smoothing_factor``, which the Trainer leaves to such a function.
        """
        return None

    def preprocess_logits(self, logits: Any, labels: Any) -> Any:
        """On the device, before the ranks gather: what the metrics need of a batch's outputs, and no more. Models may
        return further outputs (hidden states, a cache)."""
        return logits[0] if isinstance(logits, tuple | list) else logits

    @abstractmethod
    def compute_metrics(self, prediction: EvalPrediction, data: Any) -> dict[str, float]:
        """Metrics by name. ``data`` are the rows that were evaluated, in the same order."""


class ProcessorSource(Protocol):
    """Where tokenizers and image processors come from."""

    def tokenizer(self, texts: Callable[[], Sequence[str]]) -> Any:
        """The model's tokenizer, or one made of the texts."""

    def image_processor(self) -> Any:
        """The model's image processor, or a plain one."""


def label_names(rows: Dataset, column: str) -> list[str] | None:
    """Names that the data set itself gives its classes."""
    feature = rows.features[column]
    feature = getattr(feature, "feature", feature)
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def classes_of(rows: Dataset, column: str) -> list[str]:
    """Classes in the order of their indices: the data set's own, else sorted, numbers as numbers."""
    names = label_names(rows, column)
    if names is not None:
        return names
    return sort_labels({str(value) for value in rows[column]})


def sort_labels(labels: set[str]) -> list[str]:
    """Labels in an order that is the same every time, numbers as numbers."""
    try:
        return sorted(labels, key=float)
    except ValueError:
        return sorted(labels)


def label_of(value: Any, names: Sequence[str] | None, column: str) -> str:
    """The name of a class.

    Raises:
        InvalidStudyError: the row has no label (None, an empty field of a CSV, or -1 as the Hub's test splits have); or
            several.
    """
    if value is None or (names is not None and value < 0) or (isinstance(value, str) and not value.strip()):
        raise InvalidStudyError(
            reasons.INVALID_DATASET, f"dataset: a row has no {column}; leave out rows (or the split) without"
        )
    if isinstance(value, list | tuple | dict):
        raise InvalidStudyError(
            reasons.INVALID_DATASET, f"dataset: the {column} of a row is {value!r:.80}, and must be one name or number"
        )
    return names[value] if names is not None else str(value)


def labels_of(rows: Dataset, column: str) -> list[str]:
    """Names of the classes of all rows."""
    names = label_names(rows, column)
    return [label_of(value, names, column) for value in rows[column]]


def indices(labels: Sequence[str], classes: Mapping[str, int], what: str) -> list[int]:
    """Labels as the indices of their classes.

    Raises:
        InvalidStudyError: a label that the training data does not have.
    """
    unknown = sorted(set(labels) - classes.keys())
    if unknown:
        raise InvalidStudyError(
            reasons.INVALID_DATASET,
            f"dataset: {what} has the labels {', '.join(unknown[:10])}, which the training data does not have; "
            f"it has {', '.join(list(classes)[:50])}",
        )
    return [classes[label] for label in labels]
