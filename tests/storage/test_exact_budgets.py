"""Groups, each a process, share one budget: eight of them, two on SQLite."""

import pytest
from optuna.trial import TrialState

from hpstudy.api import reasons
from tests.storage.sharing import GOAL_AT, GROUPS, share
from tests.support.builders import spec
from tests.support.postgres import Postgres

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


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
