"""What a function returns, as metrics by name."""

from typing import Any

import numpy
import pytest
import torch

from hpstudy.api.study import Objective
from hpstudy.training.function import name_metrics

ONE = [Objective(metric="loss", direction="minimize")]
TWO = [*ONE, Objective(metric="size", direction="minimize")]


@pytest.mark.parametrize(
    ("returned", "objectives", "metrics"),
    [
        (0.5, ONE, {"loss": 0.5}),
        (torch.tensor([0.5]), ONE, {"loss": 0.5}),
        (numpy.float32(0.5), ONE, {"loss": 0.5}),
        ((0.5, numpy.int64(3)), TWO, {"loss": 0.5, "size": 3}),
        ({"loss": torch.tensor(0.5), "note": "x"}, ONE, {"loss": 0.5, "note": "x"}),
        ({"folds": numpy.array([0.25, 0.5])}, ONE, {"folds": [0.25, 0.5]}),
        ({"folds": [numpy.float32(0.25), torch.tensor(0.5)]}, ONE, {"folds": [0.25, 0.5]}),
    ],
)
def test_numbers_are_pythons_own(returned: Any, objectives: list[Objective], metrics: dict[str, Any]) -> None:
    found = name_metrics(returned, objectives, "m:f")
    assert found == metrics
    assert {type(value) for value in found.values()} <= {float, int, str, list}


@pytest.mark.parametrize("returned", ["high", None, (1, 2, 3), numpy.array([1.0, 2.0, 3.0])])
def test_what_is_no_number_for_each_objective_is_refused(returned: Any) -> None:
    with pytest.raises(TypeError, match=r"m:f returned .*; it must return numbers for loss, size"):
        name_metrics(returned, TWO, "m:f")
