"""Backend ray under Optuna's own tests of samplers."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import RelativeSamplerTestCase
from optuna.trial import FrozenTrial

from hpstudy.samplers.build import build_sampler
from hpstudy.space.dimensions import Dimension, SearchSpace
from tests.support.builders import spec


class OfAnySpace(optuna.samplers.RandomSampler):
    """HyperOptSearch over whatever space Optuna's own tests ask for; the default searcher has test_optuna_suite."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return optuna.search_space.intersection_search_space(study.get_trials(deepcopy=False))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        space = SearchSpace(
            Dimension(name, distribution, choices=tuple(getattr(distribution, "choices", ())))
            for name, distribution in search_space.items()
        )
        made = build_sampler(spec(backend="ray", sampler={"name": "HyperOptSearch"}), space)
        return made.sample_relative(study, trial, search_space)


class TestHyperOptSearchByOptunasOwnTests(RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return OfAnySpace
