"""A hyperparameter as engines know them: an even range, a logarithmic one, or a list.

What an engine cannot say is put into one of these: steps become their count, a normal density its quantile, a choice
its place in the list. So every engine samples every parameter with its own density, whatever it supports itself.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import Any

import numpy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpstudy.space.dimensions import NORMAL_RANGE, Dimension, SearchSpace

_STANDARD = NormalDist()


@dataclass(frozen=True)
class Choices:
    """One of 0, …, count - 1, in no order."""

    count: int


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


class Coordinate:
    """One parameter. ``axis`` is what the engine is told."""

    def __init__(self, dimension: Dimension) -> None:
        self.dimension = dimension
        self.axis = _axis(dimension)

    def place(self, value: Any) -> float | int:
        """A value of the parameter, as the engine knows it."""
        dimension = self.dimension
        stored = dimension.encode(value)
        if isinstance(self.axis, Choices):
            return int(dimension.distribution.to_internal_repr(stored))
        number = float(stored)
        if dimension.normal is not None:
            normal = dimension.normal
            number = math.log(number) if _is_log(dimension) else number
            number = _STANDARD.cdf((number - normal.mean) / normal.deviation)
        elif _is_counted(dimension):
            number = round((number - _low(dimension)) / dimension.step)
        number = min(max(number, self.axis.low), self.axis.high)
        return int(number) if self.axis.whole else number

    def value(self, place: Any) -> Any:
        """The value of the parameter that is nearest to a place."""
        dimension = self.dimension
        if isinstance(self.axis, Choices):
            return dimension.choices[int(place)]
        number = min(max(float(place), self.axis.low), self.axis.high)
        if dimension.normal is not None:
            normal = dimension.normal
            number = normal.mean + normal.deviation * _STANDARD.inv_cdf(number)
            number = math.exp(number) if _is_log(dimension) else number
        elif _is_counted(dimension):
            return _stepped(dimension, round(number))
        if dimension.step:
            return _stepped(dimension, round((number - _low(dimension)) / dimension.step))
        if isinstance(dimension.distribution, IntDistribution):
            number = round(number)
        return dimension.decode(min(max(number, _low(dimension)), _high(dimension)))

    def draw(self, random: numpy.random.Generator) -> Any:
        """A value at random, by the parameter's own density."""
        return Coordinate.value(self, _random_place(self.axis, random))


class UnitCoordinate(Coordinate):
    """For engines that know nothing but real numbers: a range is [0, 1] to them.

    Attributes:
        axis: still that of the parameter; a choice has no unit coordinate.
    """

    def place(self, value: Any) -> float | int:
        """See :class:`Coordinate`."""
        assert isinstance(self.axis, Range)
        low, high, number = self._scaled(self.axis.low), self._scaled(self.axis.high), super().place(value)
        return (self._scaled(number) - low) / (high - low)

    def value(self, place: Any) -> Any:
        """See :class:`Coordinate`."""
        assert isinstance(self.axis, Range)
        low, high = self._scaled(self.axis.low), self._scaled(self.axis.high)
        number = low + float(place) * (high - low)
        return super().value(math.exp(number) if self.axis.log else number)

    def _scaled(self, number: float) -> float:
        return math.log(number) if isinstance(self.axis, Range) and self.axis.log else number


class EvenCoordinate(UnitCoordinate):
    """For engines without logarithmic ranges: one is [0, 1] to them."""

    def place(self, value: Any) -> float | int:
        """See :class:`Coordinate`."""
        return super().place(value) if self._is_log else Coordinate.place(self, value)

    def value(self, place: Any) -> Any:
        """See :class:`Coordinate`."""
        return super().value(place) if self._is_log else Coordinate.value(self, place)

    @property
    def _is_log(self) -> bool:
        return isinstance(self.axis, Range) and self.axis.log


