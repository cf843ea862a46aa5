"""Ray Tune's searchers as samplers.

At each proposal a fresh searcher is told of the study through Ray's own interface: the trials are its
``points_to_evaluate``, it suggests them in order, and is told the results of those that have ended. The others stay
open in it. Replaying 100 trials takes 40 ms.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.coordinates import Choices, Coordinate, Coordinates, UnitCoordinate
from hpstudy.samplers.engine import EngineSampler, Observation
from hpstudy.samplers.ray_domains import domain, key, name_of
from hpstudy.samplers.seeding import seeded
from hpstudy.space.dimensions import SearchSpace

NEW = "new"
"""The trial that is proposed."""
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
    knows_running = True
    """Whether it keeps away from what it has suggested and not heard of. Others are told of a running trial as of one
    that ended with the worst value so far."""
    arguments: ClassVar[Mapping[str, Any]] = {}
    """More that it is built with."""

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
        return self._coordinates.values({name_of(given): place for given, place in suggested.items()})

    def _suggest(self, known: Sequence[Observation], directions: Sequence[StudyDirection], seed: int) -> Any:
        searcher = self._build([self._point(trial) for trial in known], directions, seed)
        worst = worst_of(known, directions)
        for trial in known:
            searcher.suggest(str(trial.number))
            self._tell(searcher, trial, worst)
        return searcher.suggest(NEW)

    def _tell(self, searcher: Any, trial: Observation, worst: float | None) -> None:
        """Ray tells a searcher of a trial that a scheduler stopped as of one that ended."""
        if trial.state is TrialState.RUNNING:
            if not self.knows_running and worst is not None:
                searcher.on_trial_complete(str(trial.number), result([worst]))
        elif trial.objectives is None:
            searcher.on_trial_complete(str(trial.number), error=True)
        else:
            searcher.on_trial_complete(str(trial.number), result(trial.objectives))

    def _build(
        self, points: list[dict[str, Any]], directions: Sequence[StudyDirection], seed: int, **options: Any
    ) -> Any:
        modes = ["max" if direction is StudyDirection.MAXIMIZE else "min" for direction in directions]
        metrics = list(result([0.0] * len(modes)))
        several = len(modes) > 1
        options = {**self._options, **self.arguments, **options}
        if self._seed_option:
            options[self._seed_option] = seed
        return self._factory(
            space=self._factory.convert_search_space(self._domains()) if self._coordinates.by_name else None,
            metric=metrics if several else metrics[0],
            mode=modes if several else modes[0],
            points_to_evaluate=points or None,
            **options,
        )

    def _domains(self) -> dict[str, Any]:
        return {key(name): domain(axis) for name, axis in self._coordinates.axes.items()}

    def _point(self, trial: Observation) -> dict[str, Any]:
        """Choices are text: to some searchers numbers have an order."""
        return {
            key(name): str(place) if isinstance(self._coordinates.by_name[name].axis, Choices) else place
            for name, place in self._coordinates.places(trial.values, trial.number).items()
        }


class OptunaSearchSampler(RaySampler):
    """OptunaSearch knows what a pruned trial reported."""

    def _tell(self, searcher: Any, trial: Observation, worst: float | None) -> None:
        if trial.state is not TrialState.PRUNED or not trial.reports:
            super()._tell(searcher, trial, worst)
            return
        for step, value in trial.reports.items():
            searcher.on_trial_result(str(trial.number), {**result([value]), "training_iteration": step})
        searcher.on_trial_complete(str(trial.number))


class BayesOptSampler(RaySampler):
    """BayesOptSearch, over the unit cube: its Gaussian process has one length scale for all parameters, and its own
    comparison of points goes by five decimals.

    Ray's searcher waits when ``random_search_steps`` trials run or failed; here it goes on at random.
    """

    coordinate = UnitCoordinate
    knows_running = False

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
        # It refuses a point that it knows already. Of several trials the one that says most is told.
        by_point: dict[tuple[float, ...], Observation] = {}
        for trial in sorted(known, key=_says):
            by_point[tuple(self._point(trial).values())] = trial
        trials = sorted(by_point.values(), key=lambda trial: trial.number)
        results = sum(trial.objectives is not None for trial in trials)
        searcher = self._build([self._point(trial) for trial in trials], directions, seed)
        for trial in trials:
            searcher.suggest(str(trial.number))
            if results >= max(self._random_steps, 1):
                self._tell(searcher, trial, worst_of(trials, directions))
        suggested = searcher.suggest(NEW)
        if not isinstance(suggested, Mapping) or not self._options.get("skip_duplicate", True):
            return suggested
        # To the searcher, places between two whole numbers differ.
        rounded = [c.place(c.value(suggested[key(n)])) for n, c in self._coordinates.by_name.items()]
        return None if tuple(rounded) in by_point else suggested

    def _build(
        self, points: list[dict[str, Any]], directions: Sequence[StudyDirection], seed: int, **options: Any
    ) -> Any:
        # It would end the search after so many repetitions of a point; the budget does that here.
        return super()._build(points, directions, seed, random_search_steps=0, patience=len(points) + 2)

    def _domains(self) -> dict[str, Any]:
        from ray import tune

        return {key(name): tune.uniform(0.0, 1.0) for name in self._coordinates.by_name}


class HeboSampler(RaySampler):
    """HEBOSearch, which seeds the generators of the whole process. From 0.6.1 on, pymoo draws for it without a seed."""

    knows_running = False
    arguments: ClassVar[Mapping[str, Any]] = {"max_concurrent": 1}

    def _suggest(self, known: Sequence[Observation], directions: Sequence[StudyDirection], seed: int) -> Any:
        import torch

        with seeded(seed), torch.random.fork_rng(devices=[]):
            return super()._suggest(known, directions, seed)


class NevergradSampler(RaySampler):
    """NevergradSearch. Its optimizer is named as in Nevergrad, and takes its seed from numpy's generator: Ray's
    searcher has no option for it."""

    knows_running = False
    optimizers = ("DE", "OnePlusOne", "PSO", "TwoPointsDE")
    """Those that learn from a replay as from trials of their own. CMA does not: told of points that it did not draw, it
    keeps to where it began."""

    def __init__(
        self, space: SearchSpace, factory: Any, options: Mapping[str, Any], seed_option: str | None, *more: Any
    ) -> None:
        from nevergrad.optimization import registry

        name = options.get("optimizer")
        if name not in self.optimizers:
            raise InvalidStudyError(
                reasons.INVALID_OPTION,
                f"sampler.options.optimizer: must be one of {', '.join(self.optimizers)}, got {name!r}",
            )
        super().__init__(space, factory, {**options, "optimizer": registry[name]}, None, *more)

    def _suggest(self, known: Sequence[Observation], directions: Sequence[StudyDirection], seed: int) -> Any:
        with seeded(seed):
            return super()._suggest(known, directions, seed)


def _says(trial: Observation) -> int:
    """How much a trial says of its point: a result most, a failure least."""
    return 2 if trial.objectives is not None else int(trial.state is TrialState.RUNNING)


def worst_of(trials: Sequence[Observation], directions: Sequence[StudyDirection]) -> float | None:
    """The worst value so far."""
    values = [trial.objectives[0] for trial in trials if trial.objectives is not None]
    return (max if directions[0] is StudyDirection.MINIMIZE else min)(values, default=None)


def result(values: Sequence[float]) -> dict[str, Any]:
    """What Ray tells a searcher."""
    return {f"{_METRIC}-{index}": value for index, value in enumerate(values)}
