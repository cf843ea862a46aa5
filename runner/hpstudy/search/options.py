"""The keyword arguments of a search, those of Transformers among them, as what a study says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import Algorithm
from hpstudy.samplers.algorithms import hint
from hpstudy.search.sweeps import LABELS

BACKENDS = ("optuna", "ray", "wandb", "sigopt")
MAX_FAILED_TRIALS = 3
SIGOPT_DEFAULT = "offline"
"""SigOpt's type of experiment that optimises."""

_EVERY = ("storage", "study_name", "load_if_exists", "sampler", "pruner", "timeout", "catch", "max_failed_trials")
_OWN: Mapping[str, tuple[str, ...]] = {
    "optuna": (*_EVERY, "n_jobs", "gc_after_trial"),
    "ray": (*_EVERY, "search_alg", "scheduler", "name"),
    "wandb": (*_EVERY, "project", "entity", "name", "metric", "sweep_id"),
    "sigopt": (*_EVERY, "project"),
}
_HERE = "a trial runs in this process, under torchrun on all its ranks"
_REFUSED: Mapping[str, Mapping[str, str]] = {
    "optuna": {
        "directions": "give direction a list",
        "n_warmup_steps": "it is an option of the pruner's",
    },
    "ray": {
        "resources_per_trial": f"{_HERE}: torchrun says how many and on which GPUs",
        "max_concurrent_trials": f"{_HERE}, one after the other; several worker groups run trials side by side",
        "num_samples": "give n_trials",
        "config": "give hp_space",
        "metric": "give compute_objective, whose value is the objective",
        "mode": "give direction",
        "progress_reporter": "the Trainer shows its progress",
        "verbose": "the Trainer shows its progress",
        "log_to_file": f"{_HERE}, which prints where you see it",
        "storage_path": "give storage, the URL of a database",
        "local_dir": "give storage, the URL of a database",
        "resume": "give storage: a second run continues the study",
        "restore": "give storage: a second run continues the study",
        "stop": "give max_steps or num_train_epochs in TrainingArguments",
        "raise_on_failed_trial": "give max_failed_trials",
        "fail_fast": "give max_failed_trials=0",
        "max_failures": "a trial that its process lost is tried again by itself",
        "keep_checkpoints_num": "give save_total_limit in TrainingArguments",
        "checkpoint_score_attr": "give metric_for_best_model in TrainingArguments",
        "checkpoint_config": "give save_strategy in TrainingArguments",
        "time_budget_s": "give timeout",
        "callbacks": "give callbacks to the Trainer",
        "scope": "the best evaluation of a trial counts",
    },
    "wandb": {
        "count": "give n_trials",
        "anonymous": "without WANDB_API_KEY the search runs without a server",
    },
    "sigopt": {"observation_budget": "give n_trials", "budget": "give n_trials", "parallel_bandwidth": f"{_HERE}"},
}


@dataclass(frozen=True)
class Options:
    """What the keyword arguments say."""

    storage: str | None = None
    """URL; absent: a file in the output folder of the Trainer."""
    study_name: str | None = None
    load_if_exists: bool = True
    sampler: BaseSampler | Algorithm | None = None
    pruner: BasePruner | Algorithm | None = None
    timeout: float | None = None
    """Seconds after which no trial is begun."""
    catch: tuple[type[BaseException], ...] | None = None
    max_failed_trials: int = MAX_FAILED_TRIALS
    sweep: Mapping[str, Any] = field(default_factory=dict)
    """Of a W&B sweep: project, entity, name."""
    metric: str | None = None
    """Of a W&B sweep, as the Trainer reports it there."""
    sweep_id: str | None = None
    """Of a search before, which goes on."""


