"""SigOpt's form of a space: its list of parameters, and the conditionals that some of them depend on.

``[{name: learning_rate, type: double, bounds: {min: 1e-6, max: 1e-4}, transformation: log}]``, as in the Transformers
page on hyperparameter search. A parameter's ``conditions`` name a conditional, which SigOpt keeps in a list of its own
(``{name, values}``) and which is an entry of the same list here, or a categorical parameter. See
https://github.com/sigopt/sigopt-server, ``zigopt/parameters/from_json.py``, for the fields.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.space.dimensions import Dimension, categorical_dimension, float_dimension, int_dimension

Text = Annotated[str, Field(strict=True, min_length=1, max_length=100)]
Number = Annotated[float, Field(allow_inf_nan=False)]
"""Or its text, as in SigOpt's own examples."""
Conditions = dict[Text, Text | Annotated[list[Text], Field(min_length=1)]]
"""Values, by conditional, with which the parameter exists."""


class _Part(BaseModel, extra="forbid", frozen=True):
    """A part of the list; fields that SigOpt does not know are refused."""


class Bounds(_Part):
    """Smallest and largest value, both included."""

    min: Number
    max: Number


class IntBounds(_Part):
    """Smallest and largest value, both included."""

    min: int
    max: int


class NormalPrior(_Part):
    """A normal density, cut off at the bounds."""

    name: Literal["normal"]
    mean: Number
    scale: Annotated[Number, Field(gt=0)]


class BetaPrior(_Part):
    """A beta density, stretched to the bounds."""

    name: Literal["beta"]
    shape_a: Annotated[Number, Field(gt=0)]
    shape_b: Annotated[Number, Field(gt=0)]


class Category(_Part):
    """A value of a categorical parameter."""

    name: Text


class Double(_Part):
    """A real number: bounds, or a grid of values."""

    name: Text
    type: Literal["double"]
    bounds: Bounds | None = None
    grid: list[Number] | None = None
    transformation: Literal["log", "none"] | None = None
    prior: Annotated[NormalPrior | BetaPrior, Field(discriminator="name")] | None = None
    default_value: Number | None = None
    """What the optimiser takes for it in trials in which it does not exist."""
    conditions: Conditions = Field(default_factory=dict)


class Int(_Part):
    """A whole number: bounds, or a grid of values."""

    name: Text
    type: Literal["int"]
    bounds: IntBounds | None = None
    grid: list[int] | None = None
    default_value: int | None = None
    """What the optimiser takes for it in trials in which it does not exist."""
    conditions: Conditions = Field(default_factory=dict)


