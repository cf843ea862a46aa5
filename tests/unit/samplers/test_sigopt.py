"""Backend sigopt without a server: SigOpt's form of a space, and SigOpt's own optimiser."""

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import optuna
import pytest
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers import sigopt_engine
from hpstudy.samplers.build import build_pruner, build_sampler, check_algorithms
from hpstudy.samplers.sigopt import TOKEN, URL
from hpstudy.samplers.sigopt_lite import LiteSampler
from hpstudy.space.load import load_suggest, read_space
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.trials.loop import Assignment, TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.unit.builders import spec

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("sigoptlite"), reason="needs the extra sigopt")

X = {"name": "x", "type": "double", "bounds": {"min": 0, "max": 1}}
Y = {**X, "name": "y"}
CONDITIONAL = [
    {"name": "optimizer", "values": ["adam", "sgd"]},
    {**X, "name": "momentum", "conditions": {"optimizer": ["sgd"]}},
    {"name": "beta", "type": "int", "grid": [1, 3, 9], "conditions": {"optimizer": "adam"}, "default_value": 3},
]
FINITE = {"flag": {"type": "categorical", "choices": [True, False]}, "n": {"type": "int", "low": 1, "high": 2}}


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL, raising=False)
    monkeypatch.delenv(TOKEN, raising=False)


def a_spec(space: Any, kind: str = "offline", *, objectives: Sequence[str] = ("minimize",), **fields: Any) -> StudySpec:
    """A study by its space (SigOpt's list, or parameters by name), SigOpt's type of experiment and sampler options."""
    options = fields.pop("options", {})
    return spec(
        backend="sigopt",
        searchSpace={"sigopt": space} if isinstance(space, list) else {"parameters": space},
        objectives=[{"metric": f"loss{i}", "direction": direction} for i, direction in enumerate(objectives)],
        sampler={"name": kind, "options": options},
        **fields,
    )


def open_study(study: StudySpec, history: Sequence[optuna.trial.FrozenTrial] = ()) -> optuna.Study:
    sampler = build_sampler(study, read_space(study))
    made = optuna.create_study(sampler=sampler, directions=[o.direction for o in study.objectives])
    made.add_trials(history)
    return made


def ask(study: optuna.Study, of: StudySpec) -> dict[str, Any]:
    return load_suggest(of, read_space(of))(study.ask())


def propose(of: StudySpec, history: Sequence[optuna.trial.FrozenTrial] = ()) -> dict[str, Any]:
    """The next trial of a study with this history, by a sampler that was just made."""
    return ask(open_study(of, history), of)


def told(
    of: StudySpec, values: Mapping[str, Any], result: Sequence[float] | None, state: TrialState = TrialState.COMPLETE
) -> optuna.trial.FrozenTrial:
    space = read_space(of)
    assert space is not None
    pruned = state is TrialState.PRUNED
    return optuna.trial.create_trial(
        state=state,
        params={name: space[name].encode(value) for name, value in values.items()},
        distributions={name: space[name].distribution for name in values},
        values=result,
        intermediate_values={1: result[0]} if pruned and result else {},
    )


