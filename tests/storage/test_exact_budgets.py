"""Groups, each a process, share one budget: eight of them, two on SQLite."""

import time
from collections.abc import Sequence

import optuna
import pytest
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.study import StudySpec
from hpstudy.storage.attributes import Failure
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome, conclude
from tests.storage.stored import NAME, trials_of
from tests.support.builders import spec
from tests.support.forkserver import PROCESSES
from tests.support.postgres import Postgres

GROUPS = 8
GOAL_AT = 12
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def run_group(url: str, group: int, study: StudySpec, fails: float, expected: str) -> None:
    """Trials whose loss falls with their numbers; every so many-th fails, every fifth of the others is pruned."""
    with TrialLoop(study, url, NAME, group) as loop:
        while True:
            assigned = loop.next()
            if isinstance(assigned, Verdict):
                if assigned.next is Next.WAIT:
                    time.sleep(0.01)
                    continue
                assert assigned.reason == expected, assigned
                return
            outcome = conclude({"loss": float(GOAL_AT - assigned.number)}, study)
            if assigned.number % fails == fails - 1:
                outcome = Outcome(failure=Failure.ERROR, message="no luck")
            elif assigned.number % 5 == 0:
                loop.report(assigned, 1, {"loss": 2.0})
                outcome = Outcome(pruned=True)
            loop.tell(assigned, outcome)


def share(url: str, study: StudySpec, fails: float, expected: str) -> Sequence[optuna.trial.FrozenTrial]:
    """The trials, after all groups have ended for this reason."""
    groups = 2 if url.startswith("sqlite") else GROUPS
    arguments = [(url, group, study, fails, expected) for group in range(groups)]
    processes = [PROCESSES.Process(target=run_group, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    trials = trials_of(url)
    assert not [trial for trial in trials if trial.state is TrialState.RUNNING]
    return trials


@pytest.mark.parametrize("limits", [{}, {"timeout": "1h"}], ids=["counts", "counts and time"])
def test_exactly_max_trials_end(storage_url: str, limits: dict[str, str]) -> None:
    budget = {"maxTrials": 23, "maxFailedTrials": 100, **limits}
    objectives = [{"metric": "loss", "direction": "minimize", "goal": -1000}]  # out of reach
    study = spec(objectives=objectives, budget=budget, sampler={"name": "RandomSampler"})
    trials = share(storage_url, study, 3, reasons.MAX_TRIALS_REACHED)
    assert sum(trial.state in ENDED for trial in trials) == 23
    assert sum(trial.state is TrialState.FAIL for trial in trials) >= 9
    assert [trial.number for trial in trials] == list(range(len(trials)))


def test_no_group_begins_a_trial_once_the_goal_is_reached(database: Postgres) -> None:
    objectives = [{"metric": "loss", "direction": "minimize", "goal": 0}]
    study = spec(objectives=objectives, budget={"maxTrials": 500}, sampler={"name": "RandomSampler"})
    trials = share(database.create_database("exact-goal"), study, float("inf"), reasons.GOAL_REACHED)
    ended = {trial.number: trial.datetime_complete for trial in trials if trial.datetime_complete}
    reached = min(at for number, at in ended.items() if number >= GOAL_AT)
    later = sum(at > reached for at in ended.values())
    assert later < 2 * GROUPS, "what the others had in hand, or began while it was being told"


def test_no_group_begins_a_trial_once_too_many_failed(database: Postgres) -> None:
    study = spec(budget={"maxTrials": 500, "maxFailedTrials": 5}, sampler={"name": "RandomSampler"})
    trials = share(database.create_database("exact-failed"), study, 1, reasons.MAX_FAILED_TRIALS_EXCEEDED)
    assert 6 <= len(trials) < 6 + GROUPS, "the sixth ends it, what the others had in hand fails too"
