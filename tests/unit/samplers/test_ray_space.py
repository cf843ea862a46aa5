"""Ray Tune's form of a space, as a manifest writes it and as its functions return it."""

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.space.dimensions import Dimension, Normal, SearchSpace
from hpstudy.space.load import read_space
from hpstudy.space.ray import GRID, dimensions
from tests.support.builders import spec


def read(**native: Any) -> Dimension:
    (dimension,) = dimensions(native)
    return dimension


@pytest.mark.parametrize(
    ("call", "distribution"),
    [
        ({"uniform": [-1, 2]}, FloatDistribution(-1, 2)),
        ({"uniform": {"lower": 0, "upper": 1}}, FloatDistribution(0, 1)),
        ({"quniform": [0.2, 1.0, 0.2]}, FloatDistribution(0.2, 1.0, step=0.2)),
        ({"loguniform": [1e-6, 1e-4]}, FloatDistribution(1e-6, 1e-4, log=True)),
        ({"qloguniform": [0.1, 10, 0.1]}, FloatDistribution(0.1, 10, step=0.1)),
        ({"randn": [10, 2]}, FloatDistribution(-6, 26)),
        ({"randn": []}, FloatDistribution(-8, 8)),
        ({"qrandn": [0, 1, 0.3]}, FloatDistribution(-7.8, 7.8, step=0.3)),
        ({"randint": [1, 9]}, IntDistribution(1, 8)),
        ({"qrandint": [1, 9, 2]}, IntDistribution(2, 8, step=2)),
        ({"qrandint": [4, 12, 4]}, IntDistribution(4, 12, step=4)),
        ({"qrandint": [1, 9]}, IntDistribution(1, 8)),
        ({"lograndint": [1, 9]}, IntDistribution(1, 8, log=True)),
        ({"qlograndint": [8, 64, 8]}, IntDistribution(8, 64, step=8)),
        ({"choice": [["a", None, True, 3]]}, CategoricalDistribution(["a", None, True, 3])),
        ({"choice": {"categories": [16, 32]}}, CategoricalDistribution([16, 32])),
        ({"choice": [[[64, 64], [128]]]}, CategoricalDistribution(["[64, 64]", "[128]"])),
        ({"grid_search": [1, 2, 3]}, CategoricalDistribution([1, 2, 3])),
        ({"grid_search": [[1, 2, 3]]}, CategoricalDistribution([1, 2, 3])),
        ("adamw", CategoricalDistribution(["adamw"])),
        (None, CategoricalDistribution([None])),
        (0.1, CategoricalDistribution([0.1])),
    ],
)
def test_every_function_has_its_own_bounds(call: Any, distribution: BaseDistribution) -> None:
    assert read(x=call).distribution == distribution


def test_densities_that_the_storage_cannot_say_are_kept() -> None:
    assert read(x={"randn": [10, 2]}).normal == Normal(10, 2)
    assert read(x={"qrandn": [0, 1, 0.5]}).normal == Normal(0, 1)
    assert read(x={"qloguniform": [0.1, 10, 0.1]}).log_steps
    assert read(x={"qlograndint": [8, 64, 8]}).log_steps


def test_choices_reach_the_trial_as_they_were_written() -> None:
    dimension = read(layers={"choice": [[[64, 64], [128], None, True, 1.5]]})
    stored = dimension.distribution.choices  # type: ignore[attr-defined]
    assert [dimension.decode(value) for value in stored] == [[64, 64], [128], None, True, 1.5]


def test_nested_parameters_have_dotted_names_and_reach_the_trial_nested() -> None:
    space = SearchSpace(dimensions({"lr": 0.1, "optim": {"name": "sgd", "args": {"beta": {"choice": [[0.9]]}}}}))
    values = {dimension.name: dimension.choices[0] for dimension in space.dimensions}
    assert values == {"lr": 0.1, "optim.name": "sgd", "optim.args.beta": 0.9}
    assert space.nested(values) == {"lr": 0.1, "optim": {"name": "sgd", "args": {"beta": 0.9}}}


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ({"loguniform": [0, 1]}, "searchSpace.ray.x: loguniform(lower, upper)"),
        ({"uniform": [1]}, "missing a required argument: 'upper'"),
        ({"loguniform": {"lower": 1, "upper": 2, "base": 10}}, "unexpected keyword argument 'base'"),
        ({"uniform": ["a", 1]}, "lower must be a number, got 'a'"),
        ({"uniform": [2, 1]}, "`low <= high` must hold"),
        ({"uniform": 3}, "needs its arguments, by name or in order, got 3"),
        ({"quniform": [0, 1, 0.3]}, "lower and upper must be multiples of q=0.3"),
        ({"quniform": [0, 1, 0]}, "q must be above 0"),
        ({"qrandint": [5, 6, 4]}, "no multiple of q=4 from 5 to 6"),
        ({"randint": [3, 3]}, "upper is exclusive"),
        ({"randint": [0.5, 3]}, "lower must be a whole number"),
        ({"lograndint": [0, 3]}, "lower bound above 0"),
        ({"randn": [0, 0]}, "sd must be above 0"),
        ({"choice": [16, 32]}, "{choice: [[…]]}"),
        ({"choice": ["abc"]}, "categories must be a list, got 'abc'"),
        ({"choice": [[1, True]]}, "each value may be listed once"),
        ({"choice": [[{"uniform": [0, 1]}, 2]]}, "a choice between distributions"),
        ({"choice": [[{1, 2}]]}, "must be a JSON value"),
        ({"logunifrm": [1e-6, 1e-4]}, "did you mean loguniform?"),
        ({"logunifrm": {"lower": 1e-6, "upper": 1e-4}}, "did you mean loguniform?"),
        ({"sample_from": "lambda: 3"}, "is computed by a function"),
        ({"eval": "spec.config.y"}, "is computed by a function"),
        (lambda config: 3, "is computed by a function"),
        ([0.9, 0.999], "a list that is constant is a choice of one"),
        ({}, "is empty"),
        ({"deep": {}}, "searchSpace.ray.x.deep: is empty"),
        ({3: 4}, "names are text, got 3"),
    ],
)
def test_what_is_no_space_is_refused_with_its_place(call: Any, complaint: str) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        dimensions({"x": call})
    assert refusal.value.reason == reasons.INVALID_SPACE
    assert complaint in refusal.value.message