def on_a_line(
    of: StudySpec, result: Any, places: Sequence[float] = tuple(i / 10 for i in range(6))
) -> list[optuna.trial.FrozenTrial]:
    return [told(of, {"x": place}, [result(place)]) for place in places]


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ({"type": "double", "bounds": {"min": "1e-6", "max": "1e-4"}, "transformation": "log"}, float),
        ({"type": "double", "bounds": {"min": -1, "max": 1}, "transformation": "none"}, float),
        (
            {"type": "double", "bounds": {"min": 0, "max": 1}, "prior": {"name": "beta", "shape_a": 2, "shape_b": 9}},
            float,
        ),
        ({"type": "double", "bounds": {"min": 0, "max": 1}, "prior": {"name": "normal", "mean": 1, "scale": 2}}, float),
        ({"type": "double", "grid": ["1e-5", 3e-5, 0.1], "transformation": "log"}, {1e-5, 3e-5, 0.1}),
        ({"type": "int", "bounds": {"min": "1", "max": 3}}, {1, 2, 3}),
        ({"type": "int", "grid": [64, 8, 16]}, {8, 16, 64}),
        ({"type": "categorical", "categorical_values": ["16", {"name": "32"}]}, {"16", "32"}),
    ],
)
def test_each_of_sigopts_parameters_is_sampled_within_its_values_and_type(parameter: Any, values: Any) -> None:
    of = a_spec([{"name": "p", **parameter}, X], "random", options={"seed": 1})
    study = open_study(of)
    drawn = [ask(study, of)["p"] for _ in range(30)]
    if isinstance(values, set):
        assert set(drawn) == values
        assert {type(value) for value in drawn} == {type(value) for value in values}
        return
    bounds = parameter["bounds"]
    assert all(type(value) is float and float(bounds["min"]) <= value <= float(bounds["max"]) for value in drawn)
    assert len(set(drawn)) == 30
    if parameter.get("transformation") == "log":
        assert sum(value < 1e-5 for value in drawn) > 5
    if parameter.get("prior", {}).get("name") == "beta":
        assert sum(value < 0.5 for value in drawn) > 25


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ({"type": "float", "low": 0.1, "high": 0.4, "step": 0.1}, {0.1, 0.2, 0.3, 0.4}),
        ({"type": "float", "low": 0, "high": 1, "step": 0.001}, None),
        ({"type": "int", "low": 4, "high": 12, "step": 4}, {4, 8, 12}),
        ({"type": "int", "low": 1, "high": 3, "log": True}, {1, 2, 3}),
        (
            {"type": "categorical", "choices": [True, False, None, 1.5, "true", "x" * 60]},
            {True, False, None, 1.5, "true", "x" * 60},
        ),
        ({"type": "categorical", "choices": [7]}, {7}),
        ({"type": "int", "low": 5, "high": 5}, {5}),
    ],
)
def test_parameters_that_sigopt_has_not_keep_their_values_and_types(parameter: Any, values: Any) -> None:
    of = a_spec({"p": parameter, "x": {"type": "float", "low": 0, "high": 1}}, "random", options={"seed": 1})
    study = open_study(of)
    drawn = [ask(study, of)["p"] for _ in range(30)]
    if values is None:
        assert all(value == round(value, 3) for value in drawn)
        assert len(set(drawn)) > 20
        return
    assert set(drawn) == values
    assert {type(value) for value in drawn} == {type(value) for value in values}


