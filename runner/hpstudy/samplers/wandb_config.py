"""The sweep configuration of a study: W&B's own where the study has one, else made from its space and sampler."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.metrics import DEFAULT_OBJECTIVE, canonical
from hpstudy.api.study import StudySpec
from hpstudy.samplers.algorithms import hint
from hpstudy.space.dimensions import Dimension, SearchSpace
from hpstudy.space.load import native_space
from hpstudy.space.wandb import grid_points, sweep_parameters

METHODS = ("bayes", "grid", "random")
_OPTIONS = {
    "bayes": ("seed", "impute", "impute_while_running"),
    "grid": ("seed", "randomize_order"),
    "random": ("seed",),
}
_IMPUTE = {"impute": ("latest", "best", "worst"), "impute_while_running": ("latest", "best", "worst", "false")}
_LABELS = frozenset({"apiVersion", "kind", "name", "description", "project", "entity"})
"""Keys of a configuration that say where W&B shows it."""
_REFUSED = {
    "program": "trial says what runs",
    "command": "trial says what runs",
    "job": "trial says what runs",
    "image_uri": "workers.template says what runs",
    "run_cap": "budget.maxTrials says how many trials there are",
    "controller": "the study itself is the sweep's agent",
    "scheduler": "the study itself is the sweep's agent; method is one of bayes, grid, random",
    "metrics": "a sweep has one metric; several objectives need scalarize",
}
_MAX_POINTS = 1000
"""Values that a stepped range is listed with where no distribution of W&B's hits them."""
_MAX_GRID = 1_000_000
"""Points of a grid: W&B's engine makes the list of them all at every proposal."""


@dataclass(frozen=True)
class Sweep:
    """How a study is searched, as W&B is told."""

    config: Mapping[str, Any]
    """A complete sweep configuration; where the study has one, all of it is as it was written."""
    parameters: Mapping[str, Mapping[str, Any]]
    """Of each parameter of the space, by the name in it, the distribution with all fields."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Those of the sampler that no configuration has: seed, randomize_order."""

    @property
    def method(self) -> str:
        """One of METHODS."""
        return str(self.config["method"])

    @property
    def metric(self) -> str:
        """Name of the metric in W&B."""
        return str(self.config["metric"]["name"])


def read_sweep(spec: StudySpec, space: SearchSpace) -> Sweep:
    """Put the study's words into W&B's.

    Raises:
        InvalidStudyError: several objectives, a configuration that contradicts the rest of the study, or a space that
            the method cannot search.
    """
    if not spec.is_scalar:
        raise InvalidStudyError(
            reasons.SAMPLER_FAILED,
            "objectives: a W&B sweep optimises one metric; add scalarize with a weight for each objective, or take "
            "backend optuna",
        )
    native = native_space(spec) or {}
    for key in native:
        _check_key(key)
    method, options = _method(spec, native)
    if native:
        given: dict[str, Mapping[str, Any]] = {p.name: p.given for p in sweep_parameters(native)}
        parameters: Mapping[str, Any] = native["parameters"]
    else:
        given = {dimension.name: _translate(dimension, method) for dimension in space.dimensions}
        parameters = given
    _check_space(given, method)
    impute = {name: options.pop(name) for name in _IMPUTE if name in options}
    config = {
        **native,
        "method": method,
        "metric": _metric(spec, native.get("metric", {}), impute),
        "parameters": parameters,
    }
    pruner = spec.pruner
    if "early_terminate" in native:
        read_early_terminate(native["early_terminate"], "searchSpace.wandb.early_terminate")
        if pruner is not None:
            raise _invalid("searchSpace.wandb.early_terminate: the study has a pruner too; keep one of them")
    elif pruner is not None and pruner.name == "hyperband":
        config["early_terminate"] = {"type": "hyperband", **pruner.options}
    return Sweep(config, given, options)


