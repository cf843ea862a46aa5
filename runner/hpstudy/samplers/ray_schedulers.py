"""Ray Tune's schedulers as pruners.

A scheduler of Ray lives in one process and hears of each result once. Here every worker group has its own, and each is
told what the storage says: the same reports give the same decision, in whichever group and after any restart.

Ray's time attribute is a trial's reports, counted from one (``training_iteration``), or the step that it reported
(``step``: an epoch, a number of batches). A trial is stopped or goes on, it never waits.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.hooks import WholeCurvePruner
from hpstudy.samplers.pruning import competing
from hpstudy.samplers.seeding import seeded
from hpstudy.storage import attributes

_METRIC = "objective"
_ITERATION = "training_iteration"
_TIMES = (_ITERATION, "step")


@dataclass(eq=False)
class _Trial:
    """What Ray's schedulers look at in a trial."""

    trial_id: str
    status: str = "PENDING"
    is_saving: bool = False


class RayPruner(BasePruner, WholeCurvePruner, ABC):
    """A scheduler that is told of the study before it decides.

    Args:
        build: makes the scheduler for a mode ("min" or "max").
    """

    def __init__(self, build: Callable[[str], Any]) -> None:
        self._build = build

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the scheduler stops the trial at its latest report."""
        if not trial.intermediate_values:
            return False
        known = {
            other.number: other
            for other in competing(study.get_trials(deepcopy=False))
            if other.intermediate_values or other.state is TrialState.RUNNING
        }
        known[trial.number] = trial
        # The place of a trial, and so its bracket, stay the same when it has to run again.
        known = dict(sorted(known.items(), key=lambda item: _first_run(item[1])))
        return self.decide(known, trial, "max" if _is_maximized(study) else "min")

    @abstractmethod
    def decide(self, known: Mapping[int, FrozenTrial], trial: FrozenTrial, mode: str) -> bool:
        """See :meth:`prune`.

        Args:
            known: the trials of the study by number, in the order of their first runs, the one in question among them.
        """


class FollowingPruner(RayPruner):
    """AsyncHyperBandScheduler, which compares a trial with what others had reached. In which order they got there makes
    no difference to it, so it is kept, and told what is new."""

    def __init__(self, build: Callable[[str], Any]) -> None:
        super().__init__(build)
        self._scheduler: Any = None

    def decide(self, known: Mapping[int, FrozenTrial], trial: FrozenTrial, mode: str) -> bool:
        """See :class:`RayPruner`."""
        if self._scheduler is None or not self._trials.keys() <= known.keys():  # one of them lost its worker
            self._scheduler = self._build(mode)
            self._trials: dict[int, _Trial] = {}
            self._told: dict[int, set[int]] = {}
            self._ended: set[int] = set()
            self._stopped: set[int] = set()
        for other in known.values():
            if other.number != trial.number and other.number not in self._ended:
                self._follow(other)
        news = self._news(trial)
        if trial.number not in self._stopped and news and self._ask(self._trials[trial.number], news):
            self._stopped.add(trial.number)
        return trial.number in self._stopped

    def _follow(self, other: FrozenTrial) -> None:
        news, ray_trial = self._news(other), self._trials[other.number]
        for result in news:
            self._scheduler.on_trial_result(None, ray_trial, result)
        if other.state.is_finished():
            self._ended.add(other.number)
            results = _results(other)
            if results and other.state is not TrialState.FAIL:
                self._scheduler.on_trial_complete(None, ray_trial, results[-1])

    def _ask(self, ray_trial: _Trial, news: list[dict[str, Any]]) -> bool:
        actions = [self._scheduler.on_trial_result(None, ray_trial, result) for result in news]
        return bool(actions[-1] == self._scheduler.STOP)

    def _news(self, trial: FrozenTrial) -> list[dict[str, Any]]:
        if trial.number not in self._trials:
            ray_trial = _Trial(str(trial.number), "RUNNING")
            with seeded(_first_run(trial)):  # it draws the bracket from numpy's own generator
                self._scheduler.on_trial_add(None, ray_trial)
            self._trials[trial.number], self._told[trial.number] = ray_trial, set()
        told = self._told[trial.number]
        news = [result for result in _results(trial) if result["step"] not in told]
        told.update(result["step"] for result in news)
        return news


class MedianPruner(FollowingPruner):
    """MedianStoppingRule, which must hear nothing more of a trial that it has stopped: the others' results, which it is
    told late and in another order, are told it as of trials that have ended."""

    def _follow(self, other: FrozenTrial) -> None:
        for result in self._news(other):
            self._scheduler.on_trial_complete(None, self._trials[other.number], result)
        if other.state.is_finished():
            self._ended.add(other.number)

    def _ask(self, ray_trial: _Trial, news: list[dict[str, Any]]) -> bool:
        *before, last = news
        for result in before:
            self._scheduler.on_trial_complete(None, ray_trial, result)
        return bool(self._scheduler.on_trial_result(_NOBODY, ray_trial, last) == self._scheduler.STOP)


class ReplayingPruner(RayPruner):
    """HyperBandScheduler, which halves a bracket of trials when all of them have come as far as the weakest must. It
    pauses those that are there first; here they go on, and end when the bracket has decided against them."""

    def decide(self, known: Mapping[int, FrozenTrial], trial: FrozenTrial, mode: str) -> bool:
        """See :class:`RayPruner`."""
        controller = _Controller(self._build(mode), known)
        controller.run()
        return controller.trials[trial.number].status == "STOPPED"


class _Controller:
    """Ray's own runs trials; this one goes through what they have reported."""

    def __init__(self, scheduler: Any, known: Mapping[int, FrozenTrial]) -> None:
        self._scheduler = scheduler
        self.trials = {number: _Trial(str(number)) for number in known}
        self._known = known
        self._left = {number: iter(_results(trial)) for number, trial in known.items()}

    def run(self) -> None:
        """Until no trial is left that both may go on and has something to tell."""
        for trial in self.trials.values():
            self._scheduler.on_trial_add(self, trial)
        while (trial := self._scheduler.choose_trial_to_run(self)) is not None:
            trial.status = "RUNNING"
            self._train(trial)

    def _train(self, trial: _Trial) -> None:
        last = None
        for last in self._left[int(trial.trial_id)]:
            action = self._scheduler.on_trial_result(self, trial, last)
            if action == self._scheduler.STOP:
                self.stop_trial(trial)
            elif action == self._scheduler.PAUSE:
                trial.status = "PAUSED"
            if trial.status != "RUNNING":
                return
        if self._known[int(trial.trial_id)].state.is_finished():
            self._scheduler.on_trial_complete(self, trial, last)
            trial.status = "TERMINATED"

    def stop_trial(self, trial: _Trial) -> None:
        """As Ray's: the scheduler calls it for trials that it had paused."""
        if trial.status in ("PENDING", "PAUSED"):
            self._scheduler.on_trial_remove(self, trial)
        elif trial.status == "RUNNING":
            self._scheduler.on_trial_complete(self, trial, None)
        trial.status = "STOPPED"


