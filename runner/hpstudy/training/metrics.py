"""Metrics by name, from what was predicted and what is true; those of entities and of answers have own modules."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy
from scipy import stats
from sklearn import metrics

Metric = Callable[[Any, Any], float]

# Macro averages: a classifier that puts everything into one class scores low, as it should.
CLASSIFICATION: Mapping[str, Metric] = {
    "accuracy": metrics.accuracy_score,
    "f1": lambda labels, predicted: metrics.f1_score(labels, predicted, average="macro", zero_division=0),
    "precision": lambda labels, predicted: metrics.precision_score(labels, predicted, average="macro", zero_division=0),
    "recall": lambda labels, predicted: metrics.recall_score(labels, predicted, average="macro", zero_division=0),
}


def _correlation(measure: Callable[[Any, Any], Any]) -> Metric:
    def correlation(labels: Any, predicted: Any) -> float:
        # A model that says the same everywhere has none; a NaN would fail the trial.
        if len(labels) < 2 or numpy.ptp(labels) == 0 or numpy.ptp(predicted) == 0:
            return 0.0
        return float(measure(labels, predicted).statistic)

    return correlation


REGRESSION: Mapping[str, Metric] = {
    "mse": metrics.mean_squared_error,
    "rmse": metrics.root_mean_squared_error,
    "mae": metrics.mean_absolute_error,
    "r2": metrics.r2_score,
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}


def compute(known: Mapping[str, Metric], names: Iterable[str], labels: Any, predicted: Any) -> dict[str, float]:
    """The metrics of these names."""
    return {name: float(known[name](labels, predicted)) for name in names}


def language_metrics(names: Iterable[str], sums: Any) -> dict[str, float]:
    """Perplexity and accuracy of predicted tokens.

    Args:
        sums: of shape (rows, 3): the negative log-likelihood of a row's tokens, how many of them were the most likely
            ones, and how many there are.
    """
    loss, hits, count = numpy.asarray(sums, dtype=numpy.float64).sum(axis=0)
    count = max(count, 1.0)
    # Past this float has no number for it; a NaN or an infinity would fail the trial.
    known = {"perplexity": math.exp(min(loss / count, 700.0)), "accuracy": hits / count}
    return {name: float(known[name]) for name in names}
