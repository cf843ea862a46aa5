"""A sweep on a W&B server: the server proposes, its UI shows every trial, and the storage has them all.

The first group that asks makes the sweep, and its id becomes part of the stored study; every group is an agent of it.
Trials that come with their values (initial trials, those that are tried again) take no run from the server: they are
added to the sweep as runs of its own, so that the server learns from them too.
"""

import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.engine import SpaceSampler
from hpstudy.samplers.wandb_client import (
    HEARTBEAT_SECONDS,
    Agent,
    Client,
    MirroredRun,
    ServerUnreachableError,
    Suggestion,
    SweepRef,
)
from hpstudy.samplers.wandb_config import Sweep
from hpstudy.samplers.wandb_engine import nearest
from hpstudy.space.dimensions import SearchSpace
from hpstudy.storage import attributes
from hpstudy.storage.errors import OUTAGE_LIMIT

_log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds without a run from the server after which it is asked how the sweep stands."""
_KILLED = 255


class ServerSampler(SpaceSampler):
    """Takes the runs of an agent of a sweep.

    The study's loop asks it under a lock that all groups share, so that they make one sweep.

    Args:
        heartbeat_seconds: between an agent's heartbeats during a trial.
        patience: see PATIENCE.
        outage_limit: seconds that the server may be away.
    """

    def __init__(
        self,
        space: SearchSpace,
        sweep: Sweep,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        patience: float = PATIENCE,
        outage_limit: float = OUTAGE_LIMIT,
    ) -> None:
        super().__init__(space)
        self._sweep = sweep
        self._heartbeat_seconds = heartbeat_seconds
        self._patience = patience
        self._outage_limit = outage_limit
        self._client: Client | None = None
        self._agent: Agent | None = None
        self._waiting_since: float | None = None
        self._away_since: float | None = None
        self._ids: dict[int, str] = {}
        self._runs: dict[int, MirroredRun] = {}

    def is_ready(self, study: optuna.Study) -> bool:
        """Whether the server has a run, or no more at all; while it has none (a sweep that is paused), the group waits.

        Raises:
            InvalidStudyError: the server refuses the sweep or the key, or has not answered for long.
        """
        now = time.monotonic()
        try:
            agent = self._open(study)
            if agent.has_suggestion() or agent.ended:
                self._waiting_since = self._away_since = None
                return True
            self._waiting_since = now if self._waiting_since is None else self._waiting_since
            if now - self._waiting_since >= self._patience:
                agent.check()
                self._waiting_since, self._away_since = now, None
                return bool(agent.ended)
        except ServerUnreachableError as error:
            self._away_since = now if self._away_since is None else self._away_since
            if now - self._away_since >= self._outage_limit:
                message = f"no answer for {self._outage_limit / 60:g} minutes: {error}"
                raise InvalidStudyError(reasons.SAMPLER_FAILED, message) from error
            _log.warning("%s", error)
            self.close()  # the client's own process may be gone: with a new one next time
        return False

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether the sweep is over: all points of its grid were given, or somebody ended it in W&B."""
        return bool(self._agent and self._agent.ended)

    @property
    def exhausted_because(self) -> str:
        """Why, for people."""
        return self._agent.ended if self._agent else ""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Show a trial that came with its values; nothing is asked for it."""
        given = trial.system_attrs.get(attributes.FIXED)
        if not given:
            return
        try:
            self._open(study)
        except ServerUnreachableError as error:
            _log.warning("W&B does not show trial %d: %s", trial.number, error)
        if self.is_given(trial):
            self._begin(study, trial, self.space.decode(given))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Take a run from the server, unless the trial came with values; those that it lacks are drawn at random."""
        if trial.system_attrs.get(attributes.FIXED):
            return {}
        while not self.is_ready(study):  # for callers that do not ask it first, as the study's loop does
            time.sleep(self._heartbeat_seconds)
        suggestion = self._open(study).take()
        if suggestion is None:
            raise RuntimeError(self.exhausted_because)
        values = {dimension.name: self._value(dimension.name, suggestion) for dimension in self.space.dimensions}
        self._begin(study, trial, values, suggestion.run)
        return {name: self.space[name].encode(value) for name, value in values.items()}

    def observe(self, study: optuna.Study, number: int, step: int, metrics: Mapping[str, Any]) -> None:
        """Show the metrics of an evaluation that has been reported."""
        storage = study._storage
        trial = storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study._study_id, number))
        if number not in self._ids:  # it came with some of its values
            self._begin(study, trial, self.space.decode(trial.params))
        value = trial.intermediate_values.get(step)
        named = _numbers(metrics) | ({} if value is None else {self._sweep.metric: value})
        run = self._runs.get(number)
        if run is not None:
            self._try(lambda: run.log(named, step))

    def is_stopped(self, number: int) -> bool:
        """Whether the server wants the trial stopped."""
        return bool(self._agent and number in self._ids and self._agent.is_stopped(self._ids[number]))

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """End the run as the trial ended."""
        if trial.number not in self._runs and trial.params:
            self._begin(study, trial, self.space.decode(trial.params))
        run = self._runs.pop(trial.number, None)
        if run is not None:
            failed = _KILLED if attributes.runs_again(trial.user_attrs) else 1
            code = {TrialState.COMPLETE: 0, TrialState.PRUNED: _KILLED}.get(state, failed)
            self._try(lambda: run.finish(self._summary(trial, values), code))
        name = self._ids.pop(trial.number, None)
        if name is not None and self._agent:
            self._agent.release(name)

    def close(self) -> None:
        """Leave the server; what is in hand ends as killed there."""
        for run in self._runs.values():
            self._try(partial(run.finish, {}, _KILLED))
        self._runs.clear()
        if self._agent:
            self._agent.close()
        if self._client:
            self._client.close()
        self._agent = self._client = None

    def _open(self, study: optuna.Study) -> Agent:
        """Become an agent of the study's sweep, which is made where there is none yet."""
        if self._agent is not None:
            return self._agent
        if self._client is None:
            self._client = Client()
        stored = study.user_attrs.get(attributes.WANDB_SWEEP)
        if stored is None:
            ref = self._client.make_sweep(self._sweep.config, study.study_name)
            study.set_user_attr(attributes.WANDB_SWEEP, asdict(ref))
            self._show_earlier(study, self._client, ref)
        else:
            ref = SweepRef(**stored)
            if ref.server != self._client.server:
                raise InvalidStudyError(
                    reasons.SAMPLER_FAILED,
                    f"the study's sweep {ref.sweep} is on {ref.server}, and WANDB_BASE_URL is {self._client.server}: "
                    "set it back, or give the study another name",
                )
        self._agent = Agent(self._client, ref, self._heartbeat_seconds)
        return self._agent

    def _show_earlier(self, study: optuna.Study, client: Client, ref: SweepRef) -> None:
        """Trials from before there was a sweep, and those of a warm start, as runs that the server learns from."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            values = self.space.decode(trial.params)
            if self.space.is_whole(values):
                self._try(partial(self._copy, client, ref, trial, values))

    def _copy(self, client: Client, ref: SweepRef, trial: FrozenTrial, values: Mapping[str, Any]) -> None:
        run = client.start_run(ref, _new_id(), _name(trial), self._nested(values))
        run.finish(self._summary(trial, trial.values), 0)

    def _begin(
        self, study: optuna.Study, trial: FrozenTrial, values: Mapping[str, Any], run: str | None = None
    ) -> None:
        """Show a trial's run from now on, with the id that the server gave it or one of its own."""
        agent = self._agent
        if agent is None:  # the server was away, and no sweep is made outside of the lock
            return
        name = self._ids[trial.number] = run or self._ids.get(trial.number) or _new_id()
        study._storage.set_trial_user_attr(trial._trial_id, attributes.WANDB_RUN, name)
        agent.hold(name)

        def start() -> None:
            self._runs[trial.number] = agent.client.start_run(agent.ref, name, _name(trial), self._nested(values))

        self._try(start)

    def _value(self, name: str, suggestion: Suggestion) -> Any:
        dimension = self.space[name]
        first, *rest = dimension.path or (name,)
        try:
            value = suggestion.config[first]["value"]
            for key in rest:
                value = value[key]
        except (KeyError, TypeError):
            raise RuntimeError(f"the W&B server gave run {suggestion.run} without {name}") from None
        return nearest(dimension, value)

    def _summary(self, trial: FrozenTrial, values: Sequence[float] | None) -> dict[str, Any]:
        summary = _numbers(trial.user_attrs.get(attributes.METRICS, {}))
        return summary | {self._sweep.metric: values[0]} if values else summary

    def _nested(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return self.space.nested(self.space.active(values))

    def _try(self, show: Callable[[], object]) -> None:
        """What W&B shows is no reason for a trial to fail: the storage has it."""
        try:
            show()
        except Exception as error:  # the client has errors of many kinds for a server that is away
            _log.warning("W&B does not show a trial: %s: %s", type(error).__name__, error)


class StopByServerPruner(optuna.pruners.BasePruner):
    """Prunes at its next report what the server stops, and what another pruner would."""

    def __init__(self, other: optuna.pruners.BasePruner) -> None:
        self._other = other

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end."""
        sampler = study.sampler
        stopped = isinstance(sampler, ServerSampler) and sampler.is_stopped(trial.number)
        return stopped or self._other.prune(study, trial)


def _name(trial: FrozenTrial) -> str:
    return f"trial {trial.number}"


def _new_id() -> str:
    return uuid.uuid4().hex[:8]


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What W&B draws; others of a trial's metrics may be lists."""
    return {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