class _Nobody:
    """MedianStoppingRule asks its controller for trials to run in place of the one at hand."""

    def get_live_trials(self) -> list[_Trial]:
        """None wait: worker groups ask when they are free."""
        return []


_NOBODY = _Nobody()


def _results(trial: FrozenTrial) -> list[dict[str, Any]]:
    return [
        {_METRIC: value, _ITERATION: index, "step": step}
        for index, (step, value) in enumerate(sorted(trial.intermediate_values.items()), start=1)
    ]


def _first_run(trial: FrozenTrial) -> int:
    return attributes.first_run(trial.number, trial.user_attrs)


def _is_maximized(study: optuna.Study) -> bool:
    return study.direction is StudyDirection.MAXIMIZE


@dataclass(frozen=True)
class Scheduler:
    """What is particular to one of Ray's schedulers."""

    module: str
    """Below ray.tune.schedulers."""
    pruner: type[RayPruner]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Where Ray's own would make no sense."""
    managed: dict[str, str] = field(default_factory=dict)
    """More of ``MANAGED``."""


# Ray ends a trial well at max_t. Here that would prune those that have come to their last report, the best among them.
_GO_ON = {"time_attr": _ITERATION, "stop_last_trials": False}
_ASHA = Scheduler("async_hyperband", FollowingPruner, _GO_ON)
SCHEDULERS = {
    "ASHAScheduler": _ASHA,
    "AsyncHyperBandScheduler": _ASHA,
    "HyperBandScheduler": Scheduler("hyperband", ReplayingPruner, _GO_ON),
    "MedianStoppingRule": Scheduler(
        "median_stopping_rule",
        MedianPruner,
        {"time_attr": _ITERATION, "grace_period": 1.0},  # Ray's are seconds, and 60 of them
        {"hard_stop": "no trial can be paused", "min_time_slice": "no trial can be paused"},
    ),
}
POPULATIONS = {"PopulationBasedTraining": "pbt", "PB2": "pb2"}
"""Those of ``ray_population.py``, with their modules below ray.tune.schedulers."""
MANAGED_OF_POPULATIONS = {
    "synch": "a trial never waits for others",
    "custom_explore_fn": "a manifest holds no function",
    "log_config": "the storage has every step",
    "require_attrs": "the storage has both of each report",
}
UNSUPPORTED_SCHEDULERS = {
    "FIFOScheduler": "it stops no trial; leave pruner out",
    "HyperBandForBOHB": "it pauses trials, which a study cannot do; take HyperBandScheduler",
    "PopulationBasedTrainingReplay": "it follows a log that only Ray's own runs leave; take PopulationBasedTraining",
    "ResourceChangingScheduler": "the resources of a worker group stay as they are",
}
MANAGED = {"metric": "objectives say it", "mode": "objectives say it"}


def build_scheduler(scheduler: Scheduler, factory: Any, options: Mapping[str, Any]) -> RayPruner:
    """Make the pruner of a scheduler's class.

    Raises:
        InvalidStudyError: the class refuses an option.
    """
    arguments = {**scheduler.defaults, **options}
    if arguments["time_attr"] not in _TIMES:
        raise InvalidStudyError(
            reasons.INVALID_OPTION,
            f"pruner.options.time_attr: must be {' or '.join(_TIMES)}, which the storage has of each report, got "
            f"{arguments['time_attr']!r}",
        )

    def build(mode: str) -> Any:
        return factory(metric=_METRIC, mode=mode, **arguments)

    try:
        with warnings.catch_warnings(), seeded(0):
            warnings.simplefilter("ignore")  # a division by zero, on its way to an error
            build("min").on_trial_add(None, _Trial("0"))
    except (ArithmeticError, AssertionError, TypeError, ValueError) as error:
        raise InvalidStudyError(reasons.INVALID_OPTION, f"pruner {factory.__name__}: {error}") from None
    return scheduler.pruner(build)
