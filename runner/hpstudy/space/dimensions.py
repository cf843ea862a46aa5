"""The search space that every form is read into, and that every backend is told of."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError

NORMAL_RANGE = 8.0
"""Deviations around the mean that a normal parameter is recorded with: the storage knows ranges alone, and a draw falls
outside of these once in 10^15."""


@dataclass(frozen=True)
class Normal:
    """A normal density, of the value's logarithm where the parameter is logarithmic."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Dimension:
    """One hyperparameter.

    ``distribution`` is what the storage records. A choice that is no scalar (a list of layer sizes) is recorded as
    JSON text; ``choices`` has the values themselves.
    """

    name: str
    distribution: BaseDistribution
    choices: tuple[Any, ...] = ()
    normal: Normal | None = None
    """A density that only some backends have; the distribution then bounds it."""
    log_steps: bool = False
    """Uniform in the value's logarithm although there are steps, which only some backends have and no distribution of
    the storage can say."""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """It exists only where each of these parameters has one of these values."""
    path: tuple[str, ...] = ()
    """Where the trial finds it, in a space of nested parameters; else by its name."""
    only: str = ""
    """What of it only the backend of the same name as the form can express ("a beta prior")."""

    @property
    def step(self) -> float:
        """Distance of its values; 0 where there is none, or where they are all the whole numbers."""
        match self.distribution:
            case FloatDistribution(step=float(step)):
                return step
            case IntDistribution(step=step) if step != 1:
                return step
        return 0

    def decode(self, stored: Any) -> Any:
        """The value for the trial from the one in the storage, with the type that the study wrote."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.choices[int(self.distribution.to_internal_repr(stored))]
        return int(stored) if isinstance(self.distribution, IntDistribution) else float(stored)

    def encode(self, value: Any) -> Any:
        """The value for the storage.

        Raises:
            ValueError: it is none of the choices, or outside of the range.
        """
        if isinstance(self.distribution, CategoricalDistribution):
            # By type too: True is not 1.
            for choice, stored in zip(self.choices, self.distribution.choices, strict=True):
                if type(choice) is type(value) and choice == value:
                    return stored
            for choice, stored in zip(self.choices, self.distribution.choices, strict=True):
                if choice == value:
                    return stored
            raise ValueError(f"{self.name}: {value!r} is none of {list(self.choices)!r}")
        number = int(value) if isinstance(self.distribution, IntDistribution) else float(value)
        if isinstance(value, bool) or number != value or not self.distribution._contains(number):
            raise ValueError(f"{self.name}: {value!r} is not in {describe(self.distribution)}")
        return number

    def encode_stored(self, value: Any) -> Any:
        """The value for the storage from one that another study has in it.

        Raises:
            ValueError: see ``encode``.
        """
        if isinstance(value, str) and value in getattr(self.distribution, "choices", ()):
            return value  # a string, or the text of a list
        return self.encode(value)


def float_dimension(
    name: str, low: float, high: float, *, log: bool = False, step: float | None = None, **more: Any
) -> Dimension:
    """A range of real numbers, both ends included."""
    return Dimension(name, FloatDistribution(low, high, log=log, step=step), **more)


def int_dimension(name: str, low: int, high: int, *, log: bool = False, step: int = 1, **more: Any) -> Dimension:
    """A range of whole numbers, both ends included."""
    return Dimension(name, IntDistribution(low, high, log=log, step=step), **more)


def categorical_dimension(name: str, choices: Iterable[Any], **more: Any) -> Dimension:
    """A list of values of any JSON type."""
    values = tuple(choices)
    stored = [
        value if value is None or isinstance(value, bool | int | float | str) else _text(value) for value in values
    ]
    return Dimension(name, CategoricalDistribution(stored), choices=values, **more)


class SearchSpace:
    """The hyperparameters of a study, each after those that it depends on.

    Raises:
        InvalidStudyError: a name twice, a condition on a parameter or a value that does not exist, or conditions in a
            circle.
    """

    def __init__(self, dimensions: Iterable[Dimension]) -> None:
        given = list(dimensions)
        self._by_name = {dimension.name: dimension for dimension in given}
        if len(self._by_name) < len(given):
            raise _invalid("each parameter needs a name of its own")
        for dimension in given:
            for parent, values in dimension.when.items():
                if parent not in self._by_name:
                    raise _invalid(f"{dimension.name}.when: there is no parameter {parent!r}")
                for value in values:
                    try:
                        self._by_name[parent].encode(value)
                    except ValueError as error:
                        raise _invalid(f"{dimension.name}.when: {error}") from None
        ordered: dict[str, Dimension] = {}
        while len(ordered) < len(given):
            ready = [d for d in given if d.name not in ordered and all(parent in ordered for parent in d.when)]
            if not ready:
                rest = sorted(d.name for d in given if d.name not in ordered)
                raise _invalid(f"the conditions of {', '.join(rest)} go in a circle")
            ordered |= {d.name: d for d in ready}
        self.dimensions = tuple(ordered.values())

    def __getitem__(self, name: str) -> Dimension:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """As the storage records them."""
        return {dimension.name: dimension.distribution for dimension in self.dimensions}

    @property
    def is_conditional(self) -> bool:
        """Whether some parameters exist only with certain values of others."""
        return any(dimension.when for dimension in self.dimensions)

    def active(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Of values by name, those whose conditions hold."""
        found: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.name in values and _holds(dimension, found):
                found[dimension.name] = values[dimension.name]
        return found

    def is_whole(self, values: Mapping[str, Any]) -> bool:
        """Whether every parameter that exists with these values has one."""
        return all(name in values for name in self.active({**dict.fromkeys(self._by_name), **values}))

    def decode(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's values from its parameters in the storage; parameters of another space are left out."""
        return {name: self._by_name[name].decode(value) for name, value in stored.items() if name in self._by_name}

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Ask the trial's sampler for each parameter that exists."""
        found: dict[str, Any] = {}
        for dimension in self.dimensions:
            if _holds(dimension, found):
                found[dimension.name] = dimension.decode(_suggest(trial, dimension))
        return found

    def nested(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values as the trial gets them."""
        result: dict[str, Any] = {}
        for name, value in values.items():
            *parents, leaf = self._by_name[name].path or (name,)
            place = result
            for parent in parents:
                place = place.setdefault(parent, {})
            place[leaf] = value
        return result


def describe(distribution: BaseDistribution) -> str:
    """A range for people."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    step = distribution.step if isinstance(distribution, FloatDistribution) or distribution.step != 1 else None
    return f"[{distribution.low:g}, {distribution.high:g}]" + (f" in steps of {step:g}" if step else "")


def _suggest(trial: optuna.Trial, dimension: Dimension) -> Any:
    match dimension.distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(dimension.name, low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(dimension.name, low, high, log=log, step=step)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(dimension.name, choices)
    raise AssertionError(dimension.distribution)


def _holds(dimension: Dimension, values: Mapping[str, Any]) -> bool:
    return all(parent in values and values[parent] in allowed for parent, allowed in dimension.when.items())


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _invalid(message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_SPACE, f"searchSpace: {message}")
