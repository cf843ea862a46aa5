"""Optuna's own samplers and pruners, by name."""

import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy
import optuna
from optuna.distributions import FloatDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, nsgaii

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import Algorithm, StudySpec
from hpstudy.samplers import exhaustive
from hpstudy.samplers.algorithms import build, check_options
from hpstudy.samplers.choice import chosen_sampler, is_open
from hpstudy.samplers.pruning import HyperbandPruner
from hpstudy.space.dimensions import SearchSpace

_SAMPLERS = types.SimpleNamespace(
    **{name: value for name, value in vars(optuna.samplers).items() if not name.startswith("_")}
    | {
        "GridSampler": exhaustive.GridSampler,
        "BruteForceSampler": exhaustive.BruteForceSampler,
        "PartialFixedSampler": exhaustive.PartialFixedSampler,
    }
)
_PRUNERS = types.SimpleNamespace(
    **{name: value for name, value in vars(optuna.pruners).items() if not name.startswith("_")}
    | {"HyperbandPruner": HyperbandPruner}
)
_PARTS: Mapping[type, Any] = {
    BaseSampler: _SAMPLERS,
    BasePruner: _PRUNERS,
    nsgaii.BaseCrossover: nsgaii,
    nsgaii.BaseMutation: nsgaii,
}
_NESTED = ("base_sampler", "independent_sampler")
_EXHAUSTIVE = frozenset({"GridSampler", "BruteForceSampler"})
_SINGLE_OBJECTIVE = frozenset({"CmaEsSampler"})
_ONE_SEQUENCE = frozenset({"GridSampler", "QMCSampler"})
"""All groups and restarts go through one sequence of points, by one seed; the storage has the place in it."""
_NO_PRUNER = Algorithm(name="NopPruner")


def build_sampler(spec: StudySpec, space: SearchSpace | None, *, group: int = 0, trials: int = 0) -> BaseSampler:
    """See ``samplers/build.py``.

    With the same seed, every group and every restart would propose the same first trials (optuna#4714), so ``group``
    and ``trials`` become part of the seed; the first start of group 0 takes it as is.
    """
    algorithm = _algorithm(spec, space, group, trials)
    sampler: BaseSampler = build(algorithm, "sampler", _SAMPLERS, BaseSampler, reasons.UNKNOWN_SAMPLER, parts=_PARTS)
    return sampler


def build_pruner(spec: StudySpec) -> BasePruner:
    """See ``samplers/build.py``."""
    pruner: BasePruner = build(
        spec.pruner or _NO_PRUNER, "pruner", _PRUNERS, BasePruner, reasons.UNKNOWN_PRUNER, parts=_PARTS
    )
    return pruner


def check_sampler(spec: StudySpec, space: SearchSpace | None) -> None:
    """Check names, options and space, without importing the user's functions or torch.

    Args:
        space: None where it is not known here.

    Raises:
        InvalidStudyError: see ``samplers/build.py``.
    """
    algorithm = _algorithm(spec, space)
    if algorithm.name == "GPSampler":  # imports torch as soon as it is made
        check_options(optuna.samplers.GPSampler, algorithm, "sampler", parts=_PARTS, importing=False)
    else:
        build(algorithm, "sampler", _SAMPLERS, BaseSampler, reasons.UNKNOWN_SAMPLER, parts=_PARTS, importing=False)


def _algorithm(spec: StudySpec, space: SearchSpace | None, group: int = 0, trials: int = 0) -> Algorithm:
    algorithm = chosen_sampler(spec, space) if is_open(spec) else spec.sampler
    assert algorithm is not None
    for dimension in space.dimensions if space else ():
        what, remedy = "", "give it a range"
        if dimension.normal:
            what = "a normal distribution"
        elif dimension.log_steps and algorithm.name not in _EXHAUSTIVE:
            what, remedy = "steps on a logarithmic scale", "leave out either"
        if what:
            raise InvalidStudyError(
                reasons.INVALID_SPACE,
                f"searchSpace: {dimension.name} has {what}, which backend optuna does not sample from; {remedy}",
            )
    return _complete(algorithm, "sampler", spec, space, group, trials)


