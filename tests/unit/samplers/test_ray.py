"""Backend ray: Ray Tune's searchers, in real studies, against the real engines."""

import importlib.util
import math
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.build import build_sampler, check_algorithms
from hpstudy.samplers.engine import EngineSampler, read_history
from hpstudy.space.load import read_space
from hpstudy.storage import attributes
from tests.support.builders import spec

FLOATS = {
    "x": {"type": "float", "low": -2, "high": 2},
    "rate": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
}
NUMBERS = FLOATS | {
    "step": {"type": "float", "low": 0.1, "high": 0.7, "step": 0.2},
    "count": {"type": "int", "low": 1, "high": 9, "step": 2},
    "width": {"type": "int", "low": 4, "high": 512, "log": True},
    "fixed": {"type": "int", "low": 3, "high": 3},
}
ALL = NUMBERS | {
    "kind": {"type": "categorical", "choices": ["a", None, True, 2]},
    "beta/1": {"type": "float", "low": 0, "high": 1, "when": {"kind": ["a", None]}},
}
LEARNING = ("OptunaSearch", "HyperOptSearch", "BayesOptSearch", "NevergradSearch", "TuneBOHB", "ZOOptSearch")
SEARCHERS = ("BasicVariantGenerator", *LEARNING)


class Search:
    """A study whose trials are asked for by one worker group, on a memory that outlives the group's sampler."""

    def __init__(
        self, name: str, parameters: Mapping[str, Any] | None = None, seed: int | None = 7, **fields: Any
    ) -> None:
        options = {SEEDS[name]: seed} if seed is not None and name in SEEDS else {}
        options |= STARTS.get(name, {})
        form = {"parameters": parameters or (NUMBERS if name == "BayesOptSearch" else ALL)}
        self.spec = spec(
            **{"backend": "ray", "searchSpace": form, "sampler": {"name": name, "options": options}} | fields
        )
        space = read_space(self.spec)
        assert space is not None
        self.space = space
        directions = [objective.direction for objective in self.spec.objectives]
        self.study = optuna.create_study(directions=directions)
        self.restart()

    def restart(self) -> None:
        self.sampler = build_sampler(self.spec, self.space)
        self.study.sampler = self.sampler

    def ask(self) -> tuple[int, dict[str, Any]]:
        trial = self.study.ask()
        return trial.number, self.space.suggest(trial)

    def run(self, trials: int, value: Callable[[dict[str, Any]], float]) -> list[dict[str, Any]]:
        asked = []
        for _ in range(trials):
            number, values = self.ask()
            self.study.tell(number, value(values))
            asked.append(values)
        return asked

    def know(self, *objectives: Callable[[dict[str, Any]], float]) -> None:
        """Trials of another group's, all over the space of ``FLOATS``, in no order."""
        for index in range(0, 25 * 11, 11):
            values = {"x": -2 + 4 * (index % 25) / 24, "rate": 10 ** (-6 + 4 * (index * 7 % 25) / 24)}
            told = [objective(values) for objective in objectives]
            self.study.add_trial(
                optuna.create_trial(params=values, distributions=self.space.distributions, values=told)
            )

    def propose(self) -> dict[str, Any]:
        """What the next trial would be, without one."""
        assert isinstance(self.sampler, EngineSampler)
        found = self.sampler.sample_relative(self.study, new_trial(len(self.study.trials)), self.space.distributions)
        return self.space.active(self.space.decode(found))


SEEDS = {
    "BasicVariantGenerator": "random_state",
    "OptunaSearch": "seed",
    "HyperOptSearch": "random_state_seed",
    "BayesOptSearch": "random_state",
    "HEBOSearch": "random_state_seed",
    "NevergradSearch": "seed",
    "TuneBOHB": "seed",
    "ZOOptSearch": "seed",
    "AxSearch": "random_seed",
}
STARTS = {
    "HyperOptSearch": {"n_initial_points": 5},
    "BayesOptSearch": {"random_search_steps": 4},
    "NevergradSearch": {"optimizer": "OnePlusOne"},
    "TuneBOHB": {"bohb_config": {"random_fraction": 0.0}},
}
"""Less at random than by Ray's defaults, so that a short test sees what is learnt."""


def new_trial(number: int) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=number,
    )


