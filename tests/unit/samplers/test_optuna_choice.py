"""Backend optuna: the sampler that a study gets which names none."""

from typing import Any

import optuna
import pytest

from hpstudy.samplers.choice import choose
from hpstudy.space.load import read_space
from hpstudy.storage import attributes
from hpstudy.storage.opening import open_storage
from hpstudy.storage.reading import read_snapshot
from hpstudy.trials.loop import TrialLoop
from tests.storage.stored import trials_of
from tests.support.builders import spec
from tests.unit.samplers.optuna_studies import FINITE, FLAT, NAME, NUMERIC, TWO, a_study, run


@pytest.mark.parametrize(
    ("fields", "name", "why"),
    [
        ({"parameters": NUMERIC}, "GPSampler", "20 trials of 2 flat parameters"),
        ({"parameters": FLAT}, "GPSampler", "20 trials of 3 flat parameters"),
        (
            {"parameters": {f"x{index}": NUMERIC["x"] for index in range(30)}},
            "TPESampler",
            "20 trials of 30 flat parameters",
        ),
        ({"parameters": NUMERIC, "budget": {"maxTrials": 1000}}, "TPESampler", "1000 trials of 2 flat parameters"),
        ({"parameters": FINITE | {"n": {**FINITE["n"], "when": {"flag": [True]}}}}, "TPESampler", "conditions"),
        ({"parameters": NUMERIC, "pruner": {"name": "MedianPruner"}}, "TPESampler", "pruned trials"),
        ({"parameters": NUMERIC, "objectives": TWO}, "GPSampler", "20 trials for 2 objectives of 2 flat parameters"),
        (
            {"parameters": NUMERIC, "objectives": [*TWO, {"metric": "c", "direction": "minimize"}]},
            "TPESampler",
            "20 trials for 3 objectives",
        ),
        (
            {"parameters": NUMERIC, "objectives": TWO, "scalarize": {"weights": {"a": 1, "b": 1}}},
            "GPSampler",
            "20 trials of 2 flat parameters",
        ),
        (
            {"parameters": NUMERIC, "objectives": TWO, "budget": {"maxTrials": 20000}},
            "NSGAIISampler",
            "20000 trials for 2 objectives",
        ),
    ],
)
def test_auto_chooses_by_budget_space_and_objectives(fields: dict[str, Any], name: str, why: str) -> None:
    study = a_study(**fields)
    choice = choose(study, read_space(study))
    assert choice.name == name
    assert why in choice.why


def test_a_define_by_run_space_takes_tpe() -> None:
    assert choose(spec(searchSpace={"python": "anything:space"}), None).name == "TPESampler"


@pytest.mark.parametrize("sampler", [None, {"name": "auto", "options": {"seed": 3}}])
def test_the_choice_is_recorded_once_and_kept(sampler: dict[str, Any] | None, url: str) -> None:
    study = a_study(NUMERIC, sampler=sampler)
    with TrialLoop(study, url, NAME, 0) as first, TrialLoop(study, url, NAME, 1) as second:
        assert isinstance(first.study.sampler, optuna.samplers.GPSampler)
        assert isinstance(second.study.sampler, optuna.samplers.GPSampler)
        run(first, 1)
        run(second, 1)
    assert trials_of(url)[0].params != trials_of(url)[1].params
    more = a_study(NUMERIC, sampler=sampler, budget={"maxTrials": 1000})
    with TrialLoop(more, url, NAME) as again:
        assert isinstance(again.study.sampler, optuna.samplers.GPSampler), "the study began with it"
        assert again.study.user_attrs[attributes.SAMPLER]["name"] == "GPSampler"
    storage = open_storage(url)
    assert read_snapshot(storage, NAME, more).sampler == "GPSampler: 20 trials of 2 flat parameters"
    named = a_study(NUMERIC, sampler={"name": "RandomSampler"})
    assert read_snapshot(storage, NAME, named).sampler == "RandomSampler", "as the study says now"
    storage.engine.dispose()


def test_nothing_is_recorded_where_the_study_names_its_sampler(url: str) -> None:
    with TrialLoop(a_study(sampler={"name": "RandomSampler"}), url, NAME) as loop:
        assert attributes.SAMPLER not in loop.study.user_attrs
