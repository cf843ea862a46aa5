"""How a trial ended."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna

from hpstudy.api.metrics import find_metric
from hpstudy.api.study import StudySpec
from hpstudy.storage.attributes import Failure

PREEMPTED = Failure.PREEMPTED, "the worker was told to stop"
"""How a trial ends whose worker gets SIGTERM."""


@dataclass(frozen=True)
class Outcome:
    """The end of a trial: complete with ``values``, pruned, or failed.

    ``values`` has one number for each objective, in order. ``metrics`` holds everything that was reported last.
    ``violations`` says by how much each constraint is exceeded: 0 or less where it is kept.
    """

    values: tuple[float, ...] | None = None
    pruned: bool = False
    failure: Failure | None = None
    message: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    scores: tuple[float, ...] = ()
    """Of cross-validation, where stopWhen asks for them."""
    alone: bool = False
    """Where it runs again, nothing may run beside it."""
    again: bool = False
    """Once told: it failed, and its parameters run again."""


BROKEN_OFF = Outcome(failure=PREEMPTED[0], message=PREEMPTED[1])
"""How a trial ends that the worker was told to stop in the making of."""


class _MissingError(Exception):
    """A metric is not there, or cannot be used."""


def conclude(metrics: Mapping[str, Any], spec: StudySpec) -> Outcome:
    """Judge the metrics of a trial that ran to its end: a trial without its metric is a failure that names what was
    there (Katib's trials succeed with metrics missing, katib#1795)."""
    try:
        values = tuple(_number(metrics, objective.metric) for objective in spec.objectives)
        violations: dict[str, float] = {}
        for constraint in spec.constraints:
            violations |= constraint.violations(_number(metrics, constraint.metric))
        scores = _scores(metrics, spec.stop_when.scores) if spec.stop_when and spec.stop_when.scores else ()
    except _MissingError as error:
        where = "" if metrics else _where_reports_are(spec)
        return Outcome(failure=Failure.METRIC_MISSING, message=f"{error}{where}", metrics=metrics)
    return Outcome(values=values, metrics=metrics, violations=violations, scores=scores)


def conclude_pruned(metrics: Mapping[str, Any], spec: StudySpec) -> Outcome:
    """Judge the last metrics of a trial that was pruned; constraints on metrics that it had not reported yet are not
    known to be broken."""
    violations: dict[str, float] = {}
    for constraint in spec.constraints:
        value = find_metric(metrics, constraint.metric)
        if _is_number(value):
            violations |= constraint.violations(float(value))
    return Outcome(pruned=True, metrics=metrics, violations=violations)


def conclude_unmade(error: BaseException) -> Outcome:
    """Judge what was raised while a trial's hyperparameters were made up; what is no error told the process to stop."""
    if isinstance(error, optuna.TrialPruned):
        return Outcome(pruned=True)
    if not isinstance(error, Exception):
        return BROKEN_OFF
    return Outcome(failure=Failure.ERROR, message=f"no hyperparameters: {type(error).__name__}: {error}")


def _where_reports_are(spec: StudySpec) -> str:
    """For a program that ended well and said nothing."""
    if spec.trial.command is None:
        return ""
    read = spec.trial.command.metrics
    if read.pattern is not None:
        return f": metrics.pattern {read.pattern!r} matched no line of its output"
    return f": it wrote no line of JSON to {read.file}, whose path is in HPSTUDY_METRICS"


def _number(metrics: Mapping[str, Any], name: str) -> float:
    value = _present(metrics, name)
    if not _is_number(value):
        raise _MissingError(f"metric {name!r} is {value!r:.200}, it must be a finite number")
    return float(value)


def _scores(metrics: Mapping[str, Any], name: str) -> tuple[float, ...]:
    scores = _present(metrics, name)
    if not isinstance(scores, list | tuple) or len(scores) < 2 or not all(map(_is_number, scores)):
        raise _MissingError(f"metric {name!r} is {scores!r:.200}, it must be a list of two finite numbers or more")
    return tuple(float(score) for score in scores)


def _present(metrics: Mapping[str, Any], name: str) -> Any:
    value = find_metric(metrics, name)
    if value is None:
        there = ", ".join(sorted(metrics)) or "none"
        raise _MissingError(f"metric {name!r} was not reported; the trial reported {there}")
    return value


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False
