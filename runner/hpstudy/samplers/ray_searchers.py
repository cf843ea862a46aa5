"""What Ray Tune's searchers need, each by its name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpstudy.samplers.ray_replay import AxSampler, BohbSampler, ZooptSampler
from hpstudy.samplers.ray_search import (
    BayesOptSampler,
    HeboSampler,
    NevergradSampler,
    OptunaSearchSampler,
    RaySampler,
)

VARIANTS = "BasicVariantGenerator"

MANAGED = {
    "space": "searchSpace says it",
    "metric": "objectives say it",
    "mode": "objectives say it",
    "points_to_evaluate": "initialTrials says it",
    "evaluated_rewards": "the storage remembers the trials",
    "max_concurrent": "parallelism says it",
}
"""Options that the study says elsewhere, with where."""


@dataclass(frozen=True)
class Searcher:
    """What is particular to one of Ray's searchers."""

    module: str
    """Below ray.tune.search."""
    seed: str
    """The option that is its seed."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """What it needs beside Ray: what pip installs, by the module to import."""
    sampler: type[RaySampler] = RaySampler
    many_objectives: bool = False
    own: frozenset[str] = frozenset()
    """Options that are objects in Python, and a name in a manifest."""
    managed: dict[str, str] = field(default_factory=dict)
    """More of ``MANAGED``."""
    takes_budget: bool = False
    """Whether it has to know how many trials there will be."""


SEARCHERS = {
    VARIANTS: Searcher("basic_variant", "random_state", many_objectives=True),
    "OptunaSearch": Searcher(
        "optuna.optuna_search",
        "seed",
        sampler=OptunaSearchSampler,
        many_objectives=True,
        managed={
            "sampler": "Optuna's samplers are there by name with backend optuna",
            "storage": "the study's own storage is used",
            "study_name": "the study's own storage is used",
        },
    ),
    "HEBOSearch": Searcher(
        "hebo.hebo_search",
        "random_state_seed",
        {"hebo": "HEBO"},
        sampler=HeboSampler,
        managed={"kwargs": "it takes random_state_seed alone"},
    ),
    "AxSearch": Searcher(
        "ax.ax_search",
        "random_seed",
        {"ax": "ax-platform<1.3"},  # of 1.3 and later, Ray 2.60 does not find the objective
        sampler=AxSampler,
        managed={
            "ax_client": "the storage remembers the trials",
            "ax_kwargs": "it takes random_seed alone",
            "parameter_constraints": "Ax is told of other coordinates",
            "outcome_constraints": "constraints says it",
        },
    ),
    "TuneBOHB": Searcher(
        "bohb.bohb_search", "seed", {"hpbandster": "hpbandster", "ConfigSpace": "ConfigSpace"}, sampler=BohbSampler
    ),
    "ZOOptSearch": Searcher(
        "zoopt.zoopt_search",
        "seed",
        {"zoopt": "zoopt"},
        sampler=ZooptSampler,
        managed={
            "dim_dict": "searchSpace says it",
            "budget": "budget.maxTrials says it",
            "parallel_num": "parallelism says it",
            "kwargs": "it takes seed alone",
        },
        takes_budget=True,
    ),
    "HyperOptSearch": Searcher("hyperopt.hyperopt_search", "random_state_seed", {"hyperopt": "hyperopt"}),
    "NevergradSearch": Searcher(
        "nevergrad.nevergrad_search",
        "seed",
        {"nevergrad": "nevergrad"},
        sampler=NevergradSampler,
        own=frozenset({"optimizer"}),
    ),
    "BayesOptSearch": Searcher(
        "bayesopt.bayesopt_search",
        "random_state",
        {"bayes_opt": "bayesian-optimization==1.4.3"},
        sampler=BayesOptSampler,
        managed={
            "analysis": "the storage remembers the trials",
            "patience": "budget says when the study ends",
            "verbose": "it prints nothing here",
        },
    ),
}