def test_a_normal_parameter_of_another_form_is_sampled_by_its_density() -> None:
    of = spec(
        backend="sigopt",
        searchSpace={"wandb": {"parameters": {"x": {"distribution": "log_normal", "mu": 3, "sigma": 0.5}}}},
        sampler={"name": "random", "options": {"seed": 1}},
    )
    study = open_study(of)
    logarithms = [math.log(ask(study, of)["x"]) for _ in range(100)]
    assert numpy.mean(logarithms) == pytest.approx(3, abs=0.2)
    assert numpy.std(logarithms) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        ([{"name": "a"}], "searchSpace.sigopt[0].type: required"),
        (
            [{"name": "a", "type": "float"}],
            "sigopt[0].type: must be one of 'double', 'int', 'categorical', got 'float'",
        ),
        ([X, {"name": "a", "type": "int"}], "sigopt[1]: needs exactly one of bounds, grid"),
        ([{"name": "a", "type": "int", "bounds": {"min": 1, "max": "x"}}], "sigopt[0].bounds.max: "),
        ([{"name": "a", "type": "int", "bounds": {"min": 1.5, "max": 3}}], "sigopt[0].bounds.min: "),
        ([{**X, "bounds": {"min": 1, "max": 1}}], "sigopt[0].bounds: min must be below max"),
        ([{**X, "transformation": "log"}], "sigopt[0].bounds: transformation log needs values above 0"),
        (
            [{"name": "a", "type": "int", "bounds": {"min": 1, "max": 3}, "transformation": "log"}],
            "transformation: SigOpt has no such field",
        ),
        (
            [
                {
                    **X,
                    "transformation": "log",
                    "bounds": {"min": 1, "max": 2},
                    "prior": {"name": "beta", "shape_a": 1, "shape_b": 1},
                }
            ],
            "sigopt[0].prior: SigOpt has none together with transformation log",
        ),
        ([{**X, "prior": {"name": "normal", "mean": 3, "scale": 1}}], "sigopt[0].prior.mean: 3 is not in the bounds"),
        ([{"name": "a", "type": "double", "grid": [1]}], "sigopt[0].grid: needs two or more values"),
        (
            [{"name": "a", "type": "categorical", "categorical_values": [16, 32]}],
            "categorical_values[0]: input should be a valid string, got 16",
        ),
        (
            [{"name": "a", "type": "categorical", "categorical_values": ["b", "b"]}],
            "sigopt[0]: each value may be listed once",
        ),
        ([{**X, "default_value": 3}], "sigopt[0].default_value: 3 is not in the bounds"),
        ([{**X, "conditions": {"c": ["d"]}}], "sigopt[0].conditions.c: the list has neither a conditional nor"),
        (
            [CONDITIONAL[0], {**X, "conditions": {"optimizer": "lion"}}],
            "conditions.optimizer: 'lion' is none of its values, which are adam, sgd",
        ),
        ([X, X], "each parameter needs a name of its own"),
    ],
)
def test_what_is_not_sigopts_form_is_refused_by_the_name_of_the_field(space: Any, complaint: str) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        check_algorithms(a_spec(space))
    assert refusal.value.reason == reasons.INVALID_SPACE
    assert complaint in refusal.value.message


def test_other_backends_take_sigopts_form_but_for_its_priors() -> None:
    of = spec(searchSpace={"sigopt": CONDITIONAL}, sampler={"name": "RandomSampler", "options": {"seed": 1}})
    study = open_study(of)
    assert {tuple(ask(study, of)) for _ in range(20)} == {("optimizer", "momentum"), ("optimizer", "beta")}
    prior = {"name": "beta", "shape_a": 1, "shape_b": 2}
    with pytest.raises(InvalidStudyError, match="x has a beta prior, which backend optuna does not have"):
        read_space(spec(searchSpace={"sigopt": [{**X, "prior": prior}]}))


@pytest.mark.parametrize(
    ("fields", "reason", "complaint"),
    [
        ({"kind": "offlin"}, reasons.UNKNOWN_SAMPLER, "unknown sampler 'offlin': did you mean offline?"),
        (
            {"options": {"sed": 1}},
            reasons.INVALID_OPTION,
            "sampler.options.sed: SigOpt has no such option: did you mean seed?",
        ),
        ({"options": {"seed": "1"}}, reasons.INVALID_OPTION, "sampler.options.seed: input should be a valid integer"),
        (
            {"options": {"compute_mode": "spe"}},
            reasons.INVALID_OPTION,
            "compute_mode: input should be 'default' or 'kde_only'",
        ),
        ({"options": {"project": "p"}}, reasons.INVALID_OPTION, "sampler.options.project: needs a server"),
        (
            {"options": {"linear_constraints": [{"type": "less", "threshold": 1, "terms": []}]}},
            reasons.INVALID_OPTION,
            "linear_constraints[0].type",
        ),
        ({"objectives": ("minimize",) * 3}, reasons.INVALID_OPTION, "SigOpt optimises one or two metrics, there are 3"),
    ],
)
def test_a_wrong_name_or_option_is_refused(fields: Any, reason: str, complaint: str) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        check_algorithms(a_spec([X, Y], **fields))
    assert refusal.value.reason == reason
    assert complaint in refusal.value.message