def read_early_terminate(given: Any, where: str) -> dict[str, Any]:
    """Check W&B's hyperband and fill in its defaults.

    Raises:
        InvalidStudyError: an unknown or a missing field, or values that leave no band to stop at.
    """
    if not isinstance(given, Mapping) or given.get("type") != "hyperband":
        raise _option(f"{where}: needs type hyperband")
    unknown = sorted(set(given) - {"type", "min_iter", "max_iter", "s", "eta", "strict"})
    if unknown:
        raise _option(f"{where}.{unknown[0]}: hyperband takes min_iter, max_iter, s, eta, strict")
    filled = {"eta": 3, "strict": True} | dict(given)
    if not isinstance(filled["strict"], bool):
        raise _option(f"{where}.strict: must be true or false")
    for name in ("min_iter", "max_iter", "s"):
        value = filled.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise _option(f"{where}.{name}: must be a whole number of at least 1")
    eta = filled["eta"]
    if isinstance(eta, bool) or not isinstance(eta, int | float) or eta <= 1:
        raise _option(f"{where}.eta: must be a number above 1")
    if "max_iter" in filled:
        if "s" not in filled or "min_iter" in filled:
            raise _option(f"{where}: needs either min_iter, or max_iter and s")
        if filled["max_iter"] / eta < 1:
            raise _option(f"{where}: max_iter must be at least eta, or there is no step to stop at")
    elif "min_iter" not in filled or "s" in filled:
        raise _option(f"{where}: needs either min_iter, or max_iter and s")
    return filled


def _check_key(key: str) -> None:
    if key in _REFUSED:
        raise _invalid(f"searchSpace.wandb.{key}: {_REFUSED[key]}; remove it")
    known = _LABELS | {"method", "metric", "parameters", "early_terminate"}
    if key not in known:
        raise _invalid(f"searchSpace.wandb.{key}: a sweep configuration has no such key{hint(key, known)}")


