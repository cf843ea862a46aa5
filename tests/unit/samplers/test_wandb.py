"""Backend wandb without a server: W&B's own engine, its form of a space, and hyperband, in real studies."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers.build import check_algorithms
from hpstudy.samplers.wandb_config import read_sweep
from hpstudy.samplers.wandb_engine import SweepsSampler
from hpstudy.space.load import read_space
from hpstudy.space.wandb import dimensions
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.support.builders import spec
from tests.unit.samplers.wandb_studies import X, a_study, add_reports, ask, in_memory, running, space_of, sweep

E = 2.718281828459045
DISTRIBUTIONS: dict[str, tuple[dict[str, Any], type, list[Any] | tuple[float, float]]] = {
    "constant": ({"value": None}, type(None), [None]),
    "constant list": ({"value": [1, 2]}, list, [[1, 2]]),
    "categorical": ({"values": [0, "a", None, [1, 2]]}, object, [0, "a", None, [1, 2]]),
    "probabilities": ({"values": [1, 2, 3], "probabilities": [0.5, 0, 0.5]}, int, [1, 3]),
    "int_uniform": ({"min": 2, "max": 4}, int, [2, 3, 4]),
    "uniform": ({"min": 1, "max": 1.5}, float, (1, 1.5)),
    "uniform by name": ({"distribution": "uniform", "min": 1, "max": 2}, float, (1, 2)),
    "q_uniform": ({"distribution": "q_uniform", "min": 0.1, "max": 0.5, "q": 0.1}, float, [0.1, 0.2, 0.3, 0.4, 0.5]),
    "q_uniform whole": ({"distribution": "q_uniform", "min": 1, "max": 10, "q": 4}, int, [0, 4, 8]),
    "q_uniform default": ({"distribution": "q_uniform", "min": 0, "max": 2}, float, [0.0, 1.0, 2.0]),
    "log_uniform": ({"distribution": "log_uniform", "min": -2, "max": 1}, float, (E**-2, E)),
    "log_uniform_values": ({"distribution": "log_uniform_values", "min": 1e-6, "max": 1e-4}, float, (1e-6, 1e-4)),
    "q_log_uniform": ({"distribution": "q_log_uniform", "min": 0, "max": 1}, float, [1.0, 2.0, 3.0]),
    "q_log_uniform_values": (
        {"distribution": "q_log_uniform_values", "min": 1, "max": 30, "q": 8},
        int,
        [0, 8, 16, 24, 32],
    ),
    "log int": ({"distribution": "q_log_uniform_values", "min": 1, "max": 4, "q": 1}, int, [1, 2, 3, 4]),
    "inv_log_uniform": ({"distribution": "inv_log_uniform", "min": 1, "max": 2}, float, (E**-2, E**-1)),
    "inv_log_uniform_values": ({"distribution": "inv_log_uniform_values", "min": 2, "max": 3}, float, (2, 3)),
    "normal": ({"distribution": "normal", "mu": 5, "sigma": 0.1}, float, (4.2, 5.8)),
    "normal default": ({"distribution": "normal"}, float, (-8, 8)),
    "q_normal": ({"distribution": "q_normal", "mu": 0, "sigma": 0.1, "q": 0.5}, float, [-1.0, -0.5, 0.0, 0.5, 1.0]),
    "log_normal": ({"distribution": "log_normal", "mu": 0, "sigma": 0.1}, float, (E**-0.8, E**0.8)),
    "q_log_normal": ({"distribution": "q_log_normal", "mu": 0, "sigma": 0.1, "q": 1}, int, [0, 1, 2]),
    "beta": ({"distribution": "beta", "a": 2, "b": 5}, float, (0, 1)),
    "q_beta": ({"distribution": "q_beta", "a": 2, "b": 5, "q": 0.25}, float, [0.0, 0.25, 0.5, 0.75, 1.0]),
}


@pytest.mark.parametrize("case", DISTRIBUTIONS)
def test_every_distribution_gives_values_of_its_type_within_its_bounds(case: str) -> None:
    given, kind, expected = DISTRIBUTIONS[case]
    study, space = in_memory(a_study(sweep(p=given), sampler={"name": "random", "options": {"seed": 3}}))
    drawn = [ask(study, space)["p"] for _ in range(12)]
    assert all(isinstance(value, kind) and not isinstance(value, numpy.generic) for value in drawn)
    if isinstance(expected, list):
        assert all(any(value == point and type(value) is type(point) for point in expected) for value in drawn)
        assert len({repr(value) for value in drawn}) > 1 or len(expected) == 1 or case.startswith("q_")
    else:
        assert all(expected[0] <= value <= expected[1] for value in drawn)
        assert len(set(drawn)) == 12
    recorded = space["p"].distribution
    assert all(recorded._contains(recorded.to_internal_repr(space["p"].encode(value))) for value in drawn)


@pytest.mark.parametrize("case", [case for case in DISTRIBUTIONS if case != "probabilities"])
def test_bayes_learns_from_every_distribution_beside_another(case: str) -> None:
    given, kind, _ = DISTRIBUTIONS[case]
    study, space = in_memory(a_study(sweep("bayes", p=given, x={"min": -1.0, "max": 1.0})))
    for _ in range(3):
        values = ask(study, space, told=1.0)
    assert isinstance(values["p"], kind)
    assert isinstance(values["x"], float)


def test_the_storage_records_ranges_and_choices() -> None:
    found = {
        d.name: d.distribution
        for d in dimensions(
            sweep(
                a={"min": 1, "max": 3},
                b={"distribution": "log_uniform_values", "min": 1e-3, "max": 1},
                c={"values": ["x", [1]]},
                d={"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25},
            )
        )
    }
    assert found == {
        "a": IntDistribution(1, 3),
        "b": FloatDistribution(1e-3, 1, log=True),
        "c": CategoricalDistribution(["x", "[1]"]),
        "d": FloatDistribution(0, 1, step=0.25),
    }


def test_nested_parameters_reach_the_trial_nested(url: str) -> None:
    native = sweep(
        optimizer={"parameters": {"name": {"values": ["sgd", "adam"]}, "lr": {"parameters": {"base": {"value": 3}}}}},
        x={"min": 0.0, "max": 1.0},
    )
    with TrialLoop(a_study(native), url, "study") as loop:
        assigned = loop.next()
        assert isinstance(assigned, Assignment)
        assert assigned.parameters["optimizer"]["name"] in {"sgd", "adam"}
        assert assigned.parameters["optimizer"]["lr"] == {"base": 3}
        assert set(assigned.trial.params) == {"optimizer.name", "optimizer.lr.base", "x"}


def test_a_function_returns_a_configuration_as_in_the_transformers_documentation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "spaces_of_wandb.py").write_text(
        "def hp_space(trial):\n"
        "    assert trial is None\n"
        "    return {'method': 'random', 'metric': {'name': 'objective', 'goal': 'minimize'},\n"
        "            'early_terminate': {'type': 'hyperband', 'min_iter': 1},\n"
        "            'parameters': {'learning_rate': {'distribution': 'uniform', 'min': 1e-6, 'max': 1e-4},\n"
        "                           'per_device_train_batch_size': {'values': [16, 32]}}}\n"
    )
    study = spec(backend="wandb", searchSpace={"python": "spaces_of_wandb:hp_space"})
    check_algorithms(study)  # where the operator runs there is no such module: it must not be looked for
    assert "spaces_of_wandb" not in sys.modules
    monkeypatch.syspath_prepend(tmp_path)
    made, space = in_memory(study)
    assert set(ask(made, space, told=1.0)) == {"learning_rate", "per_device_train_batch_size"}
    add_reports(made, space, [[1.0], [2.0], [3.0]])
    assert made.pruner.prune(made, running(made, space, [9.0])), "the function's early_terminate is the pruner"


def test_the_declarative_form_is_translated_with_conditions_and_steps() -> None:
    parameters = {
        "optim": {"type": "categorical", "choices": ["sgd", "adam"]},
        "momentum": {"type": "float", "low": 0, "high": 0.9, "when": {"optim": ["sgd"]}},
        "n": {"type": "int", "low": 1, "high": 64, "log": True},
        "odd": {"type": "int", "low": 1, "high": 9, "step": 2},
        "quarter": {"type": "float", "low": 0, "high": 1, "step": 0.25},
        "fixed": {"type": "int", "low": 3, "high": 3},
        "flag": {"type": "categorical", "choices": [True]},
    }
    study = a_study(searchSpace={"parameters": parameters})
    made, space = in_memory(study)
    config = read_sweep(study, space).config["parameters"]
    assert config["n"] == {"distribution": "q_log_uniform_values", "min": 1, "max": 64, "q": 1}
    assert config["odd"] == {"distribution": "categorical", "values": [1, 3, 5, 7, 9]}
    assert config["quarter"] == {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}
    for told in range(6):
        values = ask(made, space, told=float(told))
        assert ("momentum" in values) == (values["optim"] == "sgd")
        assert values["odd"] % 2 == 1
        assert values["quarter"] * 4 == int(values["quarter"] * 4)
        assert (values["fixed"], values["flag"]) == (3, True)


def test_bayes_finds_the_minimum_where_random_search_does_not() -> None:
    native = {"x": {"min": -2.0, "max": 2.0}, "y": {"min": -2.0, "max": 2.0}}

    def best(method: str) -> float:
        made, space = in_memory(a_study(sweep(method, **native), sampler={"name": method, "options": {"seed": 5}}))
        for _ in range(12):
            trial = made.ask()
            values = space.suggest(trial)
            made.tell(trial, (values["x"] - 1) ** 2 + (values["y"] + 0.5) ** 2)
        return made.best_value

    assert best("bayes") < 0.05 < best("random")


TWO = {
    "objectives": [{"metric": "loss", "direction": "minimize"}, {"metric": "f1", "direction": "maximize"}],
    "scalarize": {"weights": {"loss": 1.0, "f1": 2.0}},
}


def test_several_objectives_work_with_weights(url: str) -> None:
    study = a_study(
        sweep("bayes", x={"min": -2.0, "max": 2.0}), sampler={"name": "bayes", "options": {"seed": 1}}, **TWO
    )
    assert read_sweep(study, space_of(study)).config["metric"] == {"name": "objective", "goal": "minimize"}
    with TrialLoop(study, url, "study") as loop:
        taken = []
        for _ in range(6):
            assigned = loop.next()
            assert isinstance(assigned, Assignment)
            x = assigned.parameters["x"]
            taken.append(x)
            loop.tell(assigned, Outcome(values=((x - 1) ** 2, -((x - 1) ** 2))))
    assert min(abs(x - 1) for x in taken) < 0.25


def test_falsy_choices_are_told_apart() -> None:
    study = a_study(sweep("bayes", flag={"values": [True, False, None]}, x={"min": 0.0, "max": 1.0}))
    sampler = in_memory(study)[0].sampler
    assert isinstance(sampler, SweepsSampler)
    coded = [sampler._code({"flag": flag, "x": 0.5})["flag"] for flag in (True, False, None)]
    assert coded == [0, 1, 2]


def test_a_seed_gives_the_same_trials_and_leaves_the_user_s_generators_alone() -> None:
    def drawn(seed: int) -> list[dict[str, Any]]:
        native = sweep("bayes", x={"min": 0.0, "max": 1.0}, y={"values": ["a", "b", "c"]})
        made, space = in_memory(a_study(native, sampler={"name": "bayes", "options": {"seed": seed}}))
        return [ask(made, space, told=float(told)) for told in range(3)]

    numpy.random.seed(1)
    random.seed(1)
    expected = (numpy.random.random(), random.random())
    numpy.random.seed(1)
    random.seed(1)
    assert drawn(7) == drawn(7) != drawn(8)
    assert (numpy.random.random(), random.random()) == expected


def test_a_restart_and_another_group_know_the_same(url: str) -> None:
    study = a_study(
        sweep("bayes", x={"min": 0.0, "max": 1.0}), sampler={"name": "bayes", "options": {"seed": 7}}, parallelism=2
    )

    def run(url: str, restart: bool) -> list[float]:
        taken = []
        for group, trials in ((0, 2), (1, 1)) if restart else ((0, 3),):
            with TrialLoop(study, url, "study", group) as loop:
                for _ in range(trials):
                    assigned = loop.next()
                    assert isinstance(assigned, Assignment)
                    taken.append(assigned.parameters["x"])
                    loop.tell(assigned, Outcome(values=((assigned.parameters["x"] - 0.3) ** 2,)))
        return taken

    assert run(url, restart=False) == run(url.replace("study.db", "other.db"), restart=True)


def test_the_engine_is_told_of_finished_running_failed_and_pruned_trials() -> None:
    study, space = in_memory(a_study(sweep("grid", x={"values": [1, 2, 3, 4, 5]})))
    told = ask(study, space, told=1.0)
    running = ask(study, space)
    failed = study.ask()
    space.suggest(failed)
    study.tell(failed, state=TrialState.FAIL)
    pruned = study.ask()
    space.suggest(pruned)
    pruned.report(1.0, 1)
    study.tell(pruned, state=TrialState.PRUNED)
    assert [told["x"], running["x"], failed.params["x"], pruned.params["x"]] == [1, 2, 3, 4]
    assert ask(study, space)["x"] == 5


def test_bayes_keeps_away_from_what_runs() -> None:
    native = sweep("bayes", x={"min": 0.0, "max": 1.0})

    def proposals(running: bool) -> list[float]:
        made, space = in_memory(a_study(native, sampler={"name": "bayes", "options": {"seed": 2}}))
        for x in (0.0, 0.25, 0.5, 0.75, 1.0):
            made.add_trial(create_trial(params={"x": x}, distributions=space.distributions, value=(x - 0.6) ** 2))
        first = ask(made, space)["x"]
        if not running:
            made._storage.set_trial_user_attr(made.trials[5]._trial_id, attributes.AGAIN, True)
            made.tell(5, state=TrialState.FAIL)
        return [first, ask(made, space)["x"]]

    assert proposals(True)[1] != proposals(False)[1]


def grid_study(**more: Any) -> StudySpec:
    native = sweep("grid", a={"values": [0, "x"]}, b={"min": 1, "max": 2})
    return a_study(native, **{"budget": {"maxTrials": 50}, **more})


def test_a_grid_ends_the_study_when_all_is_tried(url: str) -> None:
    with TrialLoop(grid_study(), url, "study") as loop:
        taken = []
        while isinstance(assigned := loop.next(), Assignment):
            taken.append((assigned.parameters["a"], assigned.parameters["b"]))
            loop.tell(assigned, Outcome(values=(1.0,)))
    assert taken == [(0, 1), (0, 2), ("x", 1), ("x", 2)]
    assert assigned.next is Next.SUCCEEDED
    assert assigned.reason == reasons.SPACE_EXHAUSTED


def test_a_study_whose_grid_was_exhausted_goes_on_with_another_sampler(url: str) -> None:
    space = {"parameters": {"n": {"type": "int", "low": 1, "high": 2}}}
    grid = a_study(searchSpace=space, sampler={"name": "grid"})
    with TrialLoop(grid, url, "study") as loop:
        while isinstance(assigned := loop.next(), Assignment):
            loop.tell(assigned, Outcome(values=(1.0,)))
        assert assigned.next is Next.SUCCEEDED
    with TrialLoop(grid, url, "study") as loop:
        assert loop.next() == assigned, "a restart knows"
    with TrialLoop(a_study(searchSpace=space, sampler={"name": "random"}), url, "study") as loop:
        assert isinstance(loop.next(), Assignment)


def test_a_grid_waits_for_its_last_trial_and_runs_it_again_when_its_worker_is_lost(url: str) -> None:
    study = grid_study(parallelism=2)
    with TrialLoop(study, url, "study", 0) as loop, TrialLoop(study, url, "study", 1) as other:
        for _ in range(3):
            assigned = loop.next()
            assert isinstance(assigned, Assignment)
            loop.tell(assigned, Outcome(values=(1.0,)))
        last = loop.next()
        assert isinstance(last, Assignment)
        assert other.next() == Verdict(Next.WAIT)
        loop.tell(last, Outcome(failure=Failure.LOST, message="gone"))
        again = other.next()
        assert isinstance(again, Assignment)
        assert again.parameters == last.parameters
        other.tell(again, Outcome(values=(1.0,)))
        ended = loop.next()
        assert isinstance(ended, Verdict)
        assert ended.next is Next.SUCCEEDED


def test_a_grid_has_each_point_of_a_conditional_space_once() -> None:
    parameters = {
        "optim": {"type": "categorical", "choices": ["sgd", "adam"]},
        "momentum": {"type": "float", "low": 0, "high": 0.5, "step": 0.25, "when": {"optim": ["sgd"]}},
        "n": {"type": "int", "low": 1, "high": 2},
    }
    study, space = in_memory(a_study(searchSpace={"parameters": parameters}, sampler={"name": "grid"}))
    sampler = study.sampler
    assert isinstance(sampler, SweepsSampler)
    points = []
    while not sampler.is_exhausted(study):
        points.append(tuple(sorted(ask(study, space, told=1.0).items())))
    assert len(points) == len(set(points)) == 2 * (3 + 1)


def test_the_order_of_a_grid_can_be_shuffled() -> None:
    def order(options: dict[str, Any]) -> list[int]:
        native = sweep("grid", x={"min": 1, "max": 12})
        made, space = in_memory(a_study(native, sampler={"name": "grid", "options": options}))
        return [ask(made, space, told=1.0)["x"] for _ in range(12)]

    assert order({}) == list(range(1, 13))
    shuffled = order({"randomize_order": True, "seed": 1})
    assert sorted(shuffled) == list(range(1, 13)) != shuffled


def test_a_grid_steps_a_quantized_range_as_w_and_b_does() -> None:
    native = sweep("grid", x={"distribution": "q_uniform", "min": 0.1, "max": 0.5, "q": 0.1})
    study, space = in_memory(a_study(native))
    assert [ask(study, space, told=1.0)["x"] for _ in range(4)] == [0.1, 0.2, 0.3, 0.4]
    assert study.sampler.is_exhausted(study)  # type: ignore[attr-defined]


def test_a_trial_with_some_values_of_its_own_gets_the_others() -> None:
    study, space = in_memory(a_study(sweep("grid", x={"values": [1, 2]}, y={"values": ["a", "b"]})))
    study.enqueue_trial({"x": 2})
    assert ask(study, space, told=1.0)["x"] == 2


def test_another_backend_takes_the_space_but_not_the_method() -> None:
    native = {"parameters": {"x": X, "y": {"values": [1, 2]}}}
    assert set(space_of(a_study(native, backend="optuna")).distributions) == {"x", "y"}
    for refused in (
        {**native, "method": "bayes"},
        {"parameters": {"x": {"distribution": "beta", "a": 2}}},
        {"parameters": {"x": {"values": [1, 2], "probabilities": [0.1, 0.9]}}},
    ):
        with pytest.raises(InvalidStudyError, match="backend optuna"):
            read_space(a_study(refused, backend="optuna"))