def bowl(values: dict[str, Any]) -> float:
    return float((values["x"] - 0.7) ** 2)


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_proposal_is_within_the_space_and_of_the_right_type(name: str) -> None:
    search = Search(name)
    for values in search.run(9, bowl):
        for parameter, value in values.items():
            dimension = search.space[parameter]
            assert dimension.decode(dimension.encode(value)) == value
            assert type(value) in {type(choice) for choice in dimension.choices} or type(value) is (
                int if isinstance(dimension.distribution, IntDistribution) else float
            )
        assert values["fixed"] == 3
        assert ("beta/1" in values) == (name != "BayesOptSearch" and values["kind"] in ("a", None))
        if name != "BayesOptSearch":
            assert values["kind"] is None or type(values["kind"]) in (str, bool, int)


@pytest.mark.parametrize("name", LEARNING)
def test_it_learns_from_trials_that_another_group_ran(name: str) -> None:
    """Those of the other group all lie beside the optimum: so do its own then, right from its first."""
    search = Search(name, FLOATS)
    search.know(bowl)
    asked = search.run(5, bowl)
    assert sorted(abs(values["x"] - 0.7) for values in asked)[2] < 0.5


@pytest.mark.parametrize("name", LEARNING)
def test_the_direction_counts(name: str) -> None:
    search = Search(name, FLOATS, objectives=[{"metric": "score", "direction": "maximize"}])
    search.know(lambda values: -bowl(values))
    asked = search.run(5, lambda values: -bowl(values))
    assert sorted(abs(values["x"] - 0.7) for values in asked)[2] < 0.5


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_restart_with_the_same_memory_proposes_the_same(name: str) -> None:
    search = Search(name)
    search.run(6, bowl)
    search.ask()  # and stays open
    search.study.tell(search.ask()[0], state=TrialState.FAIL)
    first = search.propose()
    search.restart()
    assert search.propose() == first
    assert Search(name).run(6, bowl) == Search(name).run(6, bowl)
    assert Search(name, seed=8).run(3, bowl) != Search(name).run(3, bowl)


@pytest.mark.parametrize("name", SEARCHERS)
def test_without_a_seed_two_studies_differ(name: str) -> None:
    assert Search(name, seed=None).run(2, bowl) != Search(name, seed=None).run(2, bowl)


@pytest.mark.parametrize("name", LEARNING)
def test_a_running_trial_counts(name: str) -> None:
    """The same memory, but for a trial that runs where the next one was to be."""
    search = Search(name, FLOATS)
    search.know(bowl)
    wanted = search.propose()
    open_there = 8 if name == "TuneBOHB" else 1  # whose densities change little by one point
    for _ in range(open_there):
        search.study.enqueue_trial(wanted)
        assert search.ask()[1] == wanted
    known = read_history(search.study, search.space, -1)
    finished = [trial for trial in known if trial.state is not TrialState.RUNNING]
    assert len(known) == len(finished) + open_there
    assert isinstance(search.sampler, EngineSampler)
    beside = search.sampler.propose(known, search.study.directions, 99, 99)
    without = search.sampler.propose(finished, search.study.directions, 99, 99)
    assert beside != without
    assert beside != wanted


def test_groups_at_the_same_time_are_given_different_points_by_a_gaussian_process() -> None:
    """Its proposals hardly depend on the seed: only the open points keep them apart."""
    search = Search("BayesOptSearch", FLOATS)
    search.know(bowl)
    first, second, third = (search.ask()[1] for _ in range(3))
    for one, other in ((first, second), (first, third), (second, third)):
        assert abs(one["x"] - other["x"]) > 0.02 or abs(math.log(one["rate"] / other["rate"])) > 0.1


@pytest.mark.parametrize("name", SEARCHERS)
def test_failed_and_pruned_trials_are_told(name: str) -> None:
    search = Search(name, FLOATS)
    search.run(6, bowl)
    number, _ = search.ask()
    search.study.tell(number, state=TrialState.FAIL)
    for reports in ({1: 3.0, 5: 2.0}, {}):
        trial = search.study.ask(search.space.distributions)
        for step, value in reports.items():
            trial.report(value, step)
        search.study.tell(trial, state=TrialState.PRUNED)
    for values in search.run(3, bowl):
        assert values.keys() == {"x", "rate"}


def test_failures_at_the_start_do_not_end_the_random_search() -> None:
    """Ray's own BayesOptSearch waits for ever for the results of its random search."""
    search = Search("BayesOptSearch", FLOATS)
    for _ in range(6):
        search.study.tell(search.ask()[0], state=TrialState.FAIL)
    assert len({values["x"] for values in search.run(6, bowl)}) == 6


