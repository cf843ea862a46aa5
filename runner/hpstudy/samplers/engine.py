"""A backend's own optimiser as an Optuna sampler whose memory is the storage.

The engine is told anew, at every proposal, of all trials of the study, whichever group ran them: restarts and other
groups change nothing that it knows, and no group is given another's open point.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpstudy.samplers.hooks import Hooks
from hpstudy.space.dimensions import SearchSpace
from hpstudy.storage import attributes


@dataclass(frozen=True)
class Observation:
    """What an engine is told of one trial."""

    number: int
    state: TrialState
    """RUNNING, COMPLETE, PRUNED, or FAIL (one that runs again says nothing)."""
    values: Mapping[str, Any]
    """Hyperparameters that exist in it, as the trial gets them."""
    objectives: tuple[float, ...] | None = None
    """COMPLETE: one for each objective, and of a trial that breaks a constraint the worst of all trials. PRUNED: the
    last one that it reported."""
    reports: Mapping[int, float] = field(default_factory=dict)
    """Intermediate values of the objective by step."""


class SpaceSampler(BaseSampler, Hooks):
    """What samplers of a space share that propose a trial's hyperparameters all at once.

    Args:
        space: of the study.
        seed: makes proposals reproducible: that for trial k depends on the seed, k and the trials before it.
    """

    def __init__(self, space: SearchSpace, seed: int | None = None) -> None:
        self.space = space
        self._seed = int(numpy.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._random = optuna.samplers.RandomSampler(seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space; what does not exist in a trial is never asked for."""
        return self.space.distributions

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter that the engine left open."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw anew, as for a sampler that is shared by threads."""
        self._seed = int(numpy.random.SeedSequence().generate_state(1)[0])
        self._random.reseed_rng()

    def is_given(self, trial: FrozenTrial) -> bool:
        """Whether the trial came with all its values: one of the study's own, or one that is tried again."""
        given = trial.system_attrs.get(attributes.FIXED, {})
        values = self.space.decode({name: value for name, value in given.items() if name in self.space})
        return bool(given) and self.space.is_whole(values)


class EngineSampler(SpaceSampler, ABC):
    """Asks an engine that is told of the whole study at each proposal."""

    @abstractmethod
    def propose(
        self, history: Sequence[Observation], directions: Sequence[StudyDirection], number: int, seed: int
    ) -> Mapping[str, Any]:
        """Hyperparameters by name for the trial of this number; those it leaves out are drawn at random.

        Args:
            history: finished and running trials, by number.
            seed: of this proposal, below 2^32.
        """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask the engine, unless the trial came with its values."""
        if self.is_given(trial):
            return {}
        seed = int(numpy.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
        proposed = self.propose(read_history(study, self.space, trial.number), study.directions, trial.number, seed)
        return {name: self.space[name].encode(value) for name, value in proposed.items() if name in search_space}


def read_history(study: optuna.Study, space: SearchSpace, number: int) -> list[Observation]:
    """All that is known of a study when trial ``number`` is to be proposed.

    A trial that breaks a constraint is as bad as the worst one. Engines know no constraints, and told of a failure most
    of them forget the point and propose it again; a penalty beyond the values that there are would flatten the
    differences between all others in a model.
    """
    trials = study.get_trials(deepcopy=False)
    complete = [trial.values for trial in trials if trial.state is TrialState.COMPLETE]
    worst = tuple(
        max(column) if direction is StudyDirection.MINIMIZE else min(column)
        for direction, column in zip(study.directions, zip(*complete, strict=True), strict=False)
    )
    found = []
    for trial in trials:
        if trial.number == number or trial.state is TrialState.WAITING or attributes.runs_again(trial.user_attrs):
            continue
        values = space.decode(trial.params)
        if attributes.TAKEN_FROM in trial.user_attrs and not space.is_whole(values):
            continue  # half a point, whose other values were out of bounds
        reports = trial.intermediate_values
        objectives = None
        if trial.state is TrialState.COMPLETE:
            objectives = tuple(trial.values)
        elif trial.state is TrialState.PRUNED and reports:
            objectives = (reports[max(reports)],)
        if objectives and worst and any(violation > 0 for violation in trial.constraints.values()):
            objectives = worst[: len(objectives)]
        found.append(Observation(trial.number, trial.state, values, objectives, dict(reports)))
    return found
