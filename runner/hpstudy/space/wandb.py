"""W&B's form of a space: a sweep configuration, verbatim, of which ``parameters`` is the space.

Distributions, their fields and what W&B infers where none is named:
https://docs.wandb.ai/models/sweeps/sweep-config-keys, and ``sweeps/config/schema.json`` of W&B's own engine.
"""

import difflib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.space.dimensions import (
    NORMAL_RANGE,
    Dimension,
    Normal,
    categorical_dimension,
    float_dimension,
    int_dimension,
)

_RANGE = {"min": None, "max": None}
_NORMAL = {"mu": 0.0, "sigma": 1.0}
_BETA = {"a": 1, "b": 1}
_Q = {"q": 1.0}

FIELDS: dict[str, dict[str, Any]] = {
    "constant": {"value": None},
    "categorical": {"values": None},
    "categorical_w_probabilities": {"values": None, "probabilities": None},
    "int_uniform": _RANGE,
    "uniform": _RANGE,
    "q_uniform": _RANGE | _Q,
    "log_uniform": _RANGE,
    "log_uniform_values": _RANGE,
    "q_log_uniform": _RANGE | _Q,
    "q_log_uniform_values": _RANGE | _Q,
    "inv_log_uniform": _RANGE,
    "inv_log_uniform_values": _RANGE,
    "normal": _NORMAL,
    "q_normal": _NORMAL | _Q,
    "log_normal": _NORMAL,
    "q_log_normal": _NORMAL | _Q,
    "beta": _BETA,
    "q_beta": _BETA | _Q,
}
"""Fields of each distribution with their defaults; those without one (None) are required."""

_LISTS = {"value", "values", "probabilities"}


@dataclass(frozen=True)
class SweepParameter:
    """A parameter of a sweep. ``given`` has its distribution by name and all of its fields."""

    path: tuple[str, ...]
    given: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As the storage records it: keys of nested parameters with dots between them."""
        return ".".join(self.path)


def dimensions(native: Any) -> list[Dimension]:
    """Read ``searchSpace.wandb``.

    Raises:
        InvalidStudyError: it has no parameters, or one that W&B would refuse.
    """
    grid = isinstance(native, Mapping) and native.get("method") == "grid"
    found = []
    for parameter in sweep_parameters(native):
        try:
            found.append(_dimension(parameter.name, parameter.path, parameter.given, grid=grid))
        except (OverflowError, ValueError) as error:
            raise _invalid(parameter.name, str(error)) from None
    return found


def sweep_parameters(native: Any) -> list[SweepParameter]:
    """The parameters of a sweep configuration, those nested in others among them, with W&B's defaults filled in.

    Raises:
        InvalidStudyError: see :func:`dimensions`.
    """
    if not isinstance(native, Mapping):
        kind = type(native).__name__
        raise InvalidStudyError(
            reasons.INVALID_SPACE, f"searchSpace.wandb: a sweep configuration is a mapping, this is a {kind}"
        )
    parameters = native.get("parameters")
    if not isinstance(parameters, Mapping) or not parameters:
        raise InvalidStudyError(reasons.INVALID_SPACE, "searchSpace.wandb.parameters: needs at least one parameter")
    return list(_flatten(parameters, ()))


def grid_points(given: Mapping[str, Any]) -> list[Any]:
    """The values that W&B's grid search gives a parameter; those of q_uniform begin at min and end below max."""
    match given["distribution"]:
        case "constant":
            return [given["value"]]
        case "categorical":
            return list(given["values"])
        case "int_uniform":
            return list(range(given["min"], given["max"] + 1))
        case "q_uniform":
            low, step = _exact(given["min"]), _exact(given["q"])
            count = math.ceil((_exact(given["max"]) - low) / step)
            whole = isinstance(given["min"], int) and isinstance(given["q"], int)
            return [int(low + k * step) if whole else float(low + k * step) for k in range(count)]
    raise ValueError(
        f"a grid search takes categorical, constant, int_uniform or q_uniform, not {given['distribution']}"
    )


