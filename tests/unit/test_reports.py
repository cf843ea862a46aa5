"""What a trial may report, seen from its own rank."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from hpstudy.samplers.view import reported_value
from hpstudy.training.trial import Trial
from tests.support.builders import spec

STUDY = spec()


class Heard:
    """Rank zero's line, which writes down what it is told."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, dict[str, Any]]] = []

    def report(self, step: int, metrics: Mapping[str, Any], *, past: bool = False) -> bool:
        self.reports.append((step, dict(metrics)))
        return False

    def progress(self, share: float) -> None: ...

    def stopping(self) -> bool:
        return False


def trial(folder: Path, heard: Heard) -> Trial:
    return Trial(0, {}, STUDY.objectives, folder, heard)


@pytest.mark.parametrize("step", [-1, 2**31, 10**400, 0.5, float("nan"), "1", None])
def test_a_step_that_no_storage_can_hold_is_refused(tmp_path: Path, step: Any) -> None:
    heard = Heard()
    with pytest.raises(ValueError, match=r"trial\.report: step must be a whole number from 0 to 2147483647, got "):
        trial(tmp_path, heard).report(0.5, step)
    assert not heard.reports


@pytest.mark.parametrize("value", [10**400, {"loss": 10**400}, {"loss": 0.5, "folds": [0.5, -(10**400)]}])
def test_a_number_that_no_float_can_hold_is_refused(tmp_path: Path, value: Any) -> None:
    heard = Heard()
    with pytest.raises(ValueError, match=r"metric '(loss|folds)' is a whole number of 1329 bits, too large"):
        trial(tmp_path, heard).report(value, 1)
    assert not heard.reports


def test_steps_and_metrics_become_python_s_own(tmp_path: Path) -> None:
    heard = Heard()
    reporting = trial(tmp_path, heard)
    reporting.report(torch.tensor(0.5), numpy.int64(0))  # type: ignore[arg-type]
    reporting.report({"loss": numpy.float32(0.25), "note": "x"}, 2.0)  # type: ignore[arg-type,dict-item]
    assert heard.reports == [(0, {"loss": 0.5}), (2, {"loss": 0.25, "note": "x"})]
    assert {type(step) for step, _ in heard.reports} == {int}


def test_a_pruner_does_not_see_a_number_that_no_float_can_hold() -> None:
    assert reported_value(STUDY, {"loss": 10**400}) is None
