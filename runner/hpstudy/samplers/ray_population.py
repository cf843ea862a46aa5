"""PopulationBasedTraining and PB2: Ray's rules over the study's trials and their checkpoints.

Ray trains a population whose weakest members, at each perturbation interval, take over the weights of strong ones with
hyperparameters near theirs. Here a member is a chain of trials: one that is to go on with another's weights, or that
makes room for members that wait, ends PRUNED, and the next trial of the chain is queued, which starts from a
checkpoint. What Ray keeps in memory is read from the trials each time, so that worker groups and restarts change
nothing; which member takes over from which, and with what, Ray's own code decides.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers.hooks import ContinuingPruner
from hpstudy.samplers.seeding import seeded
from hpstudy.space.dimensions import Dimension, SearchSpace
from hpstudy.space.ray import dimensions
from hpstudy.storage import attributes

_METRIC = "objective"
_ITERATION = "training_iteration"
_MUTATIONS = {"PopulationBasedTraining": "hyperparam_mutations", "PB2": "hyperparam_bounds"}


@dataclass(eq=False)
class _Member:
    """What Ray's schedulers look at in a trial: a member of the population, by its first trial's number."""

    number: int
    config: dict[str, Any]
    head: FrozenTrial
    """Its newest trial."""
    start: float = 0
    """Time at which that trial took over."""
    experiment_tag: str = ""
    points: list[tuple[float, float]] = field(default_factory=list)
    """Times and values of the perturbation intervals that it has come to."""

    def is_finished(self) -> bool:
        """Only those that are not are members."""
        return False

    def __str__(self) -> str:
        return str(self.number)


class PopulationPruner(BasePruner, ContinuingPruner):
    """One of the two schedulers, told of the population before it decides.

    Args:
        build: makes the scheduler for a mode ("min" or "max").
        iterations: time is counted in reports, and not in what these call their step.
    """

    def __init__(self, build: Callable[[str], Any], space: SearchSpace, *, iterations: bool) -> None:
        self._build = build
        self._space = space
        self._iterations = iterations

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial ends here and another carries on; what that one starts with is recorded on this one."""
        if attributes.NEXT in trial.user_attrs:
            return True
        scheduler = self._build("max" if study.direction is StudyDirection.MAXIMIZE else "min")
        trials = study.get_trials(deepcopy=False)
        population = self._read(trials, scheduler)
        me = next((member for member in population if member.head.number == trial.number), None)
        times = self._times(trial)
        if me is None or not times or not me.points or me.points[-1][0] != times[-1][0]:
            return False
        with seeded(int(numpy.random.SeedSequence([trial.number, len(times)]).generate_state(1)[0])):
            lower, upper = scheduler._quantiles()
            donor = upper[numpy.random.randint(len(upper))] if me in lower else me
            source = self._checkpoint(donor.head)
            if donor is not me and source is not None:
                self._tell_data(scheduler, trials, population)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # PB2's model, of few points
                    explored, _ = scheduler._get_new_config(me, donor)
                return self._go_on(study, trial, me, donor, source, self._within(explored, donor.config))
        if any(other.state is TrialState.WAITING for other in trials):  # its turn comes again
            return self._go_on(study, trial, me, me, trial.number, me.config)
        return False

    def _go_on(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        me: _Member,
        donor: _Member,
        source: int,
        config: Mapping[str, Any],
    ) -> bool:
        time, score = donor.points[-1]
        stored = {name: self._space[name].encode(value) for name, value in config.items()}
        population = {"member": me.number, "time": time, "score": score, "after": trial.number}
        record = {"continues": source, "parameters": stored, "population": population}
        study._storage.set_trial_user_attr(trial._trial_id, attributes.NEXT, record)
        return True

    def _read(self, trials: list[FrozenTrial], scheduler: Any) -> list[_Member]:
        """The members that are not at their end, in Ray's own books."""
        by_number = {trial.number: trial for trial in trials}
        heads: dict[int, FrozenTrial] = {}
        for trial in trials:
            if attributes.TAKEN_FROM not in trial.user_attrs:
                heads[_member(trial, by_number)] = trial
        population = [
            self._member(number, head, by_number, scheduler)
            for number, head in heads.items()
            if not head.state.is_finished()
        ]
        from ray.tune.schedulers.pbt import _PBTTrialState

        for member in population:
            state: Any = _PBTTrialState(cast(Any, member))
            scheduler._trial_state[member] = state
            if member.points:
                state.last_score = scheduler._metric_op * member.points[-1][1]
        return population

    def _member(self, number: int, head: FrozenTrial, by_number: Mapping[int, FrozenTrial], scheduler: Any) -> _Member:
        inherited = _origin(head, by_number).user_attrs.get(attributes.POPULATION)
        given = head.params or head.system_attrs.get(attributes.FIXED, {})
        member = _Member(number, self._space.decode(given), head)
        if inherited:
            member.start = inherited["time"]
            member.points = [(inherited["time"], inherited["score"])]
        last = member.start
        for time, value in self._times(head):
            if time >= scheduler._burn_in_period and time - last >= scheduler._perturbation_interval:
                member.points.append((time, value))
                last = time
        return member

    def _times(self, trial: FrozenTrial) -> list[tuple[float, float]]:
        reports = sorted(trial.intermediate_values.items())
        return [(index if self._iterations else step, value) for index, (step, value) in enumerate(reports, start=1)]

    def _checkpoint(self, head: FrozenTrial) -> int | None:
        """The trial whose last checkpoint a member has; one that waits has that of the trial before."""
        before: int | None = head.user_attrs.get(attributes.CONTINUES)
        for number in (head.number, before):
            if number is not None and self.has_checkpoint(number):
                return number
        return None

    def _tell_data(self, scheduler: Any, trials: list[FrozenTrial], population: list[_Member]) -> None:
        """PB2 models how much better members became in each interval, by hyperparameters."""
        if not hasattr(scheduler, "_hyperparam_bounds_flat"):
            return
        import pandas

        by_number = {trial.number: trial for trial in trials}
        names = list(scheduler._hyperparam_bounds_flat)
        rows = []
        for trial in trials:
            if trial.state is TrialState.WAITING or attributes.TAKEN_FROM in trial.user_attrs:
                continue
            past = self._member(_member(trial, by_number), trial, by_number, scheduler)
            if all(name in past.config for name in names):
                values = [past.config[name] for name in names]
                rows += [[str(past), time, *values, scheduler._metric_op * score] for time, score in past.points]
        scheduler.data = pandas.DataFrame(rows, columns=["Trial", "Time", *names, "Reward"])
        taken_over = [m for m in population if m.start and len(m.points) == 1 and all(n in m.config for n in names)]
        if taken_over:  # and have not come to an interval with what they were given
            scheduler.current = numpy.array([[float(m.config[name]) for name in names] for m in taken_over])
            scheduler.last_exploration_time = scheduler.data["Time"].max()

    def _within(self, explored: Mapping[str, Any], donor: Mapping[str, Any]) -> dict[str, Any]:
        """Ray's factors know no bounds."""
        return {name: _bounded(self._space[name], value, donor[name]) for name, value in explored.items()}