def test_a_point_that_comes_twice_is_no_trouble() -> None:
    search = Search("BayesOptSearch", {"n": {"type": "int", "low": 1, "high": 3}})
    assert {values["n"] for values in search.run(8, lambda values: float(values["n"]))} == {1, 2, 3}


def test_several_objectives_go_to_the_searcher_that_can() -> None:
    two = [{"metric": "loss", "direction": "minimize"}, {"metric": "score", "direction": "maximize"}]
    search = Search("OptunaSearch", FLOATS, objectives=two)
    search.know(lambda values: values["x"] ** 2, lambda values: -((values["x"] - 2) ** 2))
    asked = [search.ask()[1]["x"] for _ in range(8)]
    assert sum(-0.3 <= x <= 2 for x in asked) >= 7  # the front is from 0 to 2; at random half of them would be there
    with pytest.raises(InvalidStudyError, match="HyperOptSearch knows one objective, the study has 2") as refusal:
        Search("HyperOptSearch", FLOATS, objectives=two)
    assert refusal.value.reason == reasons.INVALID_OPTION
    Search("HyperOptSearch", FLOATS, objectives=two, scalarize={"weights": {"loss": 1, "score": 2}})


def ray(**native: Any) -> dict[str, Any]:
    return {"searchSpace": {"ray": native}}


def test_a_normal_parameter_is_drawn_from_its_density_by_every_searcher() -> None:
    for name in SEARCHERS:
        search = Search(name, seed=3, **ray(x={"randn": [10, 2]}, y={"qrandn": [0, 5, 2]}))
        drawn = search.run(5 if name != "BayesOptSearch" else 4, lambda values: values["x"])
        if name != "NevergradSearch":  # whose mutations have heavy tails
            assert all(4 < values["x"] < 16 for values in drawn), name
        assert all(values["y"] % 2 == 0 for values in drawn), name
    many = [
        Search("OptunaSearch", seed=seed, **ray(x={"randn": [10, 2]})).run(1, lambda values: 0.0)[0]["x"]
        for seed in range(60)
    ]
    assert 8 < sum(value < 10 for value in many) / 60 * 20 < 14
    assert 11 < sum(abs(value - 10) < 2 for value in many) / 60 * 20 < 17


def test_steps_on_a_logarithm_stay_on_their_grid() -> None:
    search = Search("HyperOptSearch", **ray(x={"qloguniform": [0.1, 10, 0.1]}, n={"qlograndint": [8, 512, 8]}))
    drawn = search.run(12, lambda values: values["x"])
    assert all(values["x"] == round(values["x"], 1) and 0.1 <= values["x"] <= 10 for values in drawn)
    assert all(values["n"] % 8 == 0 and 8 <= values["n"] <= 512 for values in drawn)
    assert sum(values["n"] < 128 for values in drawn) >= 5  # evenly drawn, a quarter would be


def test_a_grid_is_tried_point_by_point_in_the_order_of_ray_and_is_then_exhausted() -> None:
    search = Search(
        "BasicVariantGenerator", **ray(a={"grid_search": [1, 2]}, b={"grid_search": ["x", "y", "z"]}, c=0.5)
    )
    points = []
    for _ in range(6):
        assert not search.sampler.is_exhausted(search.study)  # type: ignore[attr-defined]
        points += search.run(1, lambda values: 0.0)
    assert [(point["a"], point["b"]) for point in points] == [(a, b) for b in "xyz" for a in (1, 2)]
    assert all(point["c"] == 0.5 for point in points)
    assert search.sampler.is_exhausted(search.study)  # type: ignore[attr-defined]


def test_a_grid_is_shared_by_groups_and_goes_on_where_a_trial_lost_its_worker() -> None:
    search = Search("BasicVariantGenerator", **ray(a={"grid_search": [1, 2, 3]}))
    (lost, first), (_, second) = search.ask(), search.ask()
    assert (first, second) == ({"a": 1}, {"a": 2})
    search.study._storage.set_trial_user_attr(lost, attributes.AGAIN, True)
    search.study.tell(lost, state=TrialState.FAIL)
    assert search.ask()[1] == {"a": 1}
    assert search.ask()[1] == {"a": 3}
    assert search.sampler.is_exhausted(search.study)  # type: ignore[attr-defined]