@pytest.mark.parametrize(
    ("space", "terms", "complaint"),
    [
        ([X], {"x": 1, "z": 1}, "terms[1]: no parameter to vary is named 'z'"),
        ([X, {**Y, "bounds": {"min": 1, "max": 2}, "transformation": "log"}], {"x": 1, "y": 1}, "y is logarithmic"),
        ([X, {"name": "y", "type": "double", "grid": [1, 2]}], {"x": 1, "y": 1}, "y has choices, a grid or steps"),
        ([X, *CONDITIONAL], {"x": 1, "momentum": 1}, "momentum exists in some trials only"),
        (
            [X, {"name": "n", "type": "int", "bounds": {"min": 1, "max": 2}}],
            {"x": 1, "n": 1},
            "cannot mix integers and doubles",
        ),
        ([X, Y], {"x": 1, "y": 1}, "Infeasible constraints"),
        ([X, {**Y, "prior": {"name": "beta", "shape_a": 1, "shape_b": 2}}], {"x": 1, "y": 1}, "or the prior of y"),
    ],
)
def test_a_constraint_that_sigopt_cannot_keep_is_refused(space: Any, terms: dict[str, float], complaint: str) -> None:
    constraint = {
        "type": "less_than",
        "threshold": -1,
        "terms": [{"name": name, "weight": weight} for name, weight in terms.items()],
    }
    with pytest.raises(InvalidStudyError, match=r"sampler\.options\.linear_constraints") as refusal:
        check_algorithms(a_spec(space, options={"linear_constraints": [constraint]}))
    assert complaint in refusal.value.message


def test_linear_constraints_hold_for_the_first_trials_and_for_those_that_are_optimised() -> None:
    constraint = {
        "type": "less_than",
        "threshold": 0.5,
        "terms": [{"name": "x", "weight": 1}, {"name": "y", "weight": 1}],
    }
    of = a_spec([X, Y], objectives=["maximize"], options={"seed": 1, "linear_constraints": [constraint]})
    study = open_study(of)
    drawn = [ask(study, of) for _ in range(20)]
    assert all(values["x"] + values["y"] <= 0.5 + 1e-9 for values in drawn)
    optimised = propose(of, [told(of, values, [values["x"] + values["y"]]) for values in drawn])
    assert 0.45 < optimised["x"] + optimised["y"] <= 0.5 + 1e-9


def test_linear_constraints_hold_for_whole_numbers() -> None:
    n = {"name": "n", "type": "int", "bounds": {"min": 0, "max": 4}}
    constraint = {
        "type": "greater_than",
        "threshold": 7,
        "terms": [{"name": "n", "weight": 1}, {"name": "m", "weight": 1}],
    }
    of = a_spec([n, {**n, "name": "m"}], options={"seed": 1, "linear_constraints": [constraint]})
    study = open_study(of)
    asked = {tuple(ask(study, of).values()) for _ in range(3)}
    assert asked == {(4, 4), (4, 3), (3, 4)}, "all there are"
    told_of = [told(of, {"n": n, "m": m}, [n]) for n, m in asked]
    assert tuple(propose(of, told_of * 2).values()) in asked


def test_conditions_of_any_kind_say_which_parameters_exist() -> None:
    of = a_spec(CONDITIONAL, "random", options={"seed": 1})
    study = open_study(of)
    assert {tuple(ask(study, of)) for _ in range(20)} == {("optimizer", "momentum"), ("optimizer", "beta")}
    of = a_spec(
        {
            "layers": {"type": "int", "low": 1, "high": 2},
            "second": {"type": "categorical", "choices": [8, 16], "when": {"layers": [2]}},
            "dropout": {"type": "float", "low": 0, "high": 1, "when": {"second": [16]}},
        },
        options={"seed": 1},
    )
    study = open_study(of)
    assert {tuple(ask(study, of)) for _ in range(20)} == {
        ("layers",),
        ("layers", "second"),
        ("layers", "second", "dropout"),
    }
    optimised = propose(of, [told(of, t.params, [t.number]) for t in study.trials])
    assert ("second" in optimised) == (optimised["layers"] == 2)