def read_options(backend: str, given: Mapping[str, Any]) -> Options:
    """Read the keyword arguments.

    Raises:
        InvalidStudyError: one that the search does not have, or a value that it cannot use; with what to give instead.
    """
    if backend not in BACKENDS:
        raise _invalid(f"backend: there is no {backend!r}{hint(backend, BACKENDS)}")
    for name in given:
        if name in _REFUSED[backend]:
            raise _invalid(f"{name}: leave it out, {_REFUSED[backend][name]}")
        if name not in _OWN[backend]:
            raise _invalid(f"{name}: backend {backend} has no such argument{hint(name, _OWN[backend])}")
    if given.get("n_jobs", 1) != 1:
        raise _invalid(
            "n_jobs: leave it out: trials in threads of one process share its seeds and its accelerate state; several "
            "worker groups run trials side by side"
        )
    search_alg, scheduler = ("search_alg", "scheduler") if backend == "ray" else ("sampler", "pruner")
    sampler = _algorithm(given.get(search_alg, given.get("sampler")), BaseSampler, backend, search_alg)
    pruner = _algorithm(given.get(scheduler, given.get("pruner")), BasePruner, backend, scheduler)
    if backend == "sigopt" and "project" in given:
        named = sampler or Algorithm(name=SIGOPT_DEFAULT)
        sampler = named.model_copy(update={"options": {**named.options, "project": given["project"]}})
    failed = given.get("max_failed_trials", MAX_FAILED_TRIALS)
    if isinstance(failed, bool) or not isinstance(failed, int) or failed < 0:
        raise _invalid(f"max_failed_trials: must be a whole number of at least 0, got {failed!r}")
    timeout = given.get("timeout")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
        raise _invalid(f"timeout: must be a number of seconds above 0, got {timeout!r}")
    study_name = given.get("study_name") or (given.get("name") if backend == "ray" else None)
    return Options(
        storage=_url(given.get("storage")),
        study_name=study_name,
        load_if_exists=bool(given.get("load_if_exists", True)),
        sampler=sampler,
        pruner=pruner,
        timeout=timeout,
        catch=_classes(given.get("catch")),
        max_failed_trials=failed,
        sweep={key: given[key] for key in LABELS if given.get(key)} if backend == "wandb" else {},
        metric=given.get("metric"),
        sweep_id=given.get("sweep_id"),
    )


def _url(storage: Any) -> str | None:
    if storage is None or isinstance(storage, str):
        return storage
    if isinstance(storage, optuna.storages.RDBStorage):
        return str(storage.url)
    raise _invalid(
        f"storage: must be the URL of a database (sqlite:///search.db, postgresql://…) or an RDBStorage, got "
        f"{type(storage).__name__}, which has no locks that keep the budget"
    )


def _algorithm(value: Any, base: type, backend: str, name: str) -> Any:
    """An object of Optuna's, or a name with options."""
    if value is None or isinstance(value, Algorithm):
        return value
    if isinstance(value, str):
        return Algorithm(name=value)
    if isinstance(value, Mapping) and "name" in value and set(value) <= {"name", "options"}:
        return Algorithm(name=value["name"], options=dict(value.get("options", {})))
    if isinstance(value, base):
        if backend == "optuna" or base is BasePruner:
            return value
        raise _invalid(f"{name}: it is one of Optuna's, and the backend is {backend}; leave out the one or the other")
    kind = type(value).__name__
    if backend == "ray":
        raise _invalid(
            f"{name}: give it by name, {name}={kind!r} or {name}={{'name': {kind!r}, 'options': {{…}}}}; metric and "
            "mode are those of the search"
        )
    raise _invalid(f"{name}: must be a {base.__name__}, a name, or a name with options, got {kind}")


def _classes(catch: Any) -> tuple[type[BaseException], ...] | None:
    if catch is None or catch == ():
        return None
    classes = catch if isinstance(catch, tuple) else tuple(catch) if isinstance(catch, list) else (catch,)
    if not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        raise _invalid(f"catch: must be classes of exceptions, got {catch!r}")
    return classes


def _invalid(message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_OPTION, message)