def test_a_manifest_is_read_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "ray" or name.startswith("ray.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert [d.name for d in dimensions({"x": {"randint": [1, 9]}, "y": {"choice": [[1, 2]]}})] == ["x", "y"]


def as_functions_return_them(tune: Any) -> dict[str, tuple[Any, Any]]:
    """Each function's object, and the same as a manifest writes it."""
    return {
        "uniform": (tune.uniform(-1, 2), {"uniform": [-1, 2]}),
        "quniform": (tune.quniform(0.2, 1.0, 0.2), {"quniform": [0.2, 1.0, 0.2]}),
        "loguniform": (tune.loguniform(1e-6, 1e-4), {"loguniform": [1e-6, 1e-4]}),
        "qloguniform": (tune.qloguniform(0.1, 10, 0.1), {"qloguniform": [0.1, 10, 0.1]}),
        "randn": (tune.randn(10, 2), {"randn": [10, 2]}),
        "qrandn": (tune.qrandn(0, 1, 0.5), {"qrandn": [0, 1, 0.5]}),
        "randint": (tune.randint(1, 9), {"randint": [1, 9]}),
        "qrandint": (tune.qrandint(1, 9, 2), {"qrandint": [1, 9, 2]}),
        "qrandint-1": (tune.qrandint(1, 9, 1), {"qrandint": [1, 9, 1]}),
        "lograndint": (tune.lograndint(1, 9), {"lograndint": [1, 9]}),
        "qlograndint": (tune.qlograndint(8, 64, 8), {"qlograndint": [8, 64, 8]}),
        "choice": (tune.choice([[64], None, 3]), {"choice": [[[64], None, 3]]}),
        "numpy": (tune.choice([*numpy.array([1, 2])]), {"choice": [[1, 2]]}),
        "grid_search": (tune.grid_search([4, 8]), {"grid_search": [4, 8]}),
        "constant": (numpy.float64(0.5), 0.5),
        "nested": ({"a": tune.uniform(0, 1)}, {"a": {"uniform": [0, 1]}}),
    }


def test_what_the_functions_return_is_read_as_what_a_manifest_writes() -> None:
    from ray import tune

    for name, (returned, written) in as_functions_return_them(tune).items():
        assert dimensions({name: returned}) == dimensions({name: written}), name


def test_every_draw_of_ray_is_within_the_bounds_and_both_ends_are_drawn() -> None:
    from ray import tune

    generator = numpy.random.RandomState(0)
    for name, (domain, _) in as_functions_return_them(tune).items():
        if name in ("grid_search", "constant", "nested", "choice", "numpy"):
            continue
        dimension = read(x=domain)
        drawn = [domain.sample(random_state=generator) for _ in range(400)]
        assert [dimension.decode(dimension.encode(value)) for value in drawn] == pytest.approx(drawn), name
        if isinstance(dimension.distribution, IntDistribution):
            assert {min(drawn), max(drawn)} == {dimension.distribution.low, dimension.distribution.high}, name


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda tune: tune.sample_from(lambda config: config["y"]), "is computed by a function"),
        (lambda tune: tune.choice([tune.uniform(0, 1), 2]), "a choice between distributions"),
        (lambda tune: tune.choice([math.sin, 2]), "must be a JSON value"),
    ],
)
def test_objects_that_cannot_be_recorded_are_refused(make: Callable[[Any], Any], complaint: str) -> None:
    from ray import tune

    with pytest.raises(InvalidStudyError, match=complaint):
        dimensions({"x": make(tune)})


def test_a_function_of_the_users_may_return_the_space() -> None:
    space = read_space(spec(backend="ray", searchSpace={"python": "tests.unit.samplers.ray_spaces:hp_space"}))
    assert space is not None
    assert space.distributions == {
        "learning_rate": FloatDistribution(1e-6, 1e-4, log=True),
        "per_device_train_batch_size": CategoricalDistribution([16, 32, 64, 128]),
    }


def test_a_grid_is_refused_where_there_is_none() -> None:
    assert read(x={"grid_search": [1, 2]}).only == GRID
    with pytest.raises(InvalidStudyError, match="x has a grid"):
        read_space(spec(backend="optuna", searchSpace={"ray": {"x": {"grid_search": [1, 2]}}}))
