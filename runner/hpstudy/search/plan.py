"""What a search is to do, from its arguments, or from the study of the worker group that it runs in."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner, MedianPruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from pydantic import ValidationError
from sqlalchemy.engine import URL
from transformers import Trainer, trainer_utils

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.load import parse_study
from hpstudy.api.metrics import DEFAULT_OBJECTIVE
from hpstudy.api.study import API_VERSION, KIND, Algorithm, SearchSpace, StudySpec
from hpstudy.search.clock import Clock, DriverClock, NoClock
from hpstudy.search.group import GroupEnvironment
from hpstudy.search.options import Options
from hpstudy.search.runs import Compute
from hpstudy.space import ray
from hpstudy.training.function import name_metrics
from hpstudy.trials.events import Events

_log = logging.getLogger(__name__)

DATABASE = "hpstudy.db"
"""In the output folder, where no storage is given."""
_ENDLESS = 1_000_000  # trials: n_trials=None, with a timeout
_SIGOPT_SPACE: list[dict[str, Any]] = [
    {"name": "learning_rate", "type": "double", "bounds": {"min": 1e-6, "max": 1e-4}, "transformation": "log"},
    {"name": "num_train_epochs", "type": "int", "bounds": {"min": 1, "max": 6}},
    {"name": "seed", "type": "int", "bounds": {"min": 1, "max": 40}},
    {"name": "per_device_train_batch_size", "type": "categorical", "categorical_values": ["4", "8", "16", "32", "64"]},
]
"""As Transformers had it while it had SigOpt."""
_DEFAULT_SPACES: Mapping[str, Callable[[Any], Any]] = {
    "optuna": trainer_utils.default_hp_space_optuna,
    "ray": trainer_utils.default_hp_space_ray,
    "wandb": trainer_utils.default_hp_space_wandb,
    "sigopt": lambda trial: [dict(parameter) for parameter in _SIGOPT_SPACE],
}


@dataclass(frozen=True)
class Plan:
    """A search."""

    spec: StudySpec
    url: str
    name: str
    """Of the study in the storage."""
    options: Options
    compute: Compute
    output_dir: str
    """Where the trials have their folders."""
    group: int = 0
    driver: str = ""
    """Address of the worker group's, where there is one."""
    revision: str = ""
    """Of what the worker group was made from, where an operator made it."""
    events: Events = Events()  # noqa: RUF009  stateless without a pipe
    """Where a worker group tells of its trials; by itself a script logs them."""
    gpus: int = 0
    """That the worker group holds."""
    hp_space: Callable[[Any], Any] | None = None
    """Called for every trial; None where the space was read at the start."""
    own_file: Path | None = None
    """The storage, where nobody named one."""

    def open_clock(self) -> Clock:
        """Who counts the time of the trials, where it matters."""
        return DriverClock(self.driver, self.url) if self.driver and self.spec.trial_timeout else NoClock()

    @property
    def sampler(self) -> BaseSampler | None:
        """An object in place of a name."""
        return self.options.sampler if isinstance(self.options.sampler, BaseSampler) else None

    @property
    def pruner(self) -> BasePruner | None:
        """An object in place of a name."""
        return self.options.pruner if isinstance(self.options.pruner, BasePruner) else None


def plan_alone(
    trainer: Trainer,
    hp_space: Callable[[Any], Any] | None,
    compute_objective: Callable[[dict[str, float]], Any] | None,
    n_trials: int | None,
    direction: str | list[str],
    backend: str,
    options: Options,
) -> Plan:
    """The plan of a script by itself.

    Raises:
        InvalidStudyError: see ``read_options``; or directions, trials or a space that are none.
    """
    several = isinstance(direction, list | tuple)
    directions = [_direction(each) for each in direction] if several else [_direction(direction)]
    if not directions or any(each not in ("minimize", "maximize") for each in directions):
        raise _invalid(f"direction: must be minimize or maximize, or a list of these, got {direction!r}")
    if len(directions) > 1 and compute_objective is None:
        raise _invalid(f"compute_objective: needed for {len(directions)} directions; it returns a value for each")
    if n_trials is None and options.timeout is None:
        raise _invalid("n_trials: needed where there is no timeout")
    if n_trials is not None and (isinstance(n_trials, bool) or not isinstance(n_trials, Integral) or n_trials < 1):
        raise _invalid(f"n_trials: must be a whole number of at least 1, got {n_trials!r}")
    names = [f"objective_{place}" for place in range(len(directions))]
    if len(directions) == 1:
        names = [options.metric.replace("/", "_") if options.metric else DEFAULT_OBJECTIVE]
    hp_space = hp_space or _DEFAULT_SPACES[backend]
    # With Optuna the space is made up trial by trial.
    space = None if backend == "optuna" else _space(backend, hp_space, names[0], directions[0], options)
    spec = _spec(
        {
            "objectives": [{"metric": name, "direction": each} for name, each in zip(names, directions, strict=True)],
            "backend": backend,
            "sampler": _dumped(options.sampler),
            "pruner": _dumped(options.pruner),
            "searchSpace": space,
            "budget": {"maxTrials": int(n_trials or _ENDLESS), "maxFailedTrials": _allowed(options)},
            "trial": {"script": {"path": "script"}},
        }
    )
    if backend == "optuna" and spec.pruner is None and options.pruner is None and spec.is_scalar:
        options = replace(options, pruner=MedianPruner())  # Optuna's own default, as its users know it
    folder = Path(trainer.args.output_dir).absolute()
    name = options.study_name or options.sweep_id or folder.name or "search"
    if options.storage is None and options.sweep_id is None:
        name = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9}"  # its own, as in Transformers
    own_file = folder / DATABASE if options.storage is None else None
    folder.mkdir(parents=True, exist_ok=True)  # a relative one is elsewhere where the script has changed its folder
    url = options.storage or URL.create("sqlite", database=str(own_file)).render_as_string()
    return Plan(
        spec=spec,
        url=url,
        name=name,
        options=options,
        compute=_compute(spec, compute_objective, names == [DEFAULT_OBJECTIVE]),
        output_dir=trainer.args.output_dir,
        hp_space=hp_space if space is None else None,
        own_file=own_file,
    )