def test_a_parameter_that_does_not_exist_is_its_default_or_its_last_value_to_the_optimiser() -> None:
    of = a_spec(CONDITIONAL)
    sampler = build_sampler(of, read_space(of))
    assert isinstance(sampler, LiteSampler)
    assert sampler._complete({"optimizer": "sgd", "momentum": 0.5}) == {"optimizer": "sgd", "momentum": 0.5, "beta": 3}
    assert sampler._complete({"optimizer": "adam", "beta": 9}) == {"optimizer": "adam", "momentum": 1.0, "beta": 9}


@pytest.mark.parametrize("options", [{"seed": 3}, {"seed": 3, "compute_mode": "kde_only"}])
def test_a_new_sampler_knows_what_others_ran(options: dict[str, Any]) -> None:
    of = a_spec([X], options=options, budget={"maxTrials": 100_000})
    history = on_a_line(of, lambda x: (x - 0.73) ** 2, [i / 12 for i in range(13)])
    before = numpy.random.get_state()[1].copy()
    first = propose(of, history)
    assert abs(first["x"] - 0.73) < 0.1
    assert propose(of, history) == first, "a restart changes nothing"
    assert (numpy.random.get_state()[1] == before).all(), "the generator of the whole process is left alone"


def test_a_seed_gives_the_same_trials_again_and_no_two_alike() -> None:
    def first_trials(seed: int | None) -> list[float]:
        of = a_spec([X], options={} if seed is None else {"seed": seed})
        study = open_study(of)
        return [ask(study, of)["x"] for _ in range(3)]

    assert first_trials(1) == first_trials(1)
    assert len({*first_trials(1), *first_trials(2), *first_trials(None), *first_trials(None)}) == 12


@pytest.mark.parametrize(("state", "result"), [(TrialState.FAIL, None), (TrialState.PRUNED, [5.0])])
def test_failed_and_pruned_trials_are_told(state: TrialState, result: list[float] | None) -> None:
    of = a_spec([X], options={"seed": 1})
    falling = on_a_line(of, lambda x: -x)
    ended = [told(of, {"x": place}, result, state) for place in (0.7, 0.8, 0.9, 1.0)]
    assert propose(of, falling + ended)["x"] < 0.7


def test_a_trial_that_lost_its_worker_tells_nothing() -> None:
    of = a_spec([X], options={"seed": 1})
    history = on_a_line(of, lambda x: -x)
    lost = told(of, {"x": 1.0}, None, TrialState.FAIL)
    lost.user_attrs[attributes.FAILURE] = Failure.LOST
    assert propose(of, [*history, lost])["x"] > 0.9


def test_points_in_flight_are_not_proposed_again() -> None:
    of = a_spec([X, Y], options={"seed": 1})
    history = [
        told(of, {"x": x / 3, "y": y / 3}, [(x / 3 - 0.6) ** 2 + (y / 3 - 0.4) ** 2])
        for x in range(4)
        for y in range(4)
    ]
    study = open_study(of, history)
    one, other = ask(study, of), ask(study, of)
    assert math.dist(one.values(), other.values()) > 0.02


def test_a_finite_space_gives_each_point_once_and_goes_on() -> None:
    of = a_spec(FINITE, options={"seed": 1})
    study = open_study(of)
    asked = [ask(study, of) for _ in range(4)]
    assert len({tuple(values.items()) for values in asked}) == 4, "four at once"
    again = propose(of, [told(of, values, [1.0]) for values in (asked + asked)[:7]])
    assert again in asked, "all is tried and told: optimised, and not at an end"


def test_two_objectives_are_a_pareto_front_and_can_be_had_again() -> None:
    of = a_spec([X], objectives=["minimize", "maximize"], options={"seed": 1}, budget={"maxTrials": 20})
    # 8 of 20 is the phase in which it weighs the metrics by numbers that it draws.
    history = [told(of, {"x": place / 7}, [(place / 7) ** 2, -((place / 7 - 0.5) ** 2)]) for place in range(8)]
    first = propose(of, history)
    assert 0 <= first["x"] <= 0.6, "better in neither metric beyond"
    assert propose(of, history) == first
    failed = [told(of, {"x": 0.9}, None, TrialState.FAIL)] * 2
    assert 0 <= propose(of, history * 2 + failed)["x"] <= 1, "the phase of constraints"


