"""Ray Tune's form of a space: the functions of ``ray.tune`` by name, with their own arguments.

``{learning_rate: {loguniform: [1e-6, 1e-4]}, batch: {choice: [[16, 32]]}, optim: {beta: {uniform: [0, 1]}}}``, or what
those functions return, where a Python function makes the space. See
https://docs.ray.io/en/latest/tune/api/search_space.html
"""

import difflib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
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

GRID_SEARCH = "grid_search"
GRID = "a grid (grid_search)"
"""What no other backend has; it marks the parameters of the grid."""
_FUNCTIONS = ("sample_from", "eval")
"""Ray's ways to compute a value from the others."""


def dimensions(native: Mapping[str, Any]) -> list[Dimension]:
    """Read ``searchSpace.ray``, or the dictionary that a function of the user's returned.

    Raises:
        InvalidStudyError: a function that ``ray.tune`` does not have or that computes values, arguments that it does
            not take, or a constant that is no scalar.
    """
    if not isinstance(native, Mapping):
        raise _invalid((), f"a space of Ray Tune is a dictionary, got {type(native).__name__}")
    return [_dimension(path, name, arguments) for path, name, arguments in _calls(native)]


def plain(native: Mapping[str, Any]) -> dict[str, Any]:
    """A space with objects of ``ray.tune`` as one of names and arguments, which JSON can say.

    Raises:
        InvalidStudyError: see ``dimensions``.
    """
    if not isinstance(native, Mapping):
        raise _invalid((), f"a space of Ray Tune is a dictionary, got {type(native).__name__}")
    result: dict[str, Any] = {}
    for (*parents, name), function, arguments in _calls(native):
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = {function: _plain_arguments(arguments)}
    return result


def _plain_arguments(arguments: Any) -> Any:
    if isinstance(arguments, Mapping):
        return {name: _plain_arguments(value) for name, value in arguments.items()}
    if isinstance(arguments, list | tuple):
        return [_plain_arguments(value) for value in arguments]
    return _plain(arguments)