@pytest.mark.parametrize("constant", [True, False])
def test_other_parameters_of_a_grid_are_drawn_once_a_round_or_each_time(constant: bool) -> None:
    search = Search(
        "BasicVariantGenerator",
        sampler={"name": "random", "options": {"random_state": 1, "constant_grid_search": constant}},
        **ray(a={"grid_search": [1, 2]}, x={"uniform": [0, 1]}),
    )
    first, second, third = (values["x"] for values in search.run(3, lambda values: 0.0))
    assert (first == second) == constant
    assert third != first
    assert not search.sampler.is_exhausted(search.study)  # type: ignore[attr-defined]


def test_with_no_sampler_named_the_space_decides() -> None:
    for native, expected in (({"uniform": [0, 1]}, "OptunaSearchSampler"), ({"grid_search": [1, 2]}, "VariantSampler")):
        for sampler in (None, {"name": "auto"}):
            study = spec(backend="ray", sampler=sampler, **ray(x=native))
            assert type(build_sampler(study, read_space(study))).__name__ == expected


@pytest.mark.parametrize(
    ("sampler", "fields", "reason", "complaint"),
    [
        ({"name": "OptunaSerch"}, {}, reasons.UNKNOWN_SAMPLER, "did you mean OptunaSearch?"),
        ({"name": "TPESampler"}, {}, reasons.UNKNOWN_SAMPLER, "unknown sampler 'TPESampler'"),
        ({"name": "zoopt", "options": {"budget": 9}}, {}, reasons.INVALID_OPTION, "budget.maxTrials says it"),
        ({"name": "optuna", "options": {"sed": 1}}, {}, reasons.INVALID_OPTION, "did you mean seed?"),
        ({"name": "optuna", "options": {"seed": "a"}}, {}, reasons.INVALID_OPTION, "sampler.options.seed"),
        ({"name": "optuna", "options": {"seed": -1}}, {}, reasons.INVALID_OPTION, "a whole number from 0 on"),
        ({"name": "optuna", "options": {"metric": "x"}}, {}, reasons.INVALID_OPTION, "objectives say it"),
        ({"name": "optuna", "options": {"sampler": "x"}}, {}, reasons.INVALID_OPTION, "backend optuna"),
        (
            {"name": "hyperopt", "options": {"points_to_evaluate": []}},
            {},
            reasons.INVALID_OPTION,
            "initialTrials says it",
        ),
        ({"name": "hyperopt", "options": {"gamma": "wide"}}, {}, reasons.INVALID_OPTION, "gamma: input should be"),
        ({"name": "bayesopt", "options": {"patience": 3}}, {}, reasons.INVALID_OPTION, "budget says"),
        (
            {"name": "bayesopt", "options": {"utility_kwargs": {"kind": "best"}}},
            {"searchSpace": {"parameters": FLOATS}},
            reasons.INVALID_OPTION,
            "sampler BayesOptSearch: ",
        ),
        ({"name": "bayesopt"}, {}, reasons.INVALID_SPACE, "kind is categorical, which BayesOptSearch has not"),
        (
            {"name": "optuna"},
            ray(x={"grid_search": [1, 2]}),
            reasons.INVALID_SPACE,
            "x is a grid, which OptunaSearch does not search",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    sampler: dict[str, Any], fields: dict[str, Any], reason: str, complaint: str
) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        check_algorithms(spec(**{"backend": "ray", "sampler": sampler, "searchSpace": {"parameters": ALL}} | fields))
    assert refusal.value.reason == reason
    assert complaint in refusal.value.message


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("HyperOptSearch", "hyperopt", "hyperopt"),
        ("HEBOSearch", "hebo", "HEBO"),
        ("OptunaSearch", "ray", "ray[tune]"),
        ("AxSearch", "ax", "ax-platform<1.3"),
        ("TuneBOHB", "hpbandster", "hpbandster"),
        ("ZOOptSearch", "zoopt", "zoopt"),
    ],
)
def test_a_missing_package_is_named(name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == module else installed(wanted))
    study = spec(backend="ray", sampler={"name": name})
    check_algorithms(study)  # where the study does not run the package may be missing
    with pytest.raises(InvalidStudyError) as refusal:
        build_sampler(study, read_space(study))
    assert f"{name} needs the package {package}, which is not installed" in refusal.value.message
