"""The best trials of a study as Transformers returns them, and the ends of all as Optuna logs them."""

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpstudy.search.errors import SearchFailedError
from hpstudy.search.plan import Plan
from hpstudy.space.load import read_space
from hpstudy.storage import attributes
from hpstudy.storage.feasible import feasible_trials
from hpstudy.storage.pareto import Direction, pareto_front

_log = optuna.logging.get_logger("optuna.hpstudy")  # shown, and silenced, with what Optuna itself says
_WANDB_METRIC = "eval/loss"
"""What Transformers tells W&B where it is told nothing."""


def best_runs(study: optuna.Study, plan: Plan) -> list[list[Any]]:
    """The fields of ``BestRun``: of the best trial, or of each on the Pareto front.

    Raises:
        SearchFailedError: no trial was complete.
    """
    best = _best_trials(study)
    if not best:
        raise SearchFailedError("no trial of the search is complete, so none is the best; see the errors above")
    return [_best_run(trial, plan) for trial in best]


def log_end(study: optuna.Study, plan: Plan, number: int, message: str) -> None:
    """Say how a trial ended, and which is the best so far, in the words of ``optuna.Study.optimize``."""
    trial = next(each for each in study.get_trials(deepcopy=False) if each.number == number)  # some may not be shown
    parameters = _parameters(trial, plan)
    if trial.state is TrialState.FAIL:
        _log.warning("Trial %d failed with parameters: %s because of: %s", number, parameters, message)
    elif trial.state is TrialState.PRUNED:
        _log.info("Trial %d pruned.", number)
    elif len(trial.values) > 1:
        _log.info("Trial %d finished with values: %s and parameters: %s.", number, trial.values, parameters)
    else:
        best = "".join(f" Best is trial {each.number} with value: {each.values[0]}." for each in _best_trials(study))
        _log.info("Trial %d finished with value: %s and parameters: %s.%s", number, trial.values[0], parameters, best)


def _best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best complete trial, or those of the Pareto front; empty where none is complete."""
    trials = feasible_trials(study)
    minimize = optuna.study.StudyDirection.MINIMIZE
    directions: list[Direction] = ["minimize" if each is minimize else "maximize" for each in study.directions]
    if not trials or len(directions) > 1:
        return [trials[place] for place in pareto_front([tuple(trial.values) for trial in trials], directions)]
    sign = 1 if directions[0] == "minimize" else -1
    return [min(trials, key=lambda trial: sign * trial.values[0])]


def _best_run(trial: FrozenTrial, plan: Plan) -> list[Any]:
    objective = trial.values[0] if plan.spec.is_scalar else list(trial.values)
    hyperparameters = _parameters(trial, plan)
    summary = None
    if plan.spec.backend == "wandb":
        # As from a sweep's run: what Transformers puts into its configuration is among them.
        hyperparameters |= {"assignments": {}, "metric": plan.options.metric or _WANDB_METRIC}
        summary = plan.name
    return [str(trial.user_attrs.get(attributes.WANDB_RUN, trial.number)), objective, hyperparameters, summary]


def _parameters(trial: FrozenTrial, plan: Plan) -> dict[str, Any]:
    space = None if plan.hp_space is not None else read_space(plan.spec)
    return dict(trial.params) if space is None else dict(space.nested(space.decode(trial.params)))