def _method(spec: StudySpec, native: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method, and the checked options of the sampler."""
    named = spec.sampler.name if spec.sampler else None
    if named is not None and named not in METHODS:
        raise InvalidStudyError(
            reasons.UNKNOWN_SAMPLER, f"sampler: backend wandb has no {named!r}{hint(named, METHODS)}"
        )
    method: Any = named or "bayes"
    if native:
        method = native.get("method")
        if method not in METHODS:
            raise _invalid(f"searchSpace.wandb.method: must be one of {', '.join(METHODS)}, got {method!r}")
        if named not in (None, method):
            raise _invalid(f"searchSpace.wandb.method: it is {method}, and sampler is {named}; leave one of them out")
    options = dict(spec.sampler.options) if spec.sampler else {}
    for name, value in options.items():
        where = f"sampler.options.{name}"
        if name not in _OPTIONS[method]:
            raise _option(f"{where}: {method} has no such option{hint(name, _OPTIONS[method])}")
        if name == "seed" and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise _option(f"{where}: must be a whole number of at least 0, got {value!r}")
        if name == "randomize_order" and not isinstance(value, bool):
            raise _option(f"{where}: must be true or false, got {value!r}")
        if name in _IMPUTE and value not in _IMPUTE[name]:
            raise _option(f"{where}: must be one of {', '.join(_IMPUTE[name])}, got {value!r}")
    return method, options


def _metric(spec: StudySpec, given: Any, impute: Mapping[str, str]) -> dict[str, Any]:
    where = "searchSpace.wandb.metric"
    names = {DEFAULT_OBJECTIVE} if spec.scalarize else {DEFAULT_OBJECTIVE, canonical(spec.objectives[0].metric)}
    goal = "minimize" if spec.scalarize else spec.objectives[0].direction
    if not isinstance(given, Mapping):
        raise _invalid(f"{where}: needs name and goal")
    unknown = sorted(set(given) - {"name", "goal", *_IMPUTE})
    if unknown:
        raise _invalid(f"{where}.{unknown[0]}: name, goal, impute and impute_while_running are taken; remove it")
    metric = {"name": DEFAULT_OBJECTIVE if spec.scalarize else spec.objectives[0].metric, **given}
    # Trainers report to W&B with a slash (eval/loss), and the Transformers documentation says "objective".
    if canonical(str(metric["name"]).replace("/", "_")) not in names:
        raise _invalid(f"{where}.name: it is {metric['name']!r}, the study's objective is {sorted(names)[0]!r}")
    if given.get("goal", goal) != goal:
        raise _invalid(f"{where}.goal: it is {given['goal']!r}, the study's objective says {goal}")
    for name, allowed in _IMPUTE.items():
        if name in metric and metric[name] not in allowed:
            raise _invalid(f"{where}.{name}: must be one of {', '.join(allowed)}, got {metric[name]!r}")
        if name in impute and metric.get(name, impute[name]) != impute[name]:
            raise _invalid(f"{where}.{name}: it is {metric[name]}, and the sampler's option says {impute[name]}")
    return {**metric, "goal": goal, **impute}


def _check_space(parameters: Mapping[str, Mapping[str, Any]], method: str) -> None:
    if method == "bayes":
        for name, given in parameters.items():
            if "probabilities" in given:
                raise _invalid(
                    f"searchSpace: {name} has probabilities, which W&B's bayes does not take; take method random"
                )
        if all(given["distribution"] == "constant" for given in parameters.values()):
            raise _invalid("searchSpace: bayes needs a parameter that is not constant")
    if method == "grid":
        points = 1
        for name, given in parameters.items():
            try:
                points *= len(grid_points(given))
            except ValueError as error:
                raise _invalid(f"searchSpace: {name}: {error}") from None
        if points > _MAX_GRID:
            raise _invalid(f"searchSpace: the grid has {points:,} points, more than {_MAX_GRID:,}; take method random")


def _translate(dimension: Dimension, method: str) -> dict[str, Any]:
    """A parameter of another form in W&B's words."""
    match dimension.distribution:
        case CategoricalDistribution():
            if len(dimension.choices) == 1:
                return {"distribution": "constant", "value": dimension.choices[0]}
            return {"distribution": "categorical", "values": list(dimension.choices)}
        case FloatDistribution(low=low, high=high, log=log, step=step):
            pass
        case IntDistribution(low=low, high=high, log=log, step=step):
            step = step if step > 1 or log or dimension.normal or dimension.log_steps else None
    whole = isinstance(dimension.distribution, IntDistribution)
    if low == high:
        return {"distribution": "constant", "value": low}
    if method == "grid":
        return _grid(dimension, low, high, step or (1 if whole else None))
    spread: dict[str, Any] = {"min": low, "max": high}
    if dimension.normal is not None:
        spread = {"mu": dimension.normal.mean, "sigma": dimension.normal.deviation}
        family = "log_normal" if log else "normal"
    elif log or dimension.log_steps:
        family = "log_uniform_values"
    elif step is None:
        return {"distribution": "int_uniform" if whole else "uniform", **spread}
    else:
        family = "uniform"
    if step is None:
        return {"distribution": family, **spread}
    if low <= 0 and family == "log_uniform_values":
        spread["min"] = step / 2  # which is rounded to 0
    if Decimal(str(low)) % Decimal(str(step)) == 0:
        return {"distribution": f"q_{family}", **spread, "q": step}
    if family != "uniform":
        raise _invalid(
            f"searchSpace: {dimension.name}: W&B rounds to multiples of {step:g}; give it a low that is a multiple"
        )
    return _grid(dimension, low, high, step)


def _grid(dimension: Dimension, low: float, high: float, step: float | None) -> dict[str, Any]:
    """A stepped range as the list of its values."""
    if step is None:
        raise _invalid(f"searchSpace: {dimension.name}: a grid search needs a step, or choices")
    first, width = Decimal(str(low)), Decimal(str(step))
    count = math.floor((Decimal(str(high)) - first) / width) + 1
    if count > _MAX_POINTS:
        raise _invalid(f"searchSpace: {dimension.name} has {count:,} values, a W&B list may have {_MAX_POINTS:,}")
    kind = int if isinstance(dimension.distribution, IntDistribution) else float
    return {"distribution": "categorical", "values": [kind(first + k * width) for k in range(count)]}


def _invalid(message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_SPACE, message)


def _option(message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_OPTION, message)