def _calls(native: Mapping[Any, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Each parameter's path, function of ``ray.tune`` and arguments; a constant is a choice of one."""
    for key, value in native.items():
        path = (*parents, key)
        if not isinstance(key, str):
            raise _invalid(parents, f"names are text, got {key!r}")
        if type(value).__module__ == "ray.tune.search.sample":
            yield (path, *_read_domain(path, value))
        elif isinstance(value, Mapping):
            only = next(iter(value), None) if len(value) == 1 else None
            if only in _FUNCTIONS:
                raise _computed(path)
            if only == GRID_SEARCH:
                yield path, GRID_SEARCH, _grid_arguments(value[GRID_SEARCH])
            elif only in _DOMAINS:
                yield path, str(only), value[only]
            else:
                _refuse_misspelt(path, only, value)
                if not value:
                    raise _invalid(path, f"is empty; it needs one of {', '.join(_DOMAINS)}")
                yield from _calls(value, path)
        elif _plain(value) is None or isinstance(_plain(value), bool | int | float | str):
            yield path, "choice", [[value]]
        elif callable(value):
            raise _computed(path)
        else:
            raise _invalid(
                path,
                f"needs a number, a text or one of {', '.join(_DOMAINS)}; a list that is constant is a choice of one: "
                "{choice: [[[0.9, 0.999]]]}",
            )


def _dimension(path: tuple[str, ...], function: str, arguments: Any) -> Dimension:
    if not isinstance(arguments, Mapping) and (isinstance(arguments, str) or not isinstance(arguments, Sequence)):
        raise _invalid(path, f"{function} needs its arguments, by name or in order, got {arguments!r}")
    by_name, in_order = (arguments, ()) if isinstance(arguments, Mapping) else ({}, arguments)
    build = _DOMAINS[function]
    signature = inspect.signature(build)
    takes = ", ".join(list(signature.parameters)[1:])
    try:
        bound = signature.bind(_name(path), *in_order, **by_name)
    except TypeError as error:
        advice = f"; its values go into one list: {{{function}: [[…]]}}" if function == "choice" else ""
        raise _invalid(path, f"{function}({takes}): {error}{advice}") from None
    try:
        dimension = build(*bound.args, **bound.kwargs)
    except (TypeError, ValueError) as error:
        raise _invalid(path, f"{function}({takes}): {error}") from None
    return replace(dimension, path=path if len(path) > 1 else ())


def _uniform(name: str, lower: Any, upper: Any) -> Dimension:
    return float_dimension(name, _number("lower", lower), _number("upper", upper))


def _quniform(name: str, lower: Any, upper: Any, q: Any) -> Dimension:
    low, high, step = _float_grid(lower, upper, q)
    return float_dimension(name, low, high, step=step)


def _loguniform(name: str, lower: Any, upper: Any) -> Dimension:
    return float_dimension(name, _number("lower", lower), _number("upper", upper), log=True)


def _qloguniform(name: str, lower: Any, upper: Any, q: Any) -> Dimension:
    low, high, step = _float_grid(lower, upper, q)
    return float_dimension(name, _above_zero(low), high, step=step, log_steps=True)


def _randn(name: str, mean: Any = 0.0, sd: Any = 1.0) -> Dimension:
    normal = _normal(mean, sd)
    spread = NORMAL_RANGE * normal.deviation
    return float_dimension(name, normal.mean - spread, normal.mean + spread, normal=normal)


def _qrandn(name: str, mean: Any, sd: Any, q: Any) -> Dimension:
    normal = _normal(mean, sd)
    spread = NORMAL_RANGE * normal.deviation
    low, high, step = _grid(normal.mean - spread, normal.mean + spread, _number("q", q))
    return float_dimension(name, low, high, step=step, normal=normal)


def _randint(name: str, lower: Any, upper: Any) -> Dimension:
    return int_dimension(name, _whole("lower", lower), _last(lower, upper))


def _qrandint(name: str, lower: Any, upper: Any, q: Any = 1) -> Dimension:
    low, high, step = _int_grid(lower, upper, q)
    return int_dimension(name, low, high, step=step)


def _lograndint(name: str, lower: Any, upper: Any) -> Dimension:
    return int_dimension(name, int(_above_zero(_whole("lower", lower))), _last(lower, upper), log=True)


def _qlograndint(name: str, lower: Any, upper: Any, q: Any) -> Dimension:
    low, high, step = _int_grid(lower, upper, q)
    low = int(_above_zero(low))
    if step == 1:
        return int_dimension(name, low, high, log=True)
    return int_dimension(name, low, high, step=step, log_steps=True)


def _choice(name: str, categories: Any) -> Dimension:
    return _categorical(name, categories, "categories")


def _grid_search(name: str, values: Any) -> Dimension:
    return replace(_categorical(name, values, "values"), only=GRID)


_DOMAINS: Mapping[str, Callable[..., Dimension]] = {
    "uniform": _uniform,
    "quniform": _quniform,
    "loguniform": _loguniform,
    "qloguniform": _qloguniform,
    "randn": _randn,
    "qrandn": _qrandn,
    "randint": _randint,
    "qrandint": _qrandint,
    "lograndint": _lograndint,
    "qlograndint": _qlograndint,
    "choice": _choice,
    GRID_SEARCH: _grid_search,
}
"""With the arguments of the functions of ``ray.tune``."""


def _categorical(name: str, values: Any, argument: str) -> Dimension:
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
        raise ValueError(f"{argument} must be a list, got {values!r}")
    plain = [_plain(value) for value in values]
    if any(_has_domain(value) for value in plain):
        raise ValueError("a choice between distributions is no form that is recorded; give each a parameter of its own")
    try:
        dimension = categorical_dimension(name, plain)
    except TypeError as error:
        raise ValueError(f"each of {argument} must be a JSON value: {error}") from None
    stored = dimension.distribution.choices  # type: ignore[attr-defined]
    if len(set(stored)) < len(stored):
        raise ValueError("each value may be listed once; 1, 1.0 and true are the same")
    return dimension


def _grid_arguments(given: Any) -> Any:
    """Ray's own JSON form of a grid is the values themselves, without a list of arguments around them."""
    is_argument_list = isinstance(given, Sequence) and len(given) == 1 and isinstance(given[0], list | tuple)
    return given if isinstance(given, Mapping) or is_argument_list else [given]


def _read_domain(path: tuple[str, ...], domain: Any) -> tuple[str, list[Any]]:
    """The call of ``ray.tune`` that made the object."""
    from ray.tune.search import sample

    sampler: Any = domain.get_sampler()
    quantum = []
    if isinstance(sampler, sample.Quantized):
        sampler, quantum = sampler.sampler, [sampler.q]
    prefix = "q" if quantum else ""
    match domain:
        case sample.Function():
            raise _computed(path)
        case sample.Categorical(categories=values):
            return (GRID_SEARCH if isinstance(sampler, sample.Grid) else "choice"), [values]
        case sample.Float() if isinstance(sampler, sample.Normal):
            if math.isfinite(domain.lower) or math.isfinite(domain.upper):
                raise _invalid(path, "a normal distribution with bounds is none of ray.tune's functions")
            return f"{prefix}randn", [sampler.mean, sampler.sd, *quantum]
        case sample.Float():
            log = "log" if isinstance(sampler, sample.LogUniform) else ""
            return f"{prefix}{log}uniform", [domain.lower, domain.upper, *quantum]
        case sample.Integer():
            log = "log" if isinstance(sampler, sample.LogUniform) else ""
            return f"{prefix}{log}randint", [domain.lower, domain.upper, *quantum]
    raise _invalid(path, f"{type(domain).__name__} is none of {', '.join(_DOMAINS)}")


def _float_grid(lower: Any, upper: Any, q: Any) -> tuple[float, float, float]:
    """The multiples of q from lower to upper, both of which Ray wants to be such."""
    low, high, step = _number("lower", lower), _number("upper", upper), _number("q", q)
    grid = _grid(low, high, step)
    if not (math.isclose(grid[0], low) and math.isclose(grid[1], high)):
        raise ValueError(f"lower and upper must be multiples of q={step:g}, got {low:g} and {high:g}")
    return grid


def _int_grid(lower: Any, upper: Any, q: Any) -> tuple[int, int, int]:
    """The multiples of q between lower and upper, upper among them unless q is 1."""
    step = _whole("q", q)
    last = _last(lower, upper) if step == 1 else _whole("upper", upper)
    low, high, _ = _grid(_whole("lower", lower), last, step)
    return int(low), int(high), step


def _grid(low: float, high: float, step: float) -> tuple[float, float, float]:
    if step <= 0:
        raise ValueError(f"q must be above 0, got {step:g}")
    quantum = Decimal(str(step))
    first = _index(low, step, ROUND_CEILING)
    last = _index(high, step, ROUND_FLOOR)
    if first > last:
        raise ValueError(f"there is no multiple of q={step:g} from {low:g} to {high:g}")
    return float(first * quantum), float(last * quantum), step


def _index(bound: float, step: float, rounding: str) -> Decimal:
    """Rounded inwards, unless the bound is a multiple but for the last digit, as 0.3 is one of 0.1."""
    nearest = round(bound / step)
    if math.isclose(bound / step, nearest):
        return Decimal(nearest)
    return (Decimal(str(bound)) / Decimal(str(step))).to_integral_value(rounding)


def _normal(mean: Any, sd: Any) -> Normal:
    deviation = _number("sd", sd)
    if deviation <= 0:
        raise ValueError(f"sd must be above 0, got {deviation:g}")
    return Normal(_number("mean", mean), deviation)


def _last(lower: Any, upper: Any) -> int:
    """The largest whole number below ``upper``."""
    low, high = _whole("lower", lower), _whole("upper", upper)
    if low >= high:
        raise ValueError(f"upper is exclusive and must be above lower, got {low} and {high}")
    return high - 1


def _above_zero(low: float) -> float:
    if low <= 0:
        raise ValueError(f"a logarithmic range needs a lower bound above 0, got {low:g}")
    return low


def _number(argument: str, value: Any) -> float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{argument} must be a number, got {value!r}")
    return float(value)


def _whole(argument: str, value: Any) -> int:
    number = _number(argument, value)
    if not number.is_integer():
        raise ValueError(f"{argument} must be a whole number, got {value!r}")
    return int(_plain(value))


def _plain(value: Any) -> Any:
    """A scalar of numpy as Python's own."""
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _has_domain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(key in _DOMAINS and len(value) == 1 for key in value) or any(map(_has_domain, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_domain, value))
    return type(value).__module__ == "ray.tune.search.sample"


def _refuse_misspelt(path: tuple[str, ...], name: Any, call: Mapping[Any, Any]) -> None:
    """A function that is not there, with its arguments by name, reads like nested constants."""
    if name is None or any(isinstance(value, Mapping) for value in _values(call[name])):
        return
    close = difflib.get_close_matches(str(name), list(_DOMAINS), n=1, cutoff=0.75)
    if close:
        raise _invalid(path, f"ray.tune has no {name}: did you mean {close[0]}?")


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else []


def _computed(path: tuple[str, ...]) -> InvalidStudyError:
    return _invalid(
        path,
        "is computed by a function (sample_from), whose distribution no searcher is told; give it one of "
        f"{', '.join(_DOMAINS)}, or compute it in the trial",
    )


def _name(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _invalid(path: tuple[str, ...], message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_SPACE, f"{'.'.join(('searchSpace.ray', *path))}: {message}")
