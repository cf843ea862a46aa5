"""``stopWhen``: Optuna's terminator, on the study's own trials."""

import warnings
from collections.abc import Container
from typing import Any, cast

import optuna
from optuna.terminator import BaseErrorEvaluator, BaseImprovementEvaluator, Terminator
from optuna.trial import FrozenTrial, TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.fields import Algorithm
from hpstudy.api.objectives import StopWhen
from hpstudy.samplers.algorithms import build
from hpstudy.storage.feasible import feasible_trials

_PARTS: dict[type, Any] = {BaseImprovementEvaluator: optuna.terminator, BaseErrorEvaluator: optuna.terminator}
_DEFAULT_IMPROVEMENT = "RegretBoundEvaluator"
_CROSS_VALIDATION = "CrossValidationErrorEvaluator"
_STAGNATION = "BestValueStagnationEvaluator"
_PAIRED = {"MedianErrorEvaluator": "paired_improvement_evaluator"}
"""Options that are the improvement evaluator itself."""


class StopRule:
    """Whether more trials are worth their cost.

    Raises:
        InvalidStudyError: an unknown evaluator or option, or a value that it refuses.
    """

    def __init__(self, stop_when: StopWhen) -> None:
        improvement = stop_when.improvement or Algorithm(name=_DEFAULT_IMPROVEMENT)
        error = stop_when.error or (
            Algorithm(name="StaticErrorEvaluator", options={"constant": 0})
            if improvement.name == _STAGNATION
            else Algorithm(name=_CROSS_VALIDATION)
        )
        if (option := _PAIRED.get(error.name)) and option not in error.options:
            error = error.model_copy(update={"options": {**error.options, option: improvement.model_dump()}})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental, and to leave Optuna with version 6
            self._terminator = Terminator(
                _build(improvement, "stopWhen.improvement", BaseImprovementEvaluator),
                _build(error, "stopWhen.error", BaseErrorEvaluator),
                min_n_trials=stop_when.min_trials,
            )
        if (error.name == _CROSS_VALIDATION) != (stop_when.scores is not None):
            raise InvalidStudyError(
                reasons.INVALID_OPTION,
                f"stopWhen.scores: only {_CROSS_VALIDATION} uses scores; leave it out"
                if stop_when.scores
                else f"stopWhen.scores: {_CROSS_VALIDATION} needs the metric that holds the scores of the folds; "
                "name it, or another evaluator as stopWhen.error",
            )

    def is_met(self, study: optuna.Study) -> bool:
        """Ask the terminator.

        Raises:
            InvalidStudyError: the evaluator does not work for the study's space.
        """
        try:
            return self._terminator.should_terminate(cast(optuna.Study, _OwnTrials(study)))
        except ValueError as error:
            raise InvalidStudyError(reasons.INVALID_OPTION, f"stopWhen: {error}") from error


class _OwnTrials:
    """As much of a study as the terminator reads. Another study's best value, or one beyond a constraint, would be
    taken for what this one has reached."""

    def __init__(self, study: optuna.Study) -> None:
        self.direction = study.direction
        self.trials = feasible_trials(study)

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]


def _build(algorithm: Algorithm, where: str, base: type) -> Any:
    return build(algorithm, where, optuna.terminator, base, reasons.INVALID_OPTION, parts=_PARTS)
