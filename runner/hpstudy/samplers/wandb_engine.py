"""W&B's own search engine (package sweeps) in-process: bayes, grid, random, and hyperband as a pruner.

The engine is stateless: it is told all runs of the sweep at each call. https://github.com/wandb/sweeps
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import ModuleType
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpstudy.samplers.engine import EngineSampler, Observation, read_history
from hpstudy.samplers.hooks import WholeCurvePruner
from hpstudy.samplers.pruning import competing
from hpstudy.samplers.seeding import seeded
from hpstudy.samplers.wandb_config import Sweep
from hpstudy.space.dimensions import Dimension, SearchSpace
from hpstudy.space.wandb import grid_points

_STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "killed",
    TrialState.FAIL: "failed",
}
_METRIC = "objective"
_NONE = -1
"""In place of a trial's number: no trial is left out of the history."""


class SweepsSampler(EngineSampler):
    """Proposes what W&B's server would for the same configuration and runs.

    The engine sees choices by their places: it takes 0, False and None for absent values, and values of a grid for
    equal only when they are written alike.
    """

    def __init__(self, space: SearchSpace, sweep: Sweep) -> None:
        super().__init__(space, sweep.options.get("seed"))
        load_engine()
        self._method = sweep.method
        self._shuffled = bool(sweep.options.get("randomize_order", False))
        self._metric = {**sweep.config["metric"], "name": _METRIC}
        self._codes = {name: _Code(space[name], given, self._method) for name, given in sweep.parameters.items()}

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether the grid has no point left."""
        if self._method != "grid":
            return False
        return self._next(read_history(study, self.space, _NONE), study.directions, 0) is None

    def propose(
        self, history: Sequence[Observation], directions: Sequence[StudyDirection], number: int, seed: int
    ) -> Mapping[str, Any]:
        """See the base class; nothing, when the grid has no point left for a trial that came with some values."""
        return self._next(history, directions, seed) or {}

    def _next(
        self, history: Sequence[Observation], directions: Sequence[StudyDirection], seed: int
    ) -> dict[str, Any] | None:
        engine = load_engine()
        goal = "maximize" if directions[0] is StudyDirection.MAXIMIZE else "minimize"
        config = {
            "method": self._method,
            "metric": {**self._metric, "goal": goal},
            "parameters": {name: code.parameter for name, code in self._codes.items()},
        }
        runs = [self._run(engine, observation) for observation in history if observation.values]
        shuffled = {"randomize_order": True} if self._shuffled else {}
        while True:
            with seeded(seed), warnings.catch_warnings():
                # The Gaussian process of a few points is at the bounds of its kernel; the engine knows what to do then.
                warnings.simplefilter("ignore")
                run = engine.next_run(config, runs, **shuffled)
            if run is None:
                return None
            coded = {name: run.config[name]["value"] for name in self._codes}
            values = {name: self._codes[name].decode(value) for name, value in coded.items()}
            if self._method != "grid" or self._code(values) == coded:
                return values
            # Of points that differ only in parameters that do not exist in them, the grid has one.
            runs.append(engine.SweepRun(config=run.config))

    def _run(self, engine: ModuleType, observation: Observation) -> Any:
        found: dict[str, Any] = {
            "name": str(observation.number),
            "state": _STATES[observation.state],
            "config": {name: {"value": value} for name, value in self._code(observation.values).items()},
        }
        if observation.state is TrialState.COMPLETE:
            # The engine takes the best of history and summary; what was told to the study is the trial's value.
            assert observation.objectives is not None
            found["summary_metrics"] = {_METRIC: observation.objectives[0]}
        else:
            found["history"] = [{_METRIC: value} for _, value in sorted(observation.reports.items())]
            found["stopped"] = observation.state is TrialState.PRUNED
        return engine.SweepRun(**found)

    def _code(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters as the engine sees them; for those that do not exist in a trial, always the same."""
        active = self.space.active(values)
        return {
            name: code.encode(active[name]) if name in active else code.absent for name, code in self._codes.items()
        }


