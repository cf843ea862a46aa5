"""Whether there are more trials to run: ``stopWhen`` says enough of them, or every point was tried."""

from collections.abc import Callable

import optuna

from hpstudy.api import reasons
from hpstudy.api.study import StudySpec
from hpstudy.samplers.hooks import hooks
from hpstudy.samplers.terminator import StopRule
from hpstudy.storage import attributes
from hpstudy.storage.feasible import feasible_trials
from hpstudy.storage.reading import Tally
from hpstudy.trials.budget import Next, Verdict


class Enough:
    """Asks the study's rule whenever there are more trials to judge by, and records where it says enough."""

    def __init__(self, study: optuna.Study, spec: StudySpec) -> None:
        self._study = study
        self._rule = StopRule(spec.stop_when) if spec.stop_when else None
        self._basis = spec.stop_when and spec.stop_when.model_dump(mode="json", by_alias=True)
        self._considered = self._first_to_consider(spec)

    def look(self, spec: StudySpec, *, goes_on: Callable[[], bool]) -> None:
        """Ask the rule. Not under a lock: it may fit a model.

        Args:
            spec: as it is now.
            goes_on: whether there would be another trial.
        """
        if self._rule is None:
            return
        complete = len(feasible_trials(self._study))
        if complete == self._considered or not goes_on():
            return
        if self._rule.is_met(self._study):
            message = f"enough after {complete} complete trials: stopWhen"
            basis = {"stopWhen": self._basis, "maxTrials": spec.budget.max_trials}
            record = {"reason": reasons.STOP_CONDITION_MET, "message": message, **basis}
            self._study.set_user_attr(attributes.STOPPED, record)
        self._considered = complete

    def _first_to_consider(self, spec: StudySpec) -> int:
        """Trials that the rule is not asked about: where it said enough of them, and then maxTrials was raised, it is
        asked again after the next."""
        stopped = self._study.user_attrs.get(attributes.STOPPED, {})
        raised = stopped.get("stopWhen") == self._basis and stopped.get("maxTrials", 0)
        return len(feasible_trials(self._study)) if raised and raised < spec.budget.max_trials else 0


def without_points(study: optuna.Study, spec: StudySpec, tally: Tally) -> Verdict | None:
    """What is next where the sampler has no point now; recorded, where it never will. None: it has one."""
    sampler = hooks(study.sampler)
    if not sampler.is_ready(study):
        return Verdict(Next.WAIT)
    if not sampler.is_exhausted(study):
        return None
    if tally.counts.running:  # one that loses its worker is tried again
        return Verdict(Next.WAIT)
    end = Verdict(Next.SUCCEEDED, reasons.SPACE_EXHAUSTED, sampler.exhausted_because)
    basis = {"sampler": spec.sampler and spec.sampler.model_dump(mode="json")}
    study.set_user_attr(attributes.STOPPED, {"reason": end.reason, "message": end.message, **basis})
    return end
