"""Spaces of backend sigopt: SigOpt's own form, and other forms as SigOpt's optimiser samples them."""

import math
from typing import Any

import numpy
import pytest

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.build import build_sampler, check_algorithms
from hpstudy.samplers.sigopt import TOKEN, URL
from hpstudy.samplers.sigopt_lite import LiteSampler
from hpstudy.space.load import read_space
from tests.support.builders import spec
from tests.unit.samplers.sigopt_studies import CONDITIONAL, X, a_spec, ask, open_study, propose, told


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL, raising=False)
    monkeypatch.delenv(TOKEN, raising=False)


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


def test_a_space_of_constants_needs_no_optimiser() -> None:
    assert propose(a_spec({"x": {"type": "categorical", "choices": [None]}})) == {"x": None}
