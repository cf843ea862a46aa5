"""The best trials of a study, as Transformers returns them."""

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpstudy.search.errors import SearchFailedError
from hpstudy.search.plan import Plan
from hpstudy.space.load import read_space
from hpstudy.storage import attributes
from hpstudy.storage.pareto import Direction, pareto_front

_WANDB_METRIC = "eval/loss"
"""What Transformers tells W&B where it is told nothing."""


def best_runs(study: optuna.Study, plan: Plan) -> list[list[Any]]:
    """The fields of ``BestRun``: of the best trial, or of each on the Pareto front.

    Raises:
        SearchFailedError: no trial was complete.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if _counts(trial)]
    if not trials:
        raise SearchFailedError("no trial of the search is complete, so none is the best; see the errors above")
    minimize = optuna.study.StudyDirection.MINIMIZE
    directions: list[Direction] = ["minimize" if each is minimize else "maximize" for each in study.directions]
    if len(directions) == 1:
        sign = 1 if directions[0] == "minimize" else -1
        return [_best_run(min(trials, key=lambda trial: sign * trial.values[0]), plan)]
    points = [tuple(trial.values) for trial in trials]
    return [_best_run(trials[place], plan) for place in pareto_front(points, directions)]


def _counts(trial: FrozenTrial) -> bool:
    broken = [
        value
        for name, value in trial.system_attrs.items()
        if name.startswith(attributes.CONSTRAINT_PREFIX) and value > 0
    ]
    return attributes.TAKEN_FROM not in trial.user_attrs and not broken


def _best_run(trial: FrozenTrial, plan: Plan) -> list[Any]:
    objective = trial.values[0] if plan.spec.is_scalar else list(trial.values)
    hyperparameters = dict(trial.params)
    space = None if plan.hp_space is not None else read_space(plan.spec)
    if space is not None:
        hyperparameters = space.nested(space.decode(trial.params))
    summary = None
    if plan.spec.backend == "wandb":
        # As from a sweep's run: what Transformers puts into its configuration is among them.
        hyperparameters |= {"assignments": {}, "metric": plan.options.metric or _WANDB_METRIC}
        summary = plan.name
    return [str(trial.user_attrs.get(attributes.WANDB_RUN, trial.number)), objective, hyperparameters, summary]
