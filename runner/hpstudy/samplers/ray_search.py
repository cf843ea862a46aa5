"""Ray Tune's searchers as samplers.

At each proposal a fresh searcher is told of the study through Ray's own interface: the trials are its
``points_to_evaluate``, it suggests them in order, and is told the results of those that have ended. The others stay
open in it. Replaying 100 trials takes 40 ms.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import numpy
import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.coordinates import Choices, Coordinate, Coordinates, Range, UnitCoordinate
from hpstudy.samplers.engine import EngineSampler, Observation, read_history
from hpstudy.space.dimensions import SearchSpace

VARIANTS = "BasicVariantGenerator"
_NEW = "new"
_METRIC = "objective"


class RaySampler(EngineSampler):
    """One of ``ray.tune.search``.

    Args:
        factory: its class.
        options: arguments of the class.
        seed_option: the argument that is its seed; None where it has none.
        objectives: of the study.

    Raises:
        InvalidStudyError: the class refuses an option, or a parameter of the space.
    """

    coordinate: type[Coordinate] = Coordinate

    def __init__(
        self,
        space: SearchSpace,
        factory: Any,
        options: Mapping[str, Any],
        seed_option: str | None,
        seed: int | None,
        objectives: int,
    ) -> None:
        super().__init__(space, seed)
        self._factory = factory
        self._options = dict(options)
        self._seed_option = seed_option
        self._coordinates = Coordinates(space, self.coordinate)
        try:
            self._build([], [StudyDirection.MINIMIZE] * objectives, 0)
        except (AssertionError, NotImplementedError, TypeError, ValueError) as error:
            raise InvalidStudyError(reasons.INVALID_OPTION, f"sampler {factory.__name__}: {error}") from None

    def propose(
        self, history: Sequence[Observation], directions: Sequence[StudyDirection], number: int, seed: int
    ) -> Mapping[str, Any]:
        """See :class:`EngineSampler`. Where the searcher has no suggestion for now, the trial is drawn at random."""
        if not self._coordinates.by_name:
            return self._coordinates.constants
        known = [trial for trial in history if trial.values]  # one that is only just being made has none
        suggested = self._suggest(known, directions, seed)
        if not isinstance(suggested, Mapping):
            return self._coordinates.draw(seed)
        return self._coordinates.values({unquote(name): place for name, place in suggested.items()})

    def _suggest(self, known: Sequence[Observation], directions: Sequence[StudyDirection], seed: int) -> Any:
        searcher = self._build([self._point(trial) for trial in known], directions, seed)
        for trial in known:
            searcher.suggest(str(trial.number))
            if trial.state is not TrialState.RUNNING:
                self._tell(searcher, trial)
        return searcher.suggest(_NEW)

    def _tell(self, searcher: Any, trial: Observation) -> None:
        """Ray tells a searcher of a trial that a scheduler stopped as of one that ended."""
        if trial.objectives is None:
            searcher.on_trial_complete(str(trial.number), error=True)
        else:
            searcher.on_trial_complete(str(trial.number), _result(trial.objectives))

    def _build(
        self, points: list[dict[str, Any]], directions: Sequence[StudyDirection], seed: int, **options: Any
    ) -> Any:
        modes = ["max" if direction is StudyDirection.MAXIMIZE else "min" for direction in directions]
        metrics = list(_result([0.0] * len(modes)))
        several = len(modes) > 1
        options = self._options | options
        if self._seed_option:
            options[self._seed_option] = seed
        return self._factory(
            self._factory.convert_search_space(self._domains()) if self._coordinates.by_name else None,
            metric=metrics if several else metrics[0],
            mode=modes if several else modes[0],
            points_to_evaluate=points or None,
            **options,
        )

    def _domains(self) -> dict[str, Any]:
        return {quote(name, safe=""): _domain(axis) for name, axis in self._coordinates.axes.items()}

    def _point(self, trial: Observation) -> dict[str, Any]:
        """Choices are text: to some searchers numbers have an order."""
        return {
            quote(name, safe=""): str(place) if isinstance(self._coordinates.by_name[name].axis, Choices) else place
            for name, place in self._coordinates.places(trial.values, trial.number).items()
        }


class OptunaSearchSampler(RaySampler):
    """OptunaSearch knows what a pruned trial reported."""

    def _tell(self, searcher: Any, trial: Observation) -> None:
        if trial.state is not TrialState.PRUNED or not trial.reports:
            super()._tell(searcher, trial)
            return
        for step, value in trial.reports.items():
            searcher.on_trial_result(str(trial.number), {**_result([value]), "training_iteration": step})
        searcher.on_trial_complete(str(trial.number))


class BayesOptSampler(RaySampler):
    """BayesOptSearch, over the unit cube: its Gaussian process has one length scale for all parameters, and its own
    comparison of points goes by five decimals.

    Ray's searcher waits when ``random_search_steps`` trials run or failed; here it goes on at random. A running trial
    counts as if it had the worst value so far, so that no other is proposed beside it.
    """

    coordinate = UnitCoordinate

    def __init__(self, space: SearchSpace, factory: Any, options: Mapping[str, Any], *more: Any) -> None:
        choices = [d.name for d in space.dimensions if d.choices and not d.distribution.single()]
        if choices:
            raise InvalidStudyError(
                reasons.INVALID_SPACE,
                f"searchSpace: {', '.join(choices)} is categorical, which BayesOptSearch has not; take OptunaSearch",
            )
        options = dict(options)
        self._random_steps = options.pop("random_search_steps", 10)
        if self._random_steps < 0:
            raise InvalidStudyError(reasons.INVALID_OPTION, "sampler.options.random_search_steps: must not be negative")
        super().__init__(space, factory, options, *more)

    def _suggest(self, known: Sequence[Observation], directions: Sequence[StudyDirection], seed: int) -> Any:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        with threadpool_limits(1):  # matrices this small take ten times as long on two threads, and trials need those
            return self._suggest_on_one_thread(known, directions, seed)

    def _suggest_on_one_thread(
        self, known: Sequence[Observation], directions: Sequence[StudyDirection], seed: int
    ) -> Any:
        points = {tuple(self._point(trial).values()): trial for trial in reversed(known)}
        trials = list(reversed(points.values()))  # it refuses a point that it knows already
        values = [trial.objectives[0] for trial in trials if trial.objectives is not None]
        searcher = self._build([self._point(trial) for trial in trials], directions, seed)
        for trial in trials:
            searcher.suggest(str(trial.number))
            if len(values) < max(self._random_steps, 1):
                continue
            if trial.state is TrialState.RUNNING:
                worst = max(values) if directions[0] is StudyDirection.MINIMIZE else min(values)
                searcher.on_trial_complete(str(trial.number), _result([worst]))
            else:
                self._tell(searcher, trial)
        return searcher.suggest(_NEW)

    def _build(
        self, points: list[dict[str, Any]], directions: Sequence[StudyDirection], seed: int, **options: Any
    ) -> Any:
        # It would end the search after so many repetitions of a point; the budget does that here.
        return super()._build(points, directions, seed, random_search_steps=0, patience=len(points) + 2)

    def _domains(self) -> dict[str, Any]:
        from ray import tune

        return {quote(name, safe=""): tune.uniform(0.0, 1.0) for name in self._coordinates.by_name}


class VariantSampler(EngineSampler):
    """Ray's BasicVariantGenerator: every combination of the grid, in Ray's order, with the other parameters at random.

    A combination counts as tried by its values, whichever trial had them. When all were tried the next round begins, or
    the study is over where there is nothing but the grid.

    Args:
        grid: names of the grid's parameters.
        constant_grid_search: the other parameters are drawn once a round.
    """

    def __init__(
        self, space: SearchSpace, grid: frozenset[str], *, seed: int | None = None, constant_grid_search: bool = False
    ) -> None:
        super().__init__(space, seed)
        self._coordinates = Coordinates(space)
        self._grid = [name for name in self._coordinates.by_name if name in grid]
        self._is_grid = bool(grid) and all(name in grid for name in self._coordinates.by_name)
        self._constant = constant_grid_search
        self._variants: list[dict[str, Any]] = []
        self._more = self._generate() if self._grid else iter([{}])

    def propose(
        self, history: Sequence[Observation], directions: Sequence[StudyDirection], number: int, seed: int
    ) -> Mapping[str, Any]:
        """See :class:`EngineSampler`."""
        variant, rounds = self._next(history)
        if self._constant:
            seed = int(numpy.random.SeedSequence([self._seed, rounds]).generate_state(1)[0])
        return self._coordinates.values({**self._draw(seed), **variant})

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether there is nothing but the grid, and all of it was tried or is running."""
        return self._is_grid and self._next(read_history(study, self.space, -1))[1] > 0

    def _next(self, history: Sequence[Observation]) -> tuple[dict[str, Any], int]:
        """The first combination of those that were tried least, and how often it was."""
        tried = Counter(
            tuple(str(self._coordinates.by_name[name].place(trial.values[name])) for name in self._grid)
            for trial in history
            if all(name in trial.values for name in self._grid)
        )
        while len(self._variants) <= len(tried) and (more := next(self._more, None)) is not None:
            self._variants.append(more)
        counts = [tried[tuple(variant[name] for name in self._grid)] for variant in self._variants]
        least = min(counts)
        return self._variants[counts.index(least)], least

    def _generate(self) -> Iterator[dict[str, Any]]:
        """Combinations as Ray makes them, one after the other: there may be millions."""
        from ray import tune
        from ray.tune.search.variant_generator import generate_variants

        axes = self._coordinates.axes
        spec = {}
        for name in self._grid:
            axis = axes[name]
            assert isinstance(axis, Choices)
            spec[quote(name, safe="")] = tune.grid_search([str(place) for place in range(axis.count)])
        for _, variant in generate_variants(spec):
            yield {unquote(name): place for name, place in variant.items()}

    def _draw(self, seed: int) -> dict[str, Any]:
        from ray.tune.search.variant_generator import generate_variants

        spec = {
            quote(name, safe=""): _domain(axis)
            for name, axis in self._coordinates.axes.items()
            if name not in self._grid
        }
        _, drawn = next(iter(generate_variants(spec, random_state=numpy.random.RandomState(seed))))
        return {unquote(name): place for name, place in drawn.items()}


def _domain(axis: Choices | Range) -> Any:
    """An axis as one of Ray's."""
    from ray import tune

    if isinstance(axis, Choices):
        return tune.choice([str(place) for place in range(axis.count)])
    if axis.whole:
        integers = tune.lograndint if axis.log else tune.randint
        return integers(int(axis.low), int(axis.high) + 1)
    return (tune.loguniform if axis.log else tune.uniform)(axis.low, axis.high)


def _result(values: Sequence[float]) -> dict[str, float]:
    return {f"{_METRIC}-{index}": value for index, value in enumerate(values)}


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
    seed: str | None
    """Its option that is the seed."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """What it needs beside Ray: what pip installs, by the module to import."""
    sampler: type[RaySampler] = RaySampler
    many_objectives: bool = False
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
    "HyperOptSearch": Searcher("hyperopt.hyperopt_search", "random_state_seed", {"hyperopt": "hyperopt"}),
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
UNSUPPORTED_SEARCHERS: Mapping[str, str] = {}
