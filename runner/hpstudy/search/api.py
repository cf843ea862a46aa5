"""``hyperparameter_search``: what Transformers' users call on a Trainer."""

from collections.abc import Callable
from typing import Any

from transformers import Trainer
from transformers.trainer_utils import BestRun

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.search.errors import SearchFailedError
from hpstudy.search.group import GroupEnvironment
from hpstudy.search.options import read_options
from hpstudy.search.plan import plan_alone, plan_in_group
from hpstudy.search.runs import check_trainer
from hpstudy.search.session import Session
from hpstudy.storage.errors import StorageRefusedError

_N_TRIALS, _DIRECTION = 20, "minimize"


def hyperparameter_search(
    trainer: Trainer,
    hp_space: Callable[[Any], Any] | None = None,
    compute_objective: Callable[[dict[str, float]], Any] | None = None,
    n_trials: int | None = _N_TRIALS,
    direction: str | list[str] = _DIRECTION,
    backend: str | None = None,
    hp_name: Callable[[Any], str] | None = None,
    **kwargs: Any,
) -> BestRun | list[BestRun]:
    """Search hyperparameters, as ``trainer.hyperparameter_search`` does, in one process or under torchrun.

    Every rank calls it and every rank gets the result. Afterwards the Trainer is as it was before. In a worker group
    the study supplies storage, budget, objectives, sampler and pruner and, where the script gives none, the space.

    Args:
        trainer: made with a ``model_init``, with or without the trial as its argument.
        hp_space: with backend optuna called once for a trial, on rank zero, and returns fields of TrainingArguments by
            name; with the others called once, with None, and returns the backend's own form of a space. Absent: that of
            Transformers.
        compute_objective: from the metrics of an evaluation to the objective, or to one for each direction. The best
            evaluation of a trial counts. Absent: that of Transformers.
        n_trials: trials that end complete or pruned; with ``catch`` those that fail, too. With ``storage`` those of
            earlier runs count.
        direction: "minimize" or "maximize", or a list of them for a Pareto front.
        backend: optuna, ray, wandb or sigopt. Absent: optuna.
        hp_name: name of a trial's folder in ``output_dir``, from what ``model_init`` gets. Absent: run-NUMBER.
        kwargs: ``storage``, URL of a database: a second run continues the study there; ``study_name``; ``sampler``,
            ``pruner``, ``timeout``, ``catch``, ``max_failed_trials``, and the backend's own. See docs/search.md.

    Returns:
        The best trial, or with several directions each on the Pareto front.

    Raises:
        RuntimeError: the Trainer has no ``model_init``; or a ``SearchFailedError``, where too many trials failed.
        InvalidStudyError: an argument or a hyperparameter that nothing takes, with what to change.
    """
    if trainer.model_init is None:
        raise RuntimeError("To use hyperparameter search, you need to pass your model through a model_init function.")
    check_trainer(trainer)
    for name, function in (("hp_space", hp_space), ("compute_objective", compute_objective), ("hp_name", hp_name)):
        if function is not None and not callable(function):
            raise InvalidStudyError(reasons.INVALID_OPTION, f"{name}: must be a function, got {function!r:.80}")
    named = None if backend is None else str(getattr(backend, "value", backend))
    environment = GroupEnvironment.from_environment()
    if environment is not None:
        given = dict(kwargs)
        if n_trials != _N_TRIALS:
            given["n_trials"] = n_trials
        if direction != _DIRECTION:
            given["direction"] = direction
        if named is not None:
            given["backend"] = named
        plan = plan_in_group(environment, hp_space, compute_objective, named, given)
    else:
        named = named or "optuna"
        options = read_options(named, kwargs)
        plan = plan_alone(trainer, hp_space, compute_objective, n_trials, direction, named, options)
    try:
        return Session(trainer, plan, hp_name).run()
    except StorageRefusedError as error:
        if plan.own_file is None or plan.own_file.exists():
            raise
        raise SearchFailedError(
            f"{plan.own_file} is gone, in which the search keeps its study: leave it there when you empty output_dir, "
            "or give storage, the URL of a database elsewhere"
        ) from error