def _origin(trial: FrozenTrial, by_number: Mapping[int, FrozenTrial]) -> FrozenTrial:
    """Of a trial that runs again what was lost: the first run."""
    return by_number[attributes.first_run(trial.number, trial.user_attrs)]


def _member(trial: FrozenTrial, by_number: Mapping[int, FrozenTrial]) -> int:
    origin = _origin(trial, by_number)
    inherited = origin.user_attrs.get(attributes.POPULATION)
    return int(inherited["member"]) if inherited else origin.number


def _bounded(dimension: Dimension, value: Any, otherwise: Any) -> Any:
    match dimension.distribution:
        case CategoricalDistribution():
            try:
                dimension.encode(value)
            except ValueError:
                return otherwise
            return value
        case FloatDistribution(low=low, high=high, step=None):
            return float(min(max(value, low), high))
        case FloatDistribution(low=low, high=high, step=float(step)):
            return float(min(max(low + round((value - low) / step) * step, low), high))
        case IntDistribution(low=low, high=high, step=step):
            return int(min(max(low + round((value - low) / step) * step, low), high))
    raise AssertionError(dimension.distribution)


def build_population(
    spec: StudySpec, factory: Any, options: Mapping[str, Any], space: SearchSpace | None
) -> PopulationPruner:
    """Make the pruner of a scheduler's class.

    Raises:
        InvalidStudyError: the study keeps no checkpoints, its space is made up trial by trial, or the class refuses an
            option.
    """
    name = factory.__name__
    if spec.checkpoints is None:
        raise _invalid(
            f"pruner {name}: its trials continue from checkpoints of others; add checkpoints: {{keep: best}}"
        )
    if space is None or space.is_conditional:
        raise _invalid(
            f"pruner {name}: it needs a space that the manifest declares and of which every trial has all parameters"
        )
    arguments = {"time_attr": _ITERATION, **options}
    if arguments["time_attr"] not in (_ITERATION, "step"):
        raise _invalid(
            f"pruner.options.time_attr: must be {_ITERATION} or step, which the storage has of each report, got "
            f"{arguments['time_attr']!r}"
        )
    if "perturbation_interval" not in arguments:  # Ray's are 60 seconds
        raise _invalid(f"pruner.options.perturbation_interval: required, in {arguments['time_attr']}")
    option = _MUTATIONS[name]
    given = arguments.pop(option, None)
    if given is None:
        given = {dimension.name: _own_range(dimension, name) for dimension in space.dimensions}
    if not isinstance(given, Mapping) or not all(key in space for key in given):
        raise _invalid(f"pruner.options.{option}: names parameters of the searchSpace, got {given!r:.200}")
    mutated = {key: _mutation(key, value, name) for key, value in given.items()}

    def build(mode: str) -> Any:
        return factory(metric=_METRIC, mode=mode, **arguments, **{option: mutated})

    from ray.tune.error import TuneError

    try:
        build("min")
    except (ArithmeticError, AssertionError, TypeError, ValueError, TuneError) as error:
        raise _invalid(f"pruner {name}: {error}") from None
    return PopulationPruner(build, space, iterations=arguments["time_attr"] == _ITERATION)