def _complete(
    algorithm: Algorithm,
    where: str,
    spec: StudySpec,
    space: SearchSpace | None,
    group: int,
    trials: int,
    fixed: Iterable[str] = (),
) -> Algorithm:
    """The algorithm with what the study says elsewhere: the space, and the group's own seed.

    Args:
        fixed: parameters that are set, not sampled.
    """
    options = dict(algorithm.options)
    if algorithm.name in _SINGLE_OBJECTIVE and not spec.is_scalar:
        raise InvalidStudyError(
            reasons.INVALID_OPTION,
            f"{where}: {algorithm.name} works for one objective, the study has {len(spec.objectives)}; "
            "TPESampler, GPSampler and NSGAIISampler take several, scalarize makes them one",
        )
    if algorithm.name == "PartialFixedSampler" and space and isinstance(options.get("fixed_params"), Mapping):
        options["fixed_params"] = {
            name: _encode(space, name, value, f"{where}.options.fixed_params")
            for name, value in options["fixed_params"].items()
        }
        fixed = [*fixed, *options["fixed_params"]]
    if algorithm.name == "GridSampler" and space:
        options["search_space"] = _grid(options.get("search_space"), space, where, set(fixed))
    if algorithm.name == "BruteForceSampler" and space:
        _check_finite(space, where, algorithm.name, set(fixed))
    _derive_seed(algorithm.name, options, group, trials)
    for name in _NESTED:
        if isinstance(options.get(name), Mapping) and isinstance(options[name].get("name"), str):
            part = Algorithm.model_validate(options[name])
            part = _complete(part, f"{where}.options.{name}", spec, space, group, trials, fixed)
            options[name] = part.model_dump()
    return algorithm.model_copy(update={"options": options})


def _derive_seed(name: str, options: dict[str, Any], group: int, trials: int) -> None:
    seed = options.get("seed")
    if name == "QMCSampler":
        if options.get("scramble") is True and seed is None:
            seed = options["seed"] = 0  # one sequence for all groups needs one seed
        if seed is not None and options.get("independent_sampler") is None:
            options["independent_sampler"] = {"name": "RandomSampler", "options": {"seed": seed}}
    if isinstance(seed, int) and not isinstance(seed, bool) and (group or trials) and name not in _ONE_SEQUENCE:
        options["seed"] = int(numpy.random.SeedSequence([abs(seed), group, trials]).generate_state(1)[0])


def _grid(given: Any, space: SearchSpace, where: str, fixed: set[str]) -> Any:
    """Values of each parameter, as the storage records them: those of the option, else all that the space has."""
    where += ".options.search_space"
    if given is not None and not _is_grid(given):
        return given  # refused by its type
    if given is None:
        if space.is_conditional:
            raise InvalidStudyError(
                reasons.INVALID_OPTION,
                f"{where}: a grid has no conditions (when); BruteForceSampler goes through a conditional space",
            )
        _check_finite(space, where, "GridSampler", fixed)
        values = {d.name: exhaustive.grid_values(d.distribution) or [] for d in space.dimensions if d.name not in fixed}
    else:
        if missing := [name for name in space.distributions if name not in given and name not in fixed]:
            raise InvalidStudyError(reasons.INVALID_OPTION, f"{where}: no values for {', '.join(missing)}")
        values = {name: [_encode(space, name, value, where) for value in column] for name, column in given.items()}
    points = exhaustive.count_points(list(values.values()))
    if points > exhaustive.MAX_GRID_POINTS:
        raise InvalidStudyError(
            reasons.INVALID_OPTION,
            f"{where}: the grid has {points:,} points, at most {exhaustive.MAX_GRID_POINTS:,} are gone through; "
            "make the steps larger, or take QMCSampler or RandomSampler",
        )
    return values


def _is_grid(given: Any) -> bool:
    return isinstance(given, Mapping) and all(isinstance(column, list) and column for column in given.values())


def _check_finite(space: SearchSpace, where: str, name: str, fixed: set[str]) -> None:
    endless = [
        dimension.name
        for dimension in space.dimensions
        if isinstance(dimension.distribution, FloatDistribution)
        and dimension.distribution.step is None
        and not dimension.distribution.single()
        and dimension.name not in fixed
    ]
    if endless:
        remedy = "give it a step" if name == "BruteForceSampler" else "give it a step, or its values by name"
        raise InvalidStudyError(
            reasons.INVALID_OPTION,
            f"{where}: {name} goes through every value, and {', '.join(endless)} has infinitely many; {remedy}",
        )


def _encode(space: SearchSpace, name: str, value: Any, where: str) -> Any:
    if name not in space:
        raise InvalidStudyError(reasons.INVALID_OPTION, f"{where}.{name}: the search space has no such parameter")
    try:
        return space[name].encode(value)
    except (TypeError, ValueError) as error:
        raise InvalidStudyError(reasons.INVALID_OPTION, f"{where}: {error}") from None
