"""Optuna's own suite for samplers (``optuna.testing.pytest_samplers``) on each backend's.

Samplers of HPStudy know their space from the start, where Optuna's learn it from trials: each test gets one for the
space that it uses. Left out, or smaller than there:

- ``test_dynamic_range_objective``: a study's space never changes.
- ``test_trial_relative_params`` with two threads: a worker group asks for one trial after the other.
- ``SingleOnlySamplerTestCase``: engines of one objective refuse a study of two when they are built, before any trial;
  see test_wandb.py and test_ray.py.
- Of the 36 combinations of two distributions, those in which each distribution is on either side once; of the six with
  one parameter, two.
- ``test_sample_single_distribution`` with wandb: bayes refuses a space without anything to vary.
"""

from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.build import build_sampler
from hpstudy.space.dimensions import Dimension, SearchSpace
from tests.support.builders import spec

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

_UNIT = FloatDistribution(0, 1)
_TRIPLE = CategoricalDistribution([-1, -10, -100])
SPACES: dict[str, Mapping[str, BaseDistribution]] = {
    "test_conditional_sample_independent": {
        "category": CategoricalDistribution(["x", "y"]),
        "x": CategoricalDistribution(["a", "b"]),
        "y": CategoricalDistribution(["a", "b"]),
    },
    "test_nan_objective_value": {"x": FloatDistribution(0.1, 0.2)},
    "test_partial_fixed_sampling": {
        "x": FloatDistribution(-1, 1),
        "y": IntDistribution(-1, 1),
        "z": FloatDistribution(-1, 1),
    },
    "test_sample_single_distribution": {
        "a": CategoricalDistribution([1]),
        "b": IntDistribution(1, 1),
        "c": IntDistribution(1, 1, log=True),
        "d": FloatDistribution(1, 1),
        "e": FloatDistribution(1, 1, log=True),
        "f": FloatDistribution(1, 1, step=1.0),
    },
    "test_conditional_parameter_objective": {"x": CategoricalDistribution([True, False]), "y": _UNIT, "z": _UNIT},
    "test_sample_relative_categorical": {"x": CategoricalDistribution([1, 10, 100]), "y": _TRIPLE},
    "test_trial_relative_params": {"x": FloatDistribution(-10, 10), "y": FloatDistribution(-10, 10)},
}
"""Of the tests that make their own; of the others it follows from their arguments."""
CONDITIONS = {"y": {"x": (True,)}, "z": {"x": (False,)}}
"""In the conditional objective."""
NUMERIC = [
    FloatDistribution(-1.0, 1.0),
    FloatDistribution(1e-7, 1.0, log=True),
    FloatDistribution(-10, 10, step=0.5),
    IntDistribution(3, 10),
    IntDistribution(1, 100, log=True),
    IntDistribution(3, 9, step=2),
]
METHODS: list[Callable[[str], Callable[[optuna.Trial], Any]]] = [
    lambda name: lambda trial: trial.suggest_float(name, 0, 10),
    lambda name: lambda trial: trial.suggest_int(name, 0, 10),
    lambda name: lambda trial: trial.suggest_categorical(name, [0, 1, 2]),
    lambda name: lambda trial: trial.suggest_float(name, 0, 10, step=0.5),
    lambda name: lambda trial: trial.suggest_float(name, 1e-7, 10, log=True),
    lambda name: lambda trial: trial.suggest_int(name, 1, 10, log=True),
]


def space_of(request: pytest.FixtureRequest) -> SearchSpace:
    """What the test is going to suggest."""
    test = request.node.originalname
    arguments = getattr(request.node, "callspec", None)
    given = dict(arguments.params) if arguments else {}
    found = dict(SPACES.get(test, {}))
    if "distribution" in given:
        found["x"] = given["distribution"]
    elif "choices" in given:
        found["x"] = CategoricalDistribution(given["choices"])
    for name in ("x", "y"):
        if f"{name}_distribution" in given:
            found[name] = given[f"{name}_distribution"]
        if f"suggest_method_{name}" in given:
            trial = optuna.create_study(sampler=optuna.samplers.RandomSampler()).ask()
            given[f"suggest_method_{name}"](trial)
            found |= trial.distributions
    if test == "test_sample_relative_mixed":
        found["y"] = _TRIPLE
    assert found, f"{test} is new: say what it suggests"
    conditions = CONDITIONS if test == "test_conditional_parameter_objective" else {}
    return SearchSpace(
        Dimension(name, distribution, getattr(distribution, "choices", ()), when=conditions.get(name, {}))
        for name, distribution in found.items()
    )


class Suite(BasicSamplerTestCase, RelativeSamplerTestCase):
    backend: str

    @pytest.fixture
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        space = space_of(request)
        several = "multi_objective" in request.node.originalname
        objectives = [{"metric": name, "direction": "minimize"} for name in ("a", "b")[: 2 if several else 1]]
        study = spec(backend=self.backend, objectives=objectives)
        return lambda: build_sampler(study, space)

    test_dynamic_range_objective = None

    @pytest.mark.parametrize("suggest_method_x", [METHODS[index]("x") for index in (2, 4)])
    def test_single_parameter_objective(
        self, sampler: Callable[[], BaseSampler], suggest_method_x: Callable[[optuna.Trial], float]
    ) -> None:
        super().test_single_parameter_objective(sampler, suggest_method_x)

    @pytest.mark.parametrize("n_jobs", [1])
    def test_trial_relative_params(self, n_jobs: int, sampler: Callable[[], BaseSampler]) -> None:
        super().test_trial_relative_params(n_jobs, sampler)

    @pytest.mark.parametrize(
        ("x_distribution", "y_distribution"), list(zip(NUMERIC, NUMERIC[1:] + NUMERIC[:1], strict=True))
    )
    def test_sample_relative_numerical(
        self, sampler: Callable[[], BaseSampler], x_distribution: BaseDistribution, y_distribution: BaseDistribution
    ) -> None:
        super().test_sample_relative_numerical(sampler, x_distribution, y_distribution)

    @pytest.mark.parametrize(
        ("suggest_method_x", "suggest_method_y"),
        [(x("x"), y("y")) for x, y in zip(METHODS, METHODS[1:] + METHODS[:1], strict=True)],
    )
    def test_combination_of_different_distributions_objective(
        self,
        sampler: Callable[[], BaseSampler],
        suggest_method_x: Callable[[optuna.Trial], float],
        suggest_method_y: Callable[[optuna.Trial], float],
    ) -> None:
        super().test_combination_of_different_distributions_objective(sampler, suggest_method_x, suggest_method_y)


class TestOptuna(Suite, MultiObjectiveSamplerTestCase):
    """TPE, from its first trial on."""

    backend = "optuna"

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        first = {"name": "TPESampler", "options": {"n_startup_trials": 0}}
        return lambda: build_sampler(spec(sampler=first), None)


class TestRay(Suite, MultiObjectiveSamplerTestCase):
    backend = "ray"


class TestWandb(Suite):
    backend = "wandb"

    def test_sample_single_distribution(self, sampler: Callable[[], BaseSampler]) -> None:
        with pytest.raises(InvalidStudyError, match="bayes needs a parameter that is not constant"):
            sampler()


class TestSigopt(Suite, MultiObjectiveSamplerTestCase):
    backend = "sigopt"


del BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase, Suite  # pytest would collect them