class Coordinates:
    """Those of all parameters that have more than one value; the others are known."""

    def __init__(self, space: SearchSpace, kind: type[Coordinate] = Coordinate) -> None:
        self._space = space
        self.constants = {
            dimension.name: dimension.decode(_only(dimension))
            for dimension in space.dimensions
            if dimension.distribution.single()
        }
        self.by_name = {
            dimension.name: kind(dimension) for dimension in space.dimensions if dimension.name not in self.constants
        }

    @property
    def axes(self) -> dict[str, Choices | Range]:
        """What the engine is told."""
        return {name: coordinate.axis for name, coordinate in self.by_name.items()}

    def places(self, values: Mapping[str, Any], number: int) -> dict[str, float | int]:
        """A trial as the engine knows it.

        An engine without conditions needs a place for parameters that did not exist in the trial as well: any, but the
        same for every group and at each proposal, and not always the same, or it would learn from the repetition.

        Args:
            number: of the trial.
        """
        random = numpy.random.default_rng(number)
        found = {}
        for name, coordinate in self.by_name.items():
            any_value = coordinate.draw(random)  # also where it is not needed: the others' must not depend on it
            found[name] = coordinate.place(values.get(name, any_value))
        return found

    def draw(self, seed: int) -> dict[str, Any]:
        """A trial at random."""
        random = numpy.random.default_rng(seed)
        return self.constants | {name: coordinate.draw(random) for name, coordinate in self.by_name.items()}

    def values(self, places: Mapping[str, Any]) -> dict[str, Any]:
        """A proposal of the engine by the parameters' own values."""
        return self.constants | {name: self.by_name[name].value(place) for name, place in places.items()}


def _random_place(axis: Choices | Range, random: numpy.random.Generator) -> float | int:
    if isinstance(axis, Choices):
        return int(random.integers(axis.count))
    if axis.log:
        number = math.exp(random.uniform(math.log(axis.low), math.log(axis.high)))
    elif axis.whole:
        return int(random.integers(int(axis.low), int(axis.high), endpoint=True))
    else:
        number = float(random.uniform(axis.low, axis.high))
    return round(number) if axis.whole else number


def _axis(dimension: Dimension) -> Choices | Range:
    if isinstance(dimension.distribution, CategoricalDistribution):
        return Choices(len(dimension.choices))
    if dimension.normal is not None:
        return Range(_STANDARD.cdf(-NORMAL_RANGE), _STANDARD.cdf(NORMAL_RANGE))
    low, high = _low(dimension), _high(dimension)
    if _is_counted(dimension):
        return Range(0, round((high - low) / dimension.step), whole=True)
    whole = isinstance(dimension.distribution, IntDistribution) and not dimension.log_steps
    return Range(low, high, log=_is_log(dimension), whole=whole)


def _is_log(dimension: Dimension) -> bool:
    assert isinstance(dimension.distribution, FloatDistribution | IntDistribution)
    return dimension.distribution.log or dimension.log_steps


def _is_counted(dimension: Dimension) -> bool:
    """Whether the engine is told the count of steps."""
    return bool(dimension.step) and not dimension.log_steps and dimension.normal is None


def _stepped(dimension: Dimension, count: int) -> Any:
    """Counted in decimals, as the study wrote them: 0.1 + 2 * 0.1 is 0.3."""
    low, high, step = (Decimal(str(n)) for n in (_low(dimension), _high(dimension), dimension.step))
    last = int((high - low) / step)
    return dimension.decode(float(low + step * min(max(count, 0), last)))


def _low(dimension: Dimension) -> float:
    assert isinstance(dimension.distribution, FloatDistribution | IntDistribution)
    return dimension.distribution.low


def _high(dimension: Dimension) -> float:
    assert isinstance(dimension.distribution, FloatDistribution | IntDistribution)
    return dimension.distribution.high


def _only(dimension: Dimension) -> Any:
    distribution = dimension.distribution
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else _low(dimension)
