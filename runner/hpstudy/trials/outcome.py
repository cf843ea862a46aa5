"""How a trial ended."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpstudy.api.study import Objective
from hpstudy.storage.attributes import Failure


@dataclass(frozen=True)
class Outcome:
    """The end of a trial: complete with ``values``, pruned, or failed.

    ``values`` has one number for each objective, in order. ``metrics`` holds everything that was reported last.
    """

    values: tuple[float, ...] | None = None
    pruned: bool = False
    failure: Failure | None = None
    message: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)


def conclude(metrics: Mapping[str, Any], objectives: Sequence[Objective]) -> Outcome:
    """Judge the metrics of a trial that ran to its end: a trial without its metric is a failure that names what was
    there (Katib's trials succeed with metrics missing, katib#1795)."""
    values = []
    for objective in objectives:
        value = metrics.get(objective.metric)
        if value is None:
            there = ", ".join(sorted(metrics)) or "none"
            message = f"metric {objective.metric!r} was not reported; the trial reported {there}"
            return Outcome(failure=Failure.METRIC_MISSING, message=message, metrics=metrics)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            message = f"metric {objective.metric!r} is {value!r}, it must be a finite number"
            return Outcome(failure=Failure.METRIC_MISSING, message=message, metrics=metrics)
        values.append(float(value))
    return Outcome(values=tuple(values), metrics=metrics)
