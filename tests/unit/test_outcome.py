"""What a trial's metrics amount to."""

import math
from typing import Any

import pytest

from hpstudy.api.metrics import find_metric
from hpstudy.storage.attributes import Failure
from hpstudy.trials.outcome import conclude, conclude_pruned
from tests.support.builders import spec

TWO = [{"metric": "f1", "direction": "maximize"}, {"metric": "size", "direction": "minimize"}]
STUDY = spec(objectives=TWO)


def test_values_come_in_the_order_of_the_objectives() -> None:
    assert conclude({"size": 3, "f1": 0.5, "loss": 1.0}, STUDY).values == (0.5, 3.0)


def test_a_missing_metric_is_a_failure_that_names_what_was_there() -> None:
    outcome = conclude({"f1": 0.5, "loss": 1.0}, STUDY)
    assert outcome.failure is Failure.METRIC_MISSING
    assert outcome.message == "metric 'size' was not reported; the trial reported f1, loss"


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        (None, "it wrote no line of JSON to metrics.jsonl, whose path is in HPSTUDY_METRICS"),
        ({"pattern": "loss=(?P<loss>.*)"}, "metrics.pattern 'loss=(?P<loss>.*)' matched no line of its output"),
    ],
)
def test_a_program_that_reported_nothing_is_told_where_it_would_have_been_read(
    read: dict[str, str] | None, complaint: str
) -> None:
    command = {"argv": ["true"]} | ({"metrics": read} if read else {})
    outcome = conclude({}, spec(trial={"command": command}))
    assert outcome.failure is Failure.METRIC_MISSING
    assert outcome.message == f"metric 'loss' was not reported; the trial reported none: {complaint}"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "high", True, 10**400])
def test_a_metric_that_is_no_finite_number_is_a_failure(value: Any) -> None:
    outcome = conclude({"f1": value, "size": 1}, STUDY)
    assert outcome.failure is Failure.METRIC_MISSING
    assert "must be a finite number" in outcome.message


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("f1", 1),
        ("eval_f1", 1),
        ("loss", 2),
        ("eval_loss", 3),
        ("eval_accuracy", 4),
        ("accuracy", 4),
        ("eval_test_f1", None),  # test_f1 is of data that no trial is judged by
        ("recall", None),
    ],
)
def test_a_metric_is_found_with_and_without_its_prefix_and_the_exact_name_wins(name: str, found: float | None) -> None:
    metrics = {"eval_f1": 1, "loss": 2, "eval_loss": 3, "accuracy": 4, "test_f1": 5, "test_recall": 6}
    assert find_metric(metrics, name) == found


CONSTRAINED = spec(constraints=[{"metric": "latency", "max": 20, "min": 5}, {"metric": "f1", "min": 0.5}])


def test_what_a_constraint_allows_is_zero_or_less() -> None:
    outcome = conclude({"loss": 1, "eval_latency": 25, "f1": 0.5}, CONSTRAINED)
    assert outcome.values == (1.0,)
    assert outcome.violations == {"latency:max": 5, "latency:min": -20, "f1:min": 0}


def test_the_metric_of_a_constraint_must_be_there() -> None:
    outcome = conclude({"loss": 1, "latency": 25}, CONSTRAINED)
    assert outcome.failure is Failure.METRIC_MISSING
    assert "metric 'f1' was not reported; the trial reported latency, loss" in outcome.message


def test_a_pruned_trial_breaks_the_constraints_that_it_got_to() -> None:
    outcome = conclude_pruned({"loss": 1, "latency": 25}, CONSTRAINED)
    assert (outcome.pruned, outcome.violations) == (True, {"latency:max": 5, "latency:min": -20})


SCORED = spec(stopWhen={"scores": "folds"})


def test_the_scores_of_the_folds_are_kept_for_the_terminator() -> None:
    assert conclude({"loss": 1, "folds": [0.9, 1.1]}, SCORED).scores == (0.9, 1.1)


@pytest.mark.parametrize("scores", [[0.9], 0.9, [0.9, "high"], [0.9, math.nan]])
def test_scores_that_are_none_are_a_failure(scores: Any) -> None:
    outcome = conclude({"loss": 1, "folds": scores}, SCORED)
    assert outcome.failure is Failure.METRIC_MISSING
    assert "must be a list of two finite numbers or more" in outcome.message