def _own_range(dimension: Dimension, name: str) -> Any:
    match dimension.distribution:
        case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high) if name == "PB2":
            return [low, high]
        case CategoricalDistribution() if name == "PB2":
            raise _invalid(
                f"pruner PB2: {dimension.name} is categorical; name the numbers that it explores in "
                "options.hyperparam_bounds"
            )
        case CategoricalDistribution():
            return list(dimension.choices)
    return dimension


def _mutation(key: str, value: Any, name: str) -> Any:
    """A list of values, or a domain as in ``searchSpace.ray``."""
    if isinstance(value, list | tuple):
        return list(value)
    dimension = value if isinstance(value, Dimension) else None
    if dimension is None and isinstance(value, Mapping) and name != "PB2":
        (dimension,) = dimensions({key: value})
    if dimension is None:
        raise _invalid(f"pruner.options.{_MUTATIONS[name]}.{key}: must be a list, got {value!r:.200}")
    from ray import tune

    match dimension.distribution:
        case FloatDistribution(low=low, high=high, log=log):
            return (tune.loguniform if log else tune.uniform)(low, high)
        case IntDistribution(low=low, high=high, log=log):
            return (tune.lograndint if log else tune.randint)(low, high + 1)
    return list(dimension.choices)


def _invalid(message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_OPTION, message)