def test_a_weighted_sum_is_one_metric(tmp_path: Path) -> None:
    objectives = ("minimize", "maximize", "minimize")
    weights = {"loss0": 1, "loss1": 1, "loss2": 0}
    of = a_spec(
        [X], objectives=objectives, scalarize={"weights": weights}, options={"seed": 1}, budget={"maxTrials": 9}
    )
    with TrialLoop(of, f"sqlite:///{tmp_path / 'study.db'}", "study") as loop:
        asked = []
        for _ in range(7):
            assigned = loop.next()
            assert isinstance(assigned, Assignment)
            x = assigned.parameters["x"]
            asked.append(x)
            loop.tell(assigned, Outcome(values=(x**2, x, 0.0)))
    assert min(abs(x - 0.5) for x in asked[5:]) < 0.1, "the minimum of x² - x"


def sigopt_space(trial: object) -> list[dict[str, Any]]:
    """As on the Transformers page."""
    return [
        {"bounds": {"min": 1e-6, "max": 1e-4}, "name": "learning_rate", "type": "double"},
        {"categorical_values": ["16", "32"], "name": "per_device_train_batch_size", "type": "categorical"},
    ]


def test_a_function_returns_sigopts_own_form() -> None:
    of = spec(
        backend="sigopt", searchSpace={"python": f"{__name__}:sigopt_space"}, sampler={"name": "random"}, pruner=None
    )
    values = propose(of)
    assert 1e-6 <= values["learning_rate"] <= 1e-4
    assert values["per_device_train_batch_size"] in ("16", "32")


def test_groups_share_what_they_know_and_no_point(tmp_path: Path) -> None:
    of = a_spec(FINITE, options={"seed": 1}, budget={"maxTrials": 4})
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with TrialLoop(of, url, "study", 0) as one, TrialLoop(of, url, "study", 1) as other:
        asked = [loop.next() for loop in (one, other, one, other)]
    parameters = [assigned.parameters for assigned in asked if isinstance(assigned, Assignment)]
    assert len({tuple(values.items()) for values in parameters}) == 4


def test_given_values_are_kept_and_the_rest_is_sigopts() -> None:
    of = a_spec([X, Y], options={"seed": 1})
    study = open_study(of)
    study.enqueue_trial({"x": 0.25, "y": 0.5})
    study.enqueue_trial({"x": 0.75})
    assert ask(study, of) == {"x": 0.25, "y": 0.5}
    partial = ask(study, of)
    assert partial["x"] == 0.75
    assert 0 <= partial["y"] <= 1


def test_a_space_of_constants_needs_no_optimiser() -> None:
    assert propose(a_spec({"x": {"type": "categorical", "choices": [None]}})) == {"x": None}


def test_optunas_pruners_work_by_name() -> None:
    pruner = build_pruner(a_spec([X], pruner={"name": "MedianPruner", "options": {"n_startup_trials": 2}}))
    assert isinstance(pruner, optuna.pruners.MedianPruner)


@pytest.mark.parametrize(("given", "missing"), [(URL, TOKEN), (TOKEN, URL)])
def test_half_a_server_is_refused(given: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(given, "something")
    with pytest.raises(InvalidStudyError, match=f"{given} is set and {missing} is not") as refusal:
        propose(a_spec([X]))
    assert "something" not in refusal.value.message


def test_without_the_engine_a_study_is_checked_as_far_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the operator, whose image has no engine."""
    for name in [name for name in sys.modules if name.startswith("sigoptlite")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sigoptlite", None)
    sigopt_engine.load.cache_clear()
    try:
        check_algorithms(a_spec([X]))
        with pytest.raises(InvalidStudyError, match="SigOpt has no such option"):
            check_algorithms(a_spec([X], options={"sed": 1}))
        with pytest.raises(InvalidStudyError, match=r"needs the extra sigopt \(pip install 'hpstudy\[sigopt\]'\)"):
            propose(a_spec([X]))
    finally:
        sigopt_engine.load.cache_clear()
