"""Metrics by name: those that the API knows are those there are, with values worked out by hand."""

import re
from pathlib import Path

import numpy
import pytest

from hpstudy.api.tasks import TASKS
from hpstudy.training.answers import answer_scores
from hpstudy.training.entities import entity_scores
from hpstudy.training.metrics import CLASSIFICATION, REGRESSION, compute, language_metrics
from hpstudy.training.tasks.make import make_task
from tests.training.forms import task_spec

ROOT = Path(__file__).parents[2]


def test_every_metric_that_a_task_has_is_there() -> None:
    there = {
        "text-classification": set(CLASSIFICATION),
        "image-classification": set(CLASSIFICATION),
        "regression": set(REGRESSION),
        "token-classification": {*entity_scores([["O"]], [["O"]]), "accuracy"},
        "question-answering": set(answer_scores([], [])),
        "causal-language-modeling": set(language_metrics(["perplexity", "accuracy"], [[1, 1, 1]])),
        "masked-language-modeling": set(language_metrics(["perplexity", "accuracy"], [[1, 1, 1]])),
    }
    assert {task: set(fields.metrics) for task, fields in TASKS.items()} == there
    for task, fields in TASKS.items():
        assert set(fields.default_metrics) <= set(fields.metrics)
        trial = task_spec(task, {"csv": "d.csv"}).trial.transformers
        assert trial is not None
        assert trial.metric_names == fields.default_metrics
        assert make_task(trial).auto_model is not None


def test_the_documentation_lists_the_tasks_their_columns_and_metrics() -> None:
    page = (ROOT / "docs" / "trials.md").read_text()
    for task, fields in TASKS.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{task}` |"))
        words = set(re.findall(r"`(\w+)`", row.removeprefix(f"| `{task}`")))
        assert words == {*fields.columns, *fields.metrics}, task
        assert set(re.findall(r"\*\*`(\w+)`\*\*", row)) == set(fields.default_metrics), task


def test_classification() -> None:
    """Class 0: 2 of 3 found, 1 of them wrong; class 1: 1 of 1 found, 1 too many; class 2: never said."""
    labels, predicted = numpy.array([0, 0, 0, 1, 2]), numpy.array([0, 0, 1, 1, 0])
    found = compute(CLASSIFICATION, CLASSIFICATION, labels, predicted)
    assert found == pytest.approx(
        {
            "accuracy": 3 / 5,
            "precision": (2 / 3 + 1 / 2 + 0) / 3,
            "recall": (2 / 3 + 1 + 0) / 3,
            "f1": (2 / 3 + 2 / 3 + 0) / 3,
        }
    )


def test_regression() -> None:
    labels, predicted = numpy.array([1.0, 2, 3, 6]), numpy.array([2.0, 1, 3, 8])
    found = compute(REGRESSION, REGRESSION, labels, predicted)
    assert found == pytest.approx(
        {
            "mse": 6 / 4,
            "rmse": (6 / 4) ** 0.5,
            "mae": 1.0,
            "r2": 1 - 6 / 14,
            "pearson": 19 / (14 * 29) ** 0.5,
            "spearman": 1 - 6 * 2 / (4 * 15),
        }
    )
    constant = compute(REGRESSION, ["pearson", "spearman"], labels, numpy.ones(4))
    assert constant == {"pearson": 0.0, "spearman": 0.0}, "and not NaN, which would fail the trial"