def _flatten(parameters: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[SweepParameter]:
    for key, given in parameters.items():
        path = (*above, str(key))
        if not isinstance(given, Mapping):
            raise _invalid(".".join(path), "needs value, values, min and max, or a distribution")
        nested = given.get("parameters")
        if nested is None:
            yield SweepParameter(path, _complete(".".join(path), given))
            continue
        if len(given) > 1 or not isinstance(nested, Mapping) or not nested:
            raise _invalid(".".join(path), "parameters inside of it need names, and nothing beside them")
        yield from _flatten(nested, path)


def _complete(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    distribution = given.get("distribution") or _infer(name, given)
    if distribution not in FIELDS:
        close = difflib.get_close_matches(str(distribution), FIELDS, n=1)
        there = f"did you mean {close[0]}?" if close else f"there are {', '.join(FIELDS)}"
        raise _invalid(name, f"unknown distribution {distribution!r}; {there}")
    fields = FIELDS[distribution]
    unknown = sorted(set(given) - set(fields) - {"distribution"})
    if unknown:
        raise _invalid(name, f"{distribution} takes {', '.join(fields)}, not {', '.join(unknown)}")
    missing = [field for field, default in fields.items() if default is None and field not in given]
    if missing:
        raise _invalid(name, f"{distribution} needs {' and '.join(missing)}")
    filled = {"distribution": distribution} | {field: given.get(field, default) for field, default in fields.items()}
    for field in set(fields) - _LISTS:
        value = filled[field]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _invalid(name, f"{field} must be a finite number, got {value!r}")
    _check(name, filled)
    return filled


def _infer(name: str, given: Mapping[str, Any]) -> str:
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    if "min" not in given or "max" not in given:
        raise _invalid(name, "needs value, values, min and max, or a distribution")
    whole = all(isinstance(given[end], int) and not isinstance(given[end], bool) for end in ("min", "max"))
    return "int_uniform" if whole else "uniform"


def _check(name: str, filled: dict[str, Any]) -> None:
    """What W&B's schema says of the values, and what its engine needs."""
    distribution = filled["distribution"]
    if "min" in filled and filled["min"] >= filled["max"]:
        raise _invalid(name, f"min {filled['min']!r} must be below max {filled['max']!r}")
    if distribution.endswith("log_uniform_values") and filled["min"] <= 0:
        raise _invalid(name, f"{distribution} needs a min above 0")
    if distribution == "int_uniform":
        if not all(float(filled[end]).is_integer() for end in ("min", "max")):
            raise _invalid(name, "int_uniform needs whole numbers for min and max")
        filled |= {end: int(filled[end]) for end in ("min", "max")}
    for field in {"q", "sigma", "a", "b"} & set(filled):
        if filled[field] <= 0:
            raise _invalid(name, f"{field} must be above 0")
    if "values" in filled:
        values = filled["values"]
        if not isinstance(values, list | tuple) or not values:
            raise _invalid(name, "values must be a list with at least one value")
        if any(one == other for place, one in enumerate(values) for other in values[:place]):
            raise _invalid(name, "each value may be listed once; 1, 1.0 and true are the same")
    if "probabilities" in filled:
        shares = filled["probabilities"]
        numbers = isinstance(shares, list | tuple) and all(
            isinstance(share, int | float) and not isinstance(share, bool) and share >= 0 for share in shares
        )
        if not numbers or len(shares) != len(filled["values"]) or not math.isclose(sum(shares), 1, abs_tol=1e-5):
            raise _invalid(name, "probabilities needs one number for each value, 0 or more, and 1 in sum")


def _dimension(name: str, path: tuple[str, ...], given: Mapping[str, Any], *, grid: bool) -> Dimension:
    more: dict[str, Any] = {"path": path if len(path) > 1 else ()}
    distribution = given["distribution"]
    match distribution:
        case "constant":
            return categorical_dimension(name, [given["value"]], **more)
        case "categorical":
            return categorical_dimension(name, given["values"], **more)
        case "categorical_w_probabilities":
            return categorical_dimension(name, given["values"], only="probabilities of its values", **more)
        case "int_uniform":
            return int_dimension(name, given["min"], given["max"], **more)
        case "uniform":
            return float_dimension(name, given["min"], given["max"], **more)
        case "q_uniform" if grid:
            points = grid_points(given)
            kind = int_dimension if isinstance(points[0], int) else float_dimension
            return kind(name, points[0], points[-1], step=given["q"], **more)
        case "q_uniform":
            return _quantized(name, given["min"], given["max"], given["q"], **more)
        case "normal" | "q_normal" | "log_normal" | "q_log_normal":
            return _normal(name, given, **more)
        case "beta" | "q_beta":
            more["only"] = "" if given["a"] == given["b"] == 1 else f"a {distribution} distribution"
            if "q" in given:
                return _quantized(name, 0, 1, given["q"], **more)
            return float_dimension(name, 0, 1, **more)
    low, high = _log_range(given)
    if "q" not in given:  # of a logarithm that is uniform, the negative is uniform too: the inverse ones are the same
        return float_dimension(name, low, high, log=True, **more)
    if given["q"] == 1 and isinstance(given["q"], int) and round(low) > 0:
        return int_dimension(name, round(low), round(high), log=True, **more)
    return _quantized(name, low, high, given["q"], log_steps=True, **more)


def _log_range(given: Mapping[str, Any]) -> tuple[float, float]:
    if given["distribution"].endswith("_values"):
        return float(given["min"]), float(given["max"])
    low, high = given["min"], given["max"]
    if given["distribution"] == "inv_log_uniform":
        low, high = -high, -low
    # The older forms have powers of e for bounds.
    return _exp(low), _exp(high)


def _normal(name: str, given: Mapping[str, Any], **more: Any) -> Dimension:
    mean, deviation = float(given["mu"]), float(given["sigma"])
    low, high = mean - NORMAL_RANGE * deviation, mean + NORMAL_RANGE * deviation
    normal = Normal(mean, deviation)
    match given["distribution"]:
        case "normal":
            return float_dimension(name, low, high, normal=normal, **more)
        case "q_normal":
            return _quantized(name, low, high, given["q"], normal=normal, **more)
        case "log_normal":
            return float_dimension(name, _exp(low), _exp(high), log=True, normal=normal, **more)
    # The storage has no range that is both logarithmic and in steps.
    return _quantized(name, _exp(low), _exp(high), given["q"], only="a q_log_normal distribution", **more)


def _quantized(name: str, low: float, high: float, q: float, **more: Any) -> Dimension:
    """A range of the multiples of q that W&B rounds to, whole numbers where q is one; they may lie outside the bounds
    by half a q."""
    first, last = round(low / q), round(high / q)
    if isinstance(q, int):
        return int_dimension(name, first * q, last * q, step=q, **more)
    step = _exact(q)
    return float_dimension(name, float(first * step), float(last * step), step=q, **more)


def _exp(power: float) -> float:
    try:
        return max(math.exp(power), sys.float_info.min)  # a logarithmic range cannot begin at 0
    except OverflowError:
        raise ValueError(f"e^{power:g} is too large a number") from None


def _exact(number: float) -> Decimal:
    """As it was written: multiples of 0.1 are then the numbers that people expect."""
    return Decimal(str(number))


def _invalid(name: str, message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_SPACE, f"searchSpace.wandb.parameters.{name}: {message}")
