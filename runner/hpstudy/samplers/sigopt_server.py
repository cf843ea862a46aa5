"""A study as an experiment on a sigopt-server: a suggestion for each trial, an observation of each result.

The storage stays the study's memory and the server mirrors it. What the server missed (a worker died, or it was away
itself) is made good at the next ask, and an experiment that was deleted there is made again with all observations. A
trial's number is in the metadata of its suggestion and its observation, so that nothing is reported twice. Asks come
one at a time: trials are asked for under the study's budget lock.
"""

import hashlib
import itertools
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.engine import SpaceSampler
from hpstudy.samplers.sigopt_client import RequestRefusedError, ServerAwayError, SigOptServer
from hpstudy.samplers.sigopt_experiment import Experiment
from hpstudy.storage import attributes
from hpstudy.storage.errors import OUTAGE_LIMIT

_log = logging.getLogger(__name__)

MAX_STUDY_NAME = 100
"""Characters of an experiment's name."""
_RETRY_SECONDS = 2.0


class ServerSampler(SpaceSampler):
    """Takes suggestions from the server and reports trials to it.

    Args:
        experiment: the study as SigOpt sees it.
        server: that mirrors it.
        url: of the server; on another server the study has another experiment.
        kind: SigOpt's type of experiment, "offline" (optimised) or "random".
        project: id of an existing project.
        linear_constraints: as in SigOpt's experiment.
        parallelism: trials that run side by side.
    """

    def __init__(
        self,
        experiment: Experiment,
        server: SigOptServer,
        url: str,
        *,
        kind: str = "offline",
        project: str | None = None,
        linear_constraints: Sequence[Mapping[str, Any]] = (),
        parallelism: int = 1,
    ) -> None:
        super().__init__(experiment.space)
        self._experiment = experiment
        self._server = server
        definition = {"type": kind, **experiment.conditional_definition(), "metrics": experiment.metrics}
        definition |= {"project": project} if project else {}
        definition |= {"linear_constraints": list(linear_constraints)} if linear_constraints else {}
        self._definition = definition
        self._size = {"observation_budget": experiment.budget, "parallel_bandwidth": parallelism}
        self._digest = hashlib.sha256(json.dumps([url, definition], sort_keys=True).encode()).hexdigest()
        self._id = ""
        self._observed: set[int] = set()
        self._away_since: float | None = None
        self._is_fresh = False

    def is_ready(self, study: optuna.Study) -> bool:
        """Bring the server up to date; while it is away, the group waits.

        Raises:
            InvalidStudyError: the server refuses the experiment or the token, or has been away for long.
        """
        if not self._experiment.parameters:
            return True
        try:
            if not self._id:
                self._id = self._open(study)
            self._mirror(study)
        except ServerAwayError as error:
            now = time.monotonic()
            self._away_since = now if self._away_since is None else self._away_since
            if now - self._away_since >= OUTAGE_LIMIT:
                raise InvalidStudyError(
                    reasons.SAMPLER_FAILED,
                    f"sampler: the SigOpt server has not answered for {OUTAGE_LIMIT / 60:g} minutes: {error}",
                ) from None
            _log.warning("the SigOpt server does not answer: %s", error)
            return False
        self._away_since = None
        self._is_fresh = True
        return True

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Bring the server up to date for a trial that came with its values; it runs without the server too."""
        if trial.system_attrs.get(attributes.FIXED):
            self.is_ready(study)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Take a suggestion, unless the trial came with its values."""
        if not self._experiment.parameters:
            return self._encode(self._experiment.values({}))
        if self.is_given(trial):
            return {}
        suggestion, assignments = self._suggest(study, trial.number)
        if trial.system_attrs.get(attributes.FIXED):
            # Some values are the study's own: it will not be the trial that the server suggested.
            self._server.delete_suggestion(self._id, suggestion)
        else:
            study._storage.set_trial_user_attr(trial._trial_id, attributes.SIGOPT_SUGGESTION, [self._id, suggestion])
        return self._encode(self._experiment.values(assignments))

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Report the trial at once; where that fails, the next ask does it."""
        if not self._id or attributes.runs_again(trial.user_attrs) or not trial.params:
            return
        try:
            self._report(trial, state, values)
        except Exception as error:  # the result is on its way to the storage, nothing may stop it
            _log.warning("trial %d is not on the SigOpt server yet: %s", trial.number, error)

    def _suggest(self, study: optuna.Study, number: int) -> tuple[str, dict[str, Any]]:
        for tries in itertools.count():
            # The study's loop asks whether the server is ready before it makes a trial; others do not.
            if self._is_fresh or self.is_ready(study):
                self._is_fresh = False
                try:
                    return self._server.suggest(self._id, number)
                except ServerAwayError as error:  # just now: the next look tells for how long
                    _log.warning("the SigOpt server has no suggestion: %s", error)
                except RequestRefusedError as error:
                    if tries:
                        raise InvalidStudyError(
                            reasons.SAMPLER_FAILED, f"sampler: the SigOpt server: {error}"
                        ) from None
                    self._id, self._observed = "", set()  # somebody may have deleted it
                    continue
            time.sleep(_RETRY_SECONDS)
        raise AssertionError("unreachable")

    def _encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.space[name].encode(value) for name, value in values.items()}

    def _open(self, study: optuna.Study) -> str:
        """Id of the study's experiment, which is made where there is none of this definition."""
        recorded = study._storage.get_study_user_attrs(study._study_id).get(attributes.SIGOPT_EXPERIMENT, {})
        if recorded.get("digest") == self._digest:
            found = self._server.find_experiment(recorded["id"])
            if found is not None:
                self._resize(found)
                return str(recorded["id"])
        name = study.study_name[:MAX_STUDY_NAME]
        made = self._server.create_experiment({"name": name, **self._definition, **self._size})
        study._storage.set_study_user_attr(
            study._study_id, attributes.SIGOPT_EXPERIMENT, {"id": made, "digest": self._digest}
        )
        _log.info("study %s is experiment %s on the SigOpt server", study.study_name, made)
        return made

    def _resize(self, found: Any) -> None:
        """Budget and parallelism may change while a study runs."""
        changes = {field: value for field, value in self._size.items() if getattr(found, field) != value}
        if len(self._experiment.metrics) > 1:  # the server keeps the budget of a Pareto front, as it was planned with
            changes.pop("observation_budget", None)
        if changes:
            self._server.update_experiment(str(found.id), **changes)

    def _mirror(self, study: optuna.Study) -> None:
        """Report what is finished and was not, and take back the suggestions of trials that are gone."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        finished = [t for t in trials if t.state.is_finished() and not attributes.runs_again(t.user_attrs) and t.params]
        unknown = {trial.number for trial in finished} - self._observed
        if unknown:
            self._observed |= self._server.observed_trials(self._id, unknown)
        for trial in finished:
            if trial.number not in self._observed:
                self._report(trial, trial.state, trial.values)
        running = {self._suggestion(trial) for trial in trials if trial.state is TrialState.RUNNING}
        for suggestion in self._server.open_suggestions(self._id):
            if suggestion not in running:
                self._server.delete_suggestion(self._id, suggestion)

    def _report(self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        if trial.number in self._observed:
            return
        metrics = self._experiment.metrics
        numbers = [] if values is None or state is TrialState.FAIL else list(values)
        result: dict[str, Any] = {"failed": True}
        if len(numbers) == len(metrics) and all(math.isfinite(number) for number in numbers):
            result = {
                "values": [
                    {"name": metric["name"], "value": number} for metric, number in zip(metrics, numbers, strict=True)
                ]
            }
        assignments = self._experiment.whole_assignments(self.space.decode(trial.params))
        suggestion = self._suggestion(trial)
        bodies: list[dict[str, Any]] = [{"assignments": assignments, **result}]
        if suggestion and self._experiment.is_exact:
            bodies.insert(0, {"suggestion": suggestion, **result})
        for body in bodies:
            try:
                self._server.observe(self._id, trial.number, body)
                break
            except RequestRefusedError as error:
                # A suggestion that is gone; or values of the study's own that break a constraint.
                _log.warning("the SigOpt server refuses the observation of trial %d: %s", trial.number, error)
        self._observed.add(trial.number)
        if suggestion and "suggestion" not in body:
            self._server.delete_suggestion(self._id, suggestion)

    def _suggestion(self, trial: FrozenTrial) -> str | None:
        """The trial's suggestion in this experiment."""
        experiment, suggestion = trial.user_attrs.get(attributes.SIGOPT_SUGGESTION, (None, None))
        return suggestion if experiment == self._id else None
