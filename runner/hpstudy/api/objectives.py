"""What a study is after: objectives, constraints, and when it has reached enough."""

from typing import Annotated, Literal

from pydantic import Field

from hpstudy.api.fields import Algorithm, Metric, Name, Number
from hpstudy.api.metrics import DEFAULT_OBJECTIVE
from hpstudy.api.model import ApiModel, Rule

MAX_OBJECTIVES = 8
MAX_CONSTRAINTS = 16


class Objective(ApiModel):
    """One metric to optimise."""

    metric: Metric = DEFAULT_OBJECTIVE
    """Name of the metric, as the trial reports it, with or without eval_ (eval_f1, f1). Absent: what a function returns
    as a number; of the transformers form, as in Transformers, the sum of an evaluation's metrics without epoch and
    speed, or eval_loss where there is no other."""
    direction: Literal["minimize", "maximize"]
    """Whether lower or higher values are better."""
    goal: Number | None = None
    """A value that is good enough: the study is over when a complete trial within the constraints has it or a better
    one. Where several objectives have one, a trial must have them all. It may change while the study runs."""
    reference: Number | None = None
    """A value that is worse than those of interest. Where all of several objectives have one, the status tells the
    hypervolume between them and the Pareto front. It may change, too."""


class Scalarize(ApiModel):
    """One number for samplers and pruners that know one objective."""

    weights: Annotated[dict[Metric, Number], Field(min_length=2, max_length=MAX_OBJECTIVES)]
    """Weight of each objective by its metric. The number is the sum of weight times value, maximised metrics negated,
    so that lower is better."""

    rules = (
        Rule(
            "weights must be 0 or more, and one of them above 0",
            lambda s: min(s.weights.values()) >= 0 and max(s.weights.values()) > 0,
            "self.weights.all(metric, self.weights[metric] >= 0.0)"
            " && self.weights.exists(metric, self.weights[metric] > 0.0)",
        ),
    )


class Constraint(ApiModel):
    """A bound on a metric. Trials beyond it are recorded, and are never among the best."""

    metric: Metric
    """Name of the metric, as the trial reports it, with or without eval_."""
    max: Number | None = None
    """Largest value, inclusive."""
    min: Number | None = None
    """Smallest value, inclusive."""

    rules = (
        Rule(
            "a constraint needs max or min",
            lambda c: c.max is not None or c.min is not None,
            "has(self.max) || has(self.min)",
        ),
        Rule(
            "min must not exceed max",
            lambda c: c.max is None or c.min is None or c.min <= c.max,
            "!has(self.max) || !has(self.min) || self.min <= self.max",
        ),
    )

    def violations(self, value: float) -> dict[str, float]:
        """By how much each bound is exceeded, by name; not at all where that is 0 or less."""
        found = {}
        if self.max is not None:
            found[f"{self.metric}:max"] = value - self.max
        if self.min is not None:
            found[f"{self.metric}:min"] = self.min - value
        return found


class StopWhen(ApiModel):
    """When more trials are not worth their cost: the room for improvement is less than the error of a result. See
    https://optuna.readthedocs.io/en/stable/reference/terminator.html"""

    improvement: Algorithm | None = None
    """Optuna's improvement evaluator. Absent: RegretBoundEvaluator."""
    error: Algorithm | None = None
    """Optuna's error evaluator. Absent: StaticErrorEvaluator with constant 0 for BestValueStagnationEvaluator, else
    CrossValidationErrorEvaluator."""
    scores: Metric | None = None
    """Metric with the scores of the folds, a list of numbers, for CrossValidationErrorEvaluator."""
    min_trials: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Complete trials before it is looked at."""


class WarmStart(ApiModel):
    """Another study whose trials the sampler learns from."""

    study: Name
    """Its name in this namespace; of several in the storage that had the name, the latest."""
