"""SigOpt's own optimiser (``sigoptlite`` over ``libsigopt``) in the process, without a server.

As the server does, it starts at random, goes on with a Gaussian process once there are more than max(2 x parameters, 4)
results, and with Parzen estimators (SPE) beyond 600 trials or 50 parameters, or from then on with ``compute_mode:
kde_only``. Points in flight count as results as bad as the worst ("constant liar", Ginsbourger et al. 2010), failed
trials too.

An ask costs 0.3 to 0.5 s after 50 trials, 0.8 to 1.2 s after 100, 3 to 5 s after 300 and 7 s and more after 600, on one
thread with 2 to 6 parameters: what the Gaussian process takes. Telling it of 1,000 trials anew is a few milliseconds of
that, and with Parzen estimators an ask stays at 0.2 s.
"""

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.engine import EngineSampler, Observation
from hpstudy.samplers.seeding import seeded
from hpstudy.samplers.sigopt_engine import load
from hpstudy.samplers.sigopt_experiment import Experiment

_log = logging.getLogger(__name__)

BUDGET_PER_PARAMETER = 50
"""As SPE_PHANTOM_BUDGET_FACTOR of libsigopt's ``spe_next_points``."""
MAX_DRAWS = 1000
"""Random points in search of one that is new; a space that shows nothing new in so many is taken as tried out."""


class LiteSampler(EngineSampler):
    """SigOpt's optimiser, told of the whole study at each proposal.

    Args:
        experiment: the study as SigOpt sees it.
        kind: SigOpt's type of experiment, "offline" (optimised) or "random".
        compute_mode: sigoptlite's: "default", or "kde_only" for Parzen estimators at once.
        linear_constraints: as in SigOpt's experiment.

    Raises:
        InvalidStudyError: the optimiser refuses the experiment.
        ImportError: it is not installed.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        kind: str = "offline",
        compute_mode: str = "default",
        linear_constraints: Sequence[Mapping[str, Any]] = (),
        seed: int | None = None,
    ) -> None:
        super().__init__(experiment.space, seed)
        self._experiment = experiment
        self._engine = load()
        self._kde_only = compute_mode == "kde_only"
        self._local = self._make(kind, linear_constraints) if experiment.parameters else None

    def propose(
        self, history: Sequence[Observation], directions: Sequence[StudyDirection], number: int, seed: int
    ) -> Mapping[str, Any]:
        """See :class:`EngineSampler`."""
        if self._local is None:
            return self._experiment.values({})
        running = [trial.values for trial in history if trial.state is TrialState.RUNNING]
        # A trial that died before it had its values tells nothing.
        finished = [trial for trial in history if trial.state is not TrialState.RUNNING and trial.values]
        # Its matrices are small: threads make an ask five times as slow where they wait for the cores of a training,
        # and the last digits depend on how many there are.
        with self._engine.threads.limit(limits=1), seeded(seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its arithmetic
            values = self._optimise([self._observe(trial) for trial in finished], running)
            tried = [trial.values for trial in finished]
            if values is None or values in running or values in tried:
                values = self._draw_new(running, tried)
        return values

    def _make(self, kind: str, linear_constraints: Sequence[Mapping[str, Any]]) -> Any:
        parameters, metrics = self._experiment.parameters, self._experiment.metrics
        budget = self._experiment.budget
        if len(metrics) == 1:
            # Parzen estimators draw at random for 15 % of it; without a budget SigOpt takes this one.
            budget = min(budget, BUDGET_PER_PARAMETER * len(parameters))
        definition = {
            "name": "study",
            "type": kind,
            "parameters": [dict(parameter.definition) for parameter in parameters],
            "metrics": metrics,
            "observation_budget": budget,
        }
        made = self._build(definition, reasons.INVALID_SPACE, "searchSpace")
        if linear_constraints:
            definition["linear_constraints"] = list(linear_constraints)
            made = self._build(definition, reasons.INVALID_OPTION, "sampler.options.linear_constraints")
        return made

    def _build(self, definition: Mapping[str, Any], reason: str, where: str) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._engine.builders.LocalExperimentBuilder(
                    copy.deepcopy(definition)
                )  # it changes what it gets
        except ValueError as error:
            raise InvalidStudyError(reason, f"{where}: SigOpt refuses it: {error}") from None

    def _complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Assignments of a trial; the optimiser knows no parameter that does not exist."""
        given = self._experiment.assignments(values)
        return {p.name: given.get(p.name, p.replacement) for p in self._experiment.parameters}

    def _observe(self, trial: Observation) -> Any:
        models = self._engine.models
        values = trial.objectives or ()
        return models.LocalObservation(
            assignments=models.LocalAssignments(self._complete(trial.values)),
            metric_evaluations={
                metric["name"]: models.MetricEvaluation(name=metric["name"], value=float(value))
                for metric, value in zip(self._experiment.metrics, values, strict=False)
            },
            failed=len(values) < len(self._experiment.metrics),
        )

    def _optimise(self, told: list[Any], running: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """The optimiser's next point; None where it has none."""
        try:
            suggestion = self._source(told, running).get_suggestion(told)
        except IndexError:  # of a finite space of which it knows each point it returns an empty list
            return None
        except (self._engine.errors.SigoptComputeError, AssertionError) as error:
            # A singular matrix, say. SigOpt's server serves a random point then.
            _log.warning("SigOpt's optimiser failed, the trial gets a random point: %s", error)
            return None
        return self._experiment.values(suggestion.assignments)

    def _source(self, told: list[Any], running: Sequence[Mapping[str, Any]]) -> Any:
        """The optimiser for as many results as there are, which knows the points in flight."""
        broker = self._engine.broker.Broker(self._local, force_spe=self._kde_only)
        broker.observations = told
        sources = self._engine.sources
        if broker.use_random:
            return sources.RandomSearchSource(self._local)
        source = sources.SPESource(self._local) if broker.use_spe else sources.GPSource(self._local)
        points = [source.get_point_from_assignments(self._local, self._complete(values)) for values in running]
        in_flight = self._engine.containers.PointsContainer(points=numpy.array(points))
        call = source.call_libsigopt_views

        def call_with_points_in_flight(view: Any, view_input: dict[str, Any]) -> Any:
            # sigoptlite serves one worker and always says that there are none.
            if "points_being_sampled" in view_input:
                view_input["points_being_sampled"] = in_flight
            return call(view, view_input)

        source.call_libsigopt_views = call_with_points_in_flight
        if not broker.use_spe:
            source.update_hyperparameters(told, None)
        return source

    def _draw_new(self, running: Sequence[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A random point that is no other trial's, as SigOpt's server serves in place of a repeated one; where all were
        tried, one that is not running now."""
        source = self._engine.sources.RandomSearchSource
        request = {
            "domain_info": source.form_domain_info(self._local),
            "num_to_sample": MAX_DRAWS,
            "tag": {},
            "task_options": [],
        }
        points = source.call_libsigopt_views(self._engine.random_search.RandomSearchNextPoints, request)
        drawn = [
            self._experiment.values(source.make_assignments_from_point(self._local, [float(x) for x in point]))
            for point in points["points_to_sample"]
        ]
        if not drawn:
            raise RuntimeError(f"{MAX_DRAWS} random points, and none keeps the linear constraints")
        idle = [values for values in drawn if values not in running]
        return next((values for values in idle if values not in tried), (idle or drawn)[0])
