"""Metrics of classification by name."""

from collections.abc import Callable, Iterable
from typing import Any

from sklearn import metrics
from transformers import EvalPrediction

# Macro averages: a classifier that puts everything into one class scores low, as it should.
_METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": metrics.accuracy_score,
    "f1": lambda labels, predicted: metrics.f1_score(labels, predicted, average="macro", zero_division=0),
    "precision": lambda labels, predicted: metrics.precision_score(labels, predicted, average="macro", zero_division=0),
    "recall": lambda labels, predicted: metrics.recall_score(labels, predicted, average="macro", zero_division=0),
}


def classification_metrics(names: Iterable[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """A ``compute_metrics`` for the Trainer."""
    chosen = {name: _METRICS[name] for name in names}

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        predicted = prediction.predictions.argmax(axis=-1)
        return {name: float(metric(prediction.label_ids, predicted)) for name, metric in chosen.items()}

    return compute
