"""Ray Tune's search algorithms and schedulers, by name, without a Ray cluster."""

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import optuna

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import AUTO, Algorithm, StudySpec
from hpstudy.samplers import optuna as optuna_backend
from hpstudy.samplers.algorithms import check_options, hint
from hpstudy.samplers.engine import EngineSampler
from hpstudy.samplers.ray_population import build_population
from hpstudy.samplers.ray_schedulers import MANAGED as MANAGED_BY_SCHEDULERS
from hpstudy.samplers.ray_schedulers import (
    MANAGED_OF_POPULATIONS,
    POPULATIONS,
    SCHEDULERS,
    UNSUPPORTED_SCHEDULERS,
    build_scheduler,
)
from hpstudy.samplers.ray_searchers import MANAGED, SEARCHERS, VARIANTS
from hpstudy.samplers.ray_variants import VariantSampler
from hpstudy.space.dimensions import SearchSpace
from hpstudy.space.load import read_space
from hpstudy.space.ray import GRID

_DEFAULT_SAMPLER = "OptunaSearch"
"""Ray Tune's own default draws at random; this one learns, and takes every space and several objectives."""
_LEAST_BUDGET = 4
"""ZOOpt ends the process where it is told of fewer than three trials, and needs four to begin to learn."""
_SHORT = {
    "random": VARIANTS,
    "variant_generator": VARIANTS,
    "ax": "AxSearch",
    "bayesopt": "BayesOptSearch",
    "bohb": "TuneBOHB",
    "hebo": "HEBOSearch",
    "hyperopt": "HyperOptSearch",
    "nevergrad": "NevergradSearch",
    "optuna": "OptunaSearch",
    "zoopt": "ZOOptSearch",
    "async_hyperband": "AsyncHyperBandScheduler",
    "asynchyperband": "AsyncHyperBandScheduler",
    "fifo": "FIFOScheduler",
    "hb_bohb": "HyperBandForBOHB",
    "hyperband": "HyperBandScheduler",
    "median_stopping_rule": "MedianStoppingRule",
    "medianstopping": "MedianStoppingRule",
    "pb2": "PB2",
    "pbt": "PopulationBasedTraining",
    "pbt_replay": "PopulationBasedTrainingReplay",
    "resource_changing": "ResourceChangingScheduler",
}
"""The names of ``tune.create_searcher`` and ``tune.create_scheduler``."""


def build_sampler(spec: StudySpec, space: SearchSpace | None, *, group: int = 0, trials: int = 0) -> EngineSampler:
    """See ``samplers/build.py``. Groups and restarts need no seeds of their own: a trial's number is part of its seed.

    With no sampler named, or ``auto``, it is OptunaSearch, or BasicVariantGenerator where the space has a grid.
    """
    assert space is not None
    grid = [dimension.name for dimension in space.dimensions if dimension.only == GRID]
    named = spec.sampler or Algorithm(name=AUTO)
    if named.name == AUTO:
        named = named.model_copy(update={"name": VARIANTS if grid else _DEFAULT_SAMPLER})
    algorithm = _known(named, "sampler", SEARCHERS, {})
    searcher = SEARCHERS[algorithm.name]
    _refuse_managed(algorithm, "sampler", MANAGED | searcher.managed)
    if grid and algorithm.name != VARIANTS:
        raise InvalidStudyError(
            reasons.INVALID_SPACE,
            f"searchSpace: {', '.join(grid)} is a grid, which {algorithm.name} does not search; take {VARIANTS}, or "
            "choice instead of grid_search",
        )
    if not spec.is_scalar and not searcher.many_objectives:
        raise InvalidStudyError(
            reasons.INVALID_OPTION,
            f"sampler {algorithm.name} knows one objective, the study has {len(spec.objectives)}: weigh them with "
            f"scalarize, or take {_DEFAULT_SAMPLER}",
        )
    given = dict(algorithm.options)
    seed = given.pop(searcher.seed, None)
    if isinstance(seed, bool) or not isinstance(seed, int | None) or (seed or 0) < 0:
        raise InvalidStudyError(
            reasons.INVALID_OPTION, f"sampler.options.{searcher.seed}: must be a whole number from 0 on, got {seed!r}"
        )
    factory = _import(f"ray.tune.search.{searcher.module}", algorithm.name, searcher.packages)
    own = {option: given.pop(option) for option in searcher.own if option in given}
    options = check_options(factory, algorithm.model_copy(update={"options": given}), "sampler") | own
    if algorithm.name == VARIANTS:
        return VariantSampler(space, frozenset(grid), seed=seed, **options)
    if searcher.takes_budget:
        options["budget"] = max(spec.budget.max_trials, _LEAST_BUDGET)
    return searcher.sampler(space, factory, options, searcher.seed, seed, 1 if spec.is_scalar else len(spec.objectives))