def plan_in_group(
    environment: GroupEnvironment,
    hp_space: Callable[[Any], Any] | None,
    compute_objective: Callable[[dict[str, float]], Any] | None,
    backend: str | None,
    given: Mapping[str, Any],
) -> Plan:
    """The plan of a script in a worker group: the study's, with the script's space where it has one.

    Args:
        given: arguments that the study decides.

    Raises:
        InvalidStudyError: nobody has a space, or the script's is of another backend.
    """
    spec = environment.spec()
    if given:
        _log.warning("the study decides on %s: what the script says of it does not count", ", ".join(sorted(given)))
    if hp_space is None and spec.search_space is None:
        raise InvalidStudyError(
            reasons.INVALID_SPACE, "searchSpace: neither the study has one nor the script an hp_space; give either"
        )
    if hp_space is not None:
        if backend is not None and backend != spec.backend:
            raise InvalidStudyError(
                reasons.INVALID_SPACE,
                f"hp_space: the script's is of backend {backend}, the study has backend {spec.backend}; make them one",
            )
        if spec.search_space is not None:
            _log.warning("the script's hp_space counts, and not the study's searchSpace")
        if spec.backend != "optuna":
            first = spec.objectives[0]
            space = _space(spec.backend, hp_space, first.metric, first.direction, Options())
            spec = spec.model_copy(update={"search_space": SearchSpace.model_validate(space)})
    return Plan(
        spec=spec,
        url=environment.storage_url,
        name=environment.stored_name,
        options=Options(),
        compute=_compute(spec, compute_objective, any(o.metric == DEFAULT_OBJECTIVE for o in spec.objectives)),
        output_dir=str(environment.output / "trials"),
        group=environment.group,
        driver=environment.driver,
        gpus=environment.gpus,
        revision=environment.revision,
        events=Events(environment.events),
        hp_space=hp_space if spec.backend == "optuna" else None,
    )


def with_trials(plan: Plan, trials: int) -> Plan:
    """The plan with another total of trials."""
    budget = plan.spec.budget.model_copy(update={"max_trials": trials})
    return replace(plan, spec=plan.spec.model_copy(update={"budget": budget}))


def _compute(spec: StudySpec, function: Callable[[dict[str, float]], Any] | None, default: bool) -> Compute:
    """Objectives that are computed; those that an evaluation has by name are taken from it."""
    if function is not None:
        given = function
        return lambda metrics: name_metrics(given(dict(metrics)), spec.objectives, "compute_objective")
    if default:
        return lambda metrics: {DEFAULT_OBJECTIVE: float(trainer_utils.default_compute_objective(dict(metrics)))}
    return lambda metrics: {}


def _space(backend: str, hp_space: Callable[[Any], Any], metric: str, direction: str, options: Options) -> Any:
    """The native space, in the study's form. As in Transformers the function is called once, with None."""
    native = hp_space(None)
    if backend == "ray":
        return {"ray": ray.plain(native)}
    if backend == "wandb":
        if not isinstance(native, Mapping):
            raise InvalidStudyError(
                reasons.INVALID_SPACE, f"hp_space: W&B's is a sweep configuration, got {type(native).__name__}"
            )
        metric_of_sweep = {**native.get("metric", {}), "name": metric, "goal": direction}
        return {"wandb": {**native, **options.sweep, "metric": metric_of_sweep}}
    return {"sigopt": native}


def _spec(fields: Mapping[str, Any]) -> StudySpec:
    manifest = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "search"},
        "spec": {name: value for name, value in fields.items() if value is not None},
    }
    try:
        return parse_study(manifest).spec
    except ValidationError as error:
        raise _invalid(str(error)) from None


def _direction(direction: Any) -> Any:
    """Optuna's enumeration by its names."""
    return direction.name.lower() if isinstance(direction, StudyDirection) else direction


def _dumped(algorithm: Any) -> dict[str, Any] | None:
    return algorithm.model_dump() if isinstance(algorithm, Algorithm) else None


def _allowed(options: Options) -> int:
    """With ``catch`` Optuna's rule holds: trials with those errors count as trials, and any other ends the search."""
    return _ENDLESS if options.catch else options.max_failed_trials


def _invalid(message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_OPTION, message)
