"""What Ray Tune's searchers need, each by its name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
_ALONE = "it learns only from what it suggested itself, not from other groups or from before a restart; take "
UNSUPPORTED_SEARCHERS = {
    "AxSearch": _ALONE + "OptunaSearch, or GPSampler with backend optuna",
    "TuneBOHB": "it learns from HyperBandForBOHB, which pauses trials; take OptunaSearch with HyperBandScheduler",
    "ZOOptSearch": _ALONE + "OptunaSearch",
}
"""Why not."""