def build_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """See ``samplers/build.py``. Optuna's pruners are there beside Ray's schedulers."""
    pruners = {name for name in vars(optuna.pruners) if name.endswith("Pruner") and name != "BasePruner"}
    if spec.pruner is None or spec.pruner.name in pruners:
        return optuna_backend.build_pruner(spec)
    known = {**SCHEDULERS, **POPULATIONS}
    algorithm = _known(spec.pruner, "pruner", known, UNSUPPORTED_SCHEDULERS, pruners)
    if algorithm.name in POPULATIONS:
        _refuse_managed(algorithm, "pruner", MANAGED_BY_SCHEDULERS | MANAGED_OF_POPULATIONS)
        factory = _import(f"ray.tune.schedulers.{POPULATIONS[algorithm.name]}", algorithm.name, {})
        declared = spec.search_space is not None and not spec.search_space.python
        space = read_space(spec) if declared else None
        return build_population(spec, factory, check_options(factory, algorithm, "pruner"), space)
    scheduler = SCHEDULERS[algorithm.name]
    _refuse_managed(algorithm, "pruner", MANAGED_BY_SCHEDULERS | scheduler.managed)
    factory = _import(f"ray.tune.schedulers.{scheduler.module}", algorithm.name, {})
    return build_scheduler(scheduler, factory, check_options(factory, algorithm, "pruner"))


def _known(
    algorithm: Algorithm,
    kind: str,
    supported: Mapping[str, Any],
    unsupported: Mapping[str, str],
    others: Iterable[str] = (),
) -> Algorithm:
    """The algorithm by its class name.

    Raises:
        InvalidStudyError: Ray has none of that name, or one that cannot be had here.
    """
    unknown = reasons.UNKNOWN_SAMPLER if kind == "sampler" else reasons.UNKNOWN_PRUNER
    name = _SHORT.get(algorithm.name, algorithm.name)
    if name in unsupported:
        raise InvalidStudyError(unknown, f"{kind} {name}: {unsupported[name]}")
    if name not in supported:
        raise InvalidStudyError(
            unknown, f"unknown {kind} {algorithm.name!r}{hint(algorithm.name, {*supported, *others})}"
        )
    return algorithm.model_copy(update={"name": name})


def _refuse_managed(algorithm: Algorithm, kind: str, managed: Mapping[str, str]) -> None:
    for option in algorithm.options:
        if option in managed:
            raise InvalidStudyError(reasons.INVALID_OPTION, f"{kind}.options.{option}: leave it out, {managed[option]}")


def _import(module: str, name: str, packages: Mapping[str, str]) -> Any:
    """A class of Ray's.

    Raises:
        ImportError: Ray, or what the class needs beside it, is not installed.
    """
    for needed, package in {"ray": "ray[tune]", **packages}.items():
        if importlib.util.find_spec(needed) is None:
            raise ImportError(f"{name} needs the package {package}, which is not installed in the worker's image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        found = getattr(importlib.import_module(module), name)
    # What they warn of (steps that a searcher drops, a point that comes twice) does not happen, or is dealt with here.
    for logger in ("ray.tune", "hyperopt"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    return found
