"""Ray Tune's searchers that are told of past trials in a way of their own: Ax, BOHB and ZOOpt."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpstudy.samplers.coordinates import Choices, Coordinate, EvenCoordinate, Range
from hpstudy.samplers.engine import Observation
from hpstudy.samplers.ray_domains import domain, key
from hpstudy.samplers.ray_search import NEW, RaySampler, result
from hpstudy.samplers.seeding import seeded
from hpstudy.space.dimensions import SearchSpace


class AxSampler(RaySampler):
    """AxSearch. To Ax a trial that is attached and has no data yet is pending, as one of its own that runs."""

    arguments: ClassVar[Mapping[str, Any]] = {
        # Or a few running trials were as many as it allows, and all others drawn at random.
        "enforce_sequential_optimization": False,
        "verbose_logging": False,
    }

    def _suggest(self, known: Sequence[Observation], directions: Sequence[StudyDirection], seed: int) -> Any:
        import torch
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        with threadpool_limits(1), seeded(seed), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return super()._suggest(known, directions, seed)

    def _tell(self, searcher: Any, trial: Observation, worst: float | None) -> None:
        if trial.state is not TrialState.RUNNING and trial.objectives is None:
            searcher._ax.log_trial_failure(searcher._live_trial_mapping[str(trial.number)])
        super()._tell(searcher, trial, worst)


class BohbSampler(RaySampler):
    """TuneBOHB without pauses: the densities of BOHB learn from trials of whatever length.

    They go by the longest runs of which there are enough. Whole trials are that; until there are enough of them, what
    all trials reported at each step counts, that of pruned ones with it.
    """

    knows_running = False
    _WHOLE = math.inf
    """Longer than any step."""

    def _suggest(self, known: Sequence[Observation], directions: Sequence[StudyDirection], seed: int) -> Any:
        whole = sum(trial.state is TrialState.COMPLETE for trial in known)
        # Good and bad trials, each one more than there are parameters.
        self._by_step = whole < 2 * (len(self._coordinates.by_name) + 1)
        with seeded(seed), _without_deprecations():
            return super()._suggest(known, directions, seed)

    def _build(
        self, points: list[dict[str, Any]], directions: Sequence[StudyDirection], seed: int, **options: Any
    ) -> Any:
        with _without_deprecations():
            return super()._build(points, directions, seed, **options)

    def _tell(self, searcher: Any, trial: Observation, worst: float | None) -> None:
        budgets: dict[float, float] = {float(step): value for step, value in trial.reports.items()}
        if not self._by_step:
            budgets = {}
        if trial.state is TrialState.COMPLETE and trial.objectives is not None:
            budgets[self._WHOLE] = trial.objectives[0]
        elif trial.state is TrialState.RUNNING and worst is not None:
            budgets[self._WHOLE] = worst
        for budget, value in budgets.items():
            searcher.on_trial_result(str(trial.number), result([value]) | {"hyperband_info": {"budget": budget}})
        searcher.on_trial_complete(str(trial.number))


class ZooptSampler(RaySampler):
    """ZOOptSearch: SRACOS, which tells good points from bad ones by boxes around them, whoever evaluated them. To it a
    running trial is the best of the bad ones.

    Args:
        options: with the budget, by which it chooses how many points it compares.
    """

    coordinate = EvenCoordinate
    knows_running = False

    def __init__(
        self, space: SearchSpace, factory: Any, options: Mapping[str, Any], seed_option: str | None, *more: Any
    ) -> None:
        super().__init__(space, factory, options, None, *more)  # it draws from numpy's generator

    def _suggest(self, known: Sequence[Observation], directions: Sequence[StudyDirection], seed: int) -> Any:
        from zoopt import Solution

        ended = [trial for trial in known if trial.objectives is not None]
        with seeded(seed):
            searcher = self._build([], directions, seed)
            optimizer = searcher.optimizer
            first = optimizer._parameter.get_train_size()
            if len(ended) < first:
                return None  # at random, as it begins itself
            best_first = sorted((t.objectives[0] for t in ended if t.objectives), reverse=_maximizes(directions))
            # Of worse points than it keeps it takes no notice.
            lie = best_first[optimizer._parameter.get_positive_size()]
            for trial in [*ended, *(trial for trial in known if trial.state is TrialState.RUNNING)]:
                number = str(trial.number)
                searcher.solution_dict[number] = Solution(x=list(self._point(trial).values()))
                searcher._live_trial_mapping[number] = {}
                self._tell(searcher, trial, lie)
            optimizer.init_num, optimizer.live_num = first + 1, 0  # its beginning is over, nothing of its own runs
            return searcher.suggest(NEW)

    def _build(
        self, points: list[dict[str, Any]], directions: Sequence[StudyDirection], seed: int, **options: Any
    ) -> Any:
        return self._factory(
            dim_dict=self._factory.convert_search_space(self._domains()),
            metric=next(iter(result([0.0]))),
            mode="max" if _maximizes(directions) else "min",
            **self._options,
            **options,
        )

    def _domains(self) -> dict[str, Any]:
        """It has no logarithms."""
        return {key(name): domain(_even(coordinate)) for name, coordinate in self._coordinates.by_name.items()}


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Ray and hpbandster call ConfigSpace and statsmodels in ways that those will drop one day."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _maximizes(directions: Sequence[StudyDirection]) -> bool:
    return directions[0] is StudyDirection.MAXIMIZE


def _even(coordinate: Coordinate) -> Choices | Range:
    axis = coordinate.axis
    return Range(0.0, 1.0) if isinstance(axis, Range) and axis.log else axis
