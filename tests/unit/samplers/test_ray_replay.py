"""Ray's searchers that are told of past trials in a way of their own, and those of which an ask takes seconds."""

import optuna
import pytest
from optuna.trial import TrialState

from tests.unit.samplers.test_ray import FLOATS, Search, bowl


def test_before_there_are_whole_trials_the_pruned_ones_teach_bohb() -> None:
    search = Search("TuneBOHB", FLOATS)
    whole = Search("TuneBOHB", FLOATS)
    whole.know(bowl)
    for trial in whole.study.trials:
        reports, distributions = {1: bowl(trial.params)}, search.space.distributions
        pruned = optuna.create_trial(
            state=TrialState.PRUNED, params=trial.params, distributions=distributions, intermediate_values=reports
        )
        search.study.add_trial(pruned)
    asked = [search.ask()[1]["x"] for _ in range(5)]
    assert sorted(abs(x - 0.7) for x in asked)[2] < 0.5


@pytest.mark.filterwarnings("ignore")  # of what they are built on
@pytest.mark.parametrize("name", ["AxSearch", "HEBOSearch"])
def test_the_slow_ones_learn_from_trials_of_another_group_and_remember_them(name: str) -> None:
    """In few asks: one takes seconds."""
    search = Search(name, FLOATS)
    search.know(bowl)
    params = {"x": -1.0, "rate": 1e-5}
    failed = optuna.create_trial(state=TrialState.FAIL, params=params, distributions=search.space.distributions)
    search.study.add_trial(failed)
    first = search.propose()
    assert abs(first["x"] - 0.7) < 0.3
    search.restart()
    assert search.propose() == first
    if name == "AxSearch":  # HEBO's running trials are told as bad ones
        search.study.enqueue_trial(first)
        assert search.ask()[1] == first
        assert search.propose() != first
