"""What a trial's metrics amount to."""

import math
from typing import Any

import pytest

from hpstudy.api.study import Objective
from hpstudy.storage.attributes import Failure
from hpstudy.trials.outcome import conclude

OBJECTIVES = [Objective(metric="f1", direction="maximize"), Objective(metric="size", direction="minimize")]


def test_values_come_in_the_order_of_the_objectives() -> None:
    assert conclude({"size": 3, "f1": 0.5, "loss": 1.0}, OBJECTIVES).values == (0.5, 3.0)


def test_a_missing_metric_is_a_failure_that_names_what_was_there() -> None:
    outcome = conclude({"f1": 0.5, "loss": 1.0}, OBJECTIVES)
    assert outcome.failure is Failure.METRIC_MISSING
    assert outcome.message == "metric 'size' was not reported; the trial reported f1, loss"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "high", True])
def test_a_metric_that_is_no_finite_number_is_a_failure(value: Any) -> None:
    outcome = conclude({"f1": value, "size": 1}, OBJECTIVES)
    assert outcome.failure is Failure.METRIC_MISSING
    assert "must be a finite number" in outcome.message
