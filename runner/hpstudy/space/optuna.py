"""Optuna's form of a space: the ``suggest_*`` methods of its trial, by name, with their own arguments.

``{learning_rate: {suggest_float: {low: 1e-6, high: 1e-4, log: true}}}``; see
https://optuna.readthedocs.io/en/stable/reference/generated/optuna.trial.Trial.html
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import optuna

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.space.dimensions import Dimension, categorical_dimension, float_dimension, int_dimension

_METHODS: dict[str, Callable[..., Dimension]] = {
    "suggest_float": float_dimension,
    "suggest_int": int_dimension,
    "suggest_categorical": categorical_dimension,
}


def dimensions(native: Mapping[str, Any]) -> list[Dimension]:
    """Read ``searchSpace.optuna``.

    Raises:
        InvalidStudyError: it names another method, or arguments that the method does not take.
    """
    return [_dimension(name, call) for name, call in native.items()]


def _dimension(name: str, call: Any) -> Dimension:
    where = f"searchSpace.optuna.{name}"
    if not isinstance(call, Mapping) or len(call) != 1 or next(iter(call)) not in _METHODS:
        raise InvalidStudyError(reasons.INVALID_SPACE, f"{where}: needs exactly one of {', '.join(_METHODS)}")
    method, arguments = next(iter(call.items()))
    if not isinstance(arguments, Mapping | list):
        raise InvalidStudyError(reasons.INVALID_SPACE, f"{where}.{method}: needs its arguments, by name or in order")
    by_name, in_order = (arguments, []) if isinstance(arguments, Mapping) else ({}, arguments)
    try:
        inspect.signature(getattr(optuna.Trial, method)).bind(None, name, *in_order, **by_name)
        return _METHODS[method](name, *in_order, **by_name)
    except (TypeError, ValueError) as error:
        raise InvalidStudyError(reasons.INVALID_SPACE, f"{where}.{method}: {error}") from None