class EarlyTerminatePruner(optuna.pruners.BasePruner, WholeCurvePruner):
    """W&B's hyperband: at certain numbers of reports a trial must be among the best 1/eta of those that came so far.

    Args:
        read: returns the completed ``early_terminate`` of a sweep configuration, or None where there is none; called at
            the first report.
    """

    def __init__(self, read: Callable[[], Mapping[str, Any] | None]) -> None:
        self._read = read
        self._early_terminate: Mapping[str, Any] | None = None
        self._is_read = False

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end, from the reports of all trials of the study."""
        if not self._is_read:
            self._early_terminate, self._is_read = self._read(), True
        if self._early_terminate is None:
            return False
        engine = load_engine()
        config = {
            "metric": {"name": _METRIC, "goal": study.direction.name.lower()},
            "early_terminate": self._early_terminate,
        }
        # Only the trial in hand is judged, so the others are told as finished.
        others = [
            engine.SweepRun(name=str(other.number), state="finished", history=_reports(other))
            for other in competing(study.get_trials(deepcopy=False))
            if other.number != trial.number and other.intermediate_values
        ]
        own = engine.SweepRun(name=str(trial.number), state="running", history=_reports(trial))
        return bool(engine.stop_runs(config, [*others, own]))


def load_engine() -> ModuleType:
    """Import W&B's engine.

    Raises:
        ImportError: it is not installed; the message says how.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is written for an older pydantic
        try:
            import sweeps  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImportError(f"backend wandb needs the extra wandb (pip install 'hpstudy[wandb]'): {error}") from None
    return sweeps  # type: ignore[no-any-return]


class _Code:
    """One parameter as the engine sees it."""

    def __init__(self, dimension: Dimension, given: Mapping[str, Any], method: str) -> None:
        self._dimension = dimension
        self._points: list[Any] | None = None
        if method == "grid":
            self._points = grid_points(given)
        elif dimension.choices:
            self._points = list(dimension.choices)
        elif given["distribution"] in {"constant", "categorical"}:  # a list of numbers, or a range without width
            self._points = list(given.get("values", [given.get("value")]))
        if self._points is None:
            self.parameter = dict(given)
        elif len(self._points) == 1:
            self.parameter = {"distribution": "constant", "value": 0}
        else:
            places = list(range(len(self._points)))
            self.parameter = {**given, "values": places} if "probabilities" in given else _choices(places)
        self.absent = 0 if self._points is not None else self._middle()

    def encode(self, value: Any) -> Any:
        """A value as the engine sees it; one of an enqueued trial that is on no point goes to the nearest."""
        if self._points is None:
            return value
        for place, point in enumerate(self._points):
            if type(point) is type(value) and point == value:
                return place
        if isinstance(self._dimension.distribution, CategoricalDistribution):
            return next(place for place, point in enumerate(self._points) if point == value)
        points = self._points
        return min(range(len(points)), key=lambda place: abs(points[place] - value))

    def decode(self, coded: Any) -> Any:
        """What the engine proposed as the trial gets it."""
        value = coded if self._points is None else self._points[int(coded)]
        return nearest(self._dimension, value)

    def _middle(self) -> float:
        distribution = self._dimension.distribution
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high = distribution.low, distribution.high
        middle = math.sqrt(low) * math.sqrt(high) if distribution.log else (low + high) / 2
        return float(nearest(self._dimension, middle))


def nearest(dimension: Dimension, value: Any) -> Any:
    """The value of the dimension that is nearest to a number from W&B, which may be off by a rounding error, or off the
    end by one draw of a normal distribution in 10^15. Choices are left as they are."""
    distribution = dimension.distribution
    if isinstance(distribution, CategoricalDistribution):
        return value
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    number = min(max(float(value), distribution.low), distribution.high)
    if isinstance(distribution, IntDistribution):
        return distribution.low + round((number - distribution.low) / distribution.step) * distribution.step
    if distribution.step is None:
        return number
    steps = round((number - distribution.low) / distribution.step)
    return float(Decimal(str(distribution.low)) + steps * Decimal(str(distribution.step)))


def _choices(values: list[int]) -> dict[str, Any]:
    return {"distribution": "categorical", "values": values}


def _reports(trial: FrozenTrial) -> list[dict[str, float]]:
    return [{_METRIC: value} for _, value in sorted(trial.intermediate_values.items())]