class Categorical(_Part):
    """One of several texts."""

    name: Text
    type: Literal["categorical"]
    categorical_values: Annotated[list[Text | Category], Field(min_length=2)]
    default_value: Text | None = None
    """What the optimiser takes for it in trials in which it does not exist."""
    conditions: Conditions = Field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The values."""
        return [value.name if isinstance(value, Category) else value for value in self.categorical_values]


class Conditional(_Part):
    """What parameters depend on; it is a hyperparameter of the trial too."""

    name: Text
    values: Annotated[list[Text], Field(min_length=2)]


Parameter = Annotated[Double | Int | Categorical, Field(discriminator="type")]
_PARAMETER: TypeAdapter[Double | Int | Categorical] = TypeAdapter(Parameter)


def parse(native: Any) -> list[Double | Int | Categorical | Conditional]:
    """Check SigOpt's list.

    Raises:
        InvalidStudyError: with the first field that is wrong.
    """
    if not isinstance(native, Sequence) or isinstance(native, str) or not native:
        raise _invalid("", f"needs SigOpt's list of parameters, got {native!r:.80}")
    entries = [_entry(f"[{index}]", entry) for index, entry in enumerate(native)]
    parents = {}
    for entry in entries:
        if isinstance(entry, Conditional):
            parents[entry.name] = entry.values
        elif isinstance(entry, Categorical):
            parents[entry.name] = entry.names
    for index, entry in enumerate(entries):
        for parent, values in conditions(entry).items():
            where = f"[{index}].conditions.{parent}"
            if parent not in parents:
                raise _invalid(where, "the list has neither a conditional nor a categorical parameter of this name")
            unknown = [value for value in values if value not in parents[parent]]
            if unknown:
                raise _invalid(where, f"{unknown[0]!r} is none of its values, which are {', '.join(parents[parent])}")
    return entries


def conditions(entry: Double | Int | Categorical | Conditional) -> dict[str, tuple[str, ...]]:
    """Values, by conditional, with which the parameter exists."""
    given: Conditions = {} if isinstance(entry, Conditional) else entry.conditions
    return {name: (values,) if isinstance(values, str) else tuple(values) for name, values in given.items()}


def dimensions(native: Any) -> list[Dimension]:
    """Read ``searchSpace.sigopt``.

    The values of a grid become choices: no other backend knows unevenly spaced numbers.

    Raises:
        InvalidStudyError: it is not SigOpt's form of a space.
    """
    return [_dimension(entry) for entry in parse(native)]


def _dimension(entry: Double | Int | Categorical | Conditional) -> Dimension:
    when = conditions(entry)
    match entry:
        case Conditional():
            return categorical_dimension(entry.name, entry.values)
        case Categorical():
            return categorical_dimension(entry.name, entry.names, when=when)
        case Double(grid=list(values)) | Int(grid=list(values)):
            return categorical_dimension(entry.name, sorted(values), when=when)
        case Int(bounds=IntBounds(min=low, max=high)):
            return int_dimension(entry.name, low, high, when=when)
        case Double(bounds=Bounds(min=low, max=high)):
            prior = entry.prior and f"a {entry.prior.name} prior"
            return float_dimension(
                entry.name, low, high, log=entry.transformation == "log", when=when, only=prior or ""
            )
    raise AssertionError(entry)


def _entry(where: str, entry: Any) -> Double | Int | Categorical | Conditional:
    if not isinstance(entry, Mapping):
        raise _invalid(where, f"needs a parameter's fields by name, got {entry!r:.80}")
    try:
        if "values" in entry and "type" not in entry:
            parsed: Double | Int | Categorical | Conditional = Conditional.model_validate(dict(entry))
        else:
            parsed = _PARAMETER.validate_python(dict(entry))
    except ValidationError as error:
        raise _refusal(where, error) from None
    if isinstance(parsed, Double | Int):
        _check_numbers(where, parsed)
    values = parsed.values if isinstance(parsed, Conditional) else getattr(parsed, "names", [])
    if len(set(values)) < len(values):
        raise _invalid(where, "each value may be listed once")
    if isinstance(parsed, Categorical) and parsed.default_value not in (None, *parsed.names):
        raise _invalid(f"{where}.default_value", f"{parsed.default_value!r} is none of categorical_values")
    return parsed


def _check_numbers(where: str, parameter: Double | Int) -> None:
    bounds, grid, default = parameter.bounds, parameter.grid, parameter.default_value
    if (bounds is None) == (grid is None):
        raise _invalid(where, "needs exactly one of bounds, grid")
    values: Sequence[float] = grid if grid is not None else ()
    if bounds is not None:
        values = (bounds.min, bounds.max)
        if bounds.min >= bounds.max:
            raise _invalid(f"{where}.bounds", "min must be below max")
    elif len(values) < 2 or len(set(values)) < len(values):
        raise _invalid(f"{where}.grid", "needs two or more values, each listed once")
    if default is not None and not (default in values if grid else min(values) <= default <= max(values)):
        raise _invalid(f"{where}.default_value", f"{default:g} is not in the {'grid' if grid else 'bounds'}")
    if isinstance(parameter, Int):
        return
    log, prior = parameter.transformation == "log", parameter.prior
    if log and min(values) <= 0:
        raise _invalid(f"{where}.{'grid' if grid else 'bounds'}", "transformation log needs values above 0")
    if prior is not None and (grid or log):
        raise _invalid(f"{where}.prior", f"SigOpt has none together with {'a grid' if grid else 'transformation log'}")
    if isinstance(prior, NormalPrior) and not min(values) <= prior.mean <= max(values):
        raise _invalid(f"{where}.prior.mean", f"{prior.mean:g} is not in the bounds")


def _refusal(where: str, error: ValidationError) -> InvalidStudyError:
    detail = error.errors(include_url=False)[0]
    # The tags of unions are no fields of the user's.
    tags = {"double", "int", "categorical", "normal", "beta", "Category", "constrained-str"}
    path = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}"
        for part in detail["loc"]
        if part not in tags and not str(part).startswith(("list[", "function-"))
    )
    match detail["type"]:
        case "extra_forbidden":
            return _invalid(f"{where}{path}", "SigOpt has no such field for this kind of parameter")
        case "missing":
            return _invalid(f"{where}{path}", "required")
        case "union_tag_not_found":
            return _invalid(f"{where}{path}.{detail['ctx']['discriminator']}".replace("'", ""), "required")
        case "union_tag_invalid":
            field = detail["ctx"]["discriminator"].replace("'", "")
            expected = detail["ctx"]["expected_tags"]
            return _invalid(f"{where}{path}.{field}", f"must be one of {expected}, got {detail['ctx']['tag']!r}")
    message = detail["msg"][:1].lower() + detail["msg"][1:]
    return _invalid(f"{where}{path}", f"{message}, got {detail['input']!r:.80}")


def _invalid(where: str, message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_SPACE, f"searchSpace.sigopt{where}: {message}")
