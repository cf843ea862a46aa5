"""A study as SigOpt's experiment: parameters, metrics, and assignments there and back.

The same for SigOpt's optimiser in the process and for a sigopt-server. What SigOpt has not is put so that every study
has its values back unchanged: steps are a grid or are rounded to, a whole number on a logarithmic scale is a real one
that is rounded, choices of any type go by names, and what has a single value stays here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.space.dimensions import Dimension, SearchSpace
from hpstudy.space.sigopt import Categorical, Conditional, Double, Int, parse

MAX_GRID = 100
"""Steps that become a grid; the optimiser compares each candidate, of tens of thousands, with each value of it."""
MAX_METRICS = 2
"""SigOpt optimises one metric, or looks for the Pareto front of two."""
MAX_NAME = 50
"""Characters of a categorical value on a sigopt-server."""
SCALARIZED = "weighted sum"
"""Name of the metric of a study with ``scalarize``."""


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter and SigOpt's definition of it."""

    dimension: Dimension
    definition: Mapping[str, Any]
    replacement: Any
    """What stands for it in trials in which it does not exist: its ``default_value``, or else, as everywhere in SigOpt,
    the upper bound or the last value."""
    names: tuple[str, ...] = ()
    """Categorical: SigOpt's name of each choice."""
    is_exact: bool = True
    """Whether the study takes SigOpt's values as they are; else it rounds them."""

    @property
    def name(self) -> str:
        """Of the hyperparameter."""
        return self.dimension.name

    def assign(self, value: Any) -> Any:
        """SigOpt's value for one of a trial's."""
        if not self.names:
            return value
        return self.names[int(self.dimension.distribution.to_internal_repr(self.dimension.encode(value)))]

    def value(self, assigned: Any) -> Any:
        """A trial's value for one of SigOpt's, on the grid and within the bounds to the last digit."""
        if self.names:
            return self.dimension.choices[self.names.index(assigned)]
        match self.dimension.distribution:
            case CategoricalDistribution():
                return min(self.dimension.choices, key=lambda choice: abs(choice - assigned))
            case FloatDistribution(low=low, high=high, step=None):
                return min(max(float(assigned), low), high)
            case IntDistribution(low=low, high=high, step=step) | FloatDistribution(low=low, high=high, step=step):
                steps = round((min(max(assigned, low), high) - low) / step)
                return min(low + steps * step, high)
        raise AssertionError(self.dimension.distribution)


class Experiment:
    """What SigOpt is told of a study.

    Args:
        spec: of the study.
        space: of the study, in whatever form it was written.
        native: SigOpt's own form, where it was written in that; None otherwise.

    Raises:
        InvalidStudyError: SigOpt cannot express the space or the objectives.
    """

    def __init__(self, spec: StudySpec, space: SearchSpace, native: Any = None) -> None:
        self.space = space
        self.metrics = _metrics(spec)
        self.budget = spec.budget.max_trials
        entries = {} if native is None else {entry.name: entry for entry in parse(native)}
        self.constants = {d.name: _only_value(d) for d in space.dimensions if d.distribution.single()}
        self.parameters = tuple(
            _parameter(dimension, entries.get(dimension.name))
            for dimension in space.dimensions
            if dimension.name not in self.constants
        )
        self.is_exact = all(parameter.is_exact for parameter in self.parameters)
        self._by_name = {parameter.name: parameter for parameter in self.parameters}
        self._conditioned = {
            parameter.name
            for parameter in self.parameters
            if parameter.dimension.when and all(map(self._is_conditional, parameter.dimension.when))
        }
        """Those that depend on what SigOpt knows as conditionals."""

    def assignments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """SigOpt's values for those of a trial; a parameter that does not exist in it is left out."""
        return {p.name: p.assign(values[p.name]) for p in self.parameters if p.name in values}

    def whole_assignments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same for the experiment of :meth:`conditional_definition`: with all that exists there."""
        given = self.assignments(values)
        return given | {
            p.name: p.replacement for p in self.parameters if p.name not in given and p.name not in self._conditioned
        }

    def conditional_definition(self) -> dict[str, Any]:
        """SigOpt's ``parameters`` and ``conditionals``.

        SigOpt's conditionals are lists of texts, and depend on nothing themselves. A parameter that depends on anything
        else always exists there, and its value is not used where it does not exist here.
        """
        parents = {parent for name in self._conditioned for parent in self.space[name].when}
        parameters = []
        for parameter in self.parameters:
            definition = dict(parameter.definition)
            if parameter.name in self._conditioned:
                definition["conditions"] = {
                    parent: [self._by_name[parent].assign(value) for value in values]
                    for parent, values in parameter.dimension.when.items()
                }
            if parameter.name not in parents:
                parameters.append(definition)
        conditionals = [{"name": p.name, "values": list(p.names)} for p in self.parameters if p.name in parents]
        return {"parameters": parameters} | ({"conditionals": conditionals} if conditionals else {})

    def values(self, assignments: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's values for SigOpt's: those that exist with one another."""
        given = {
            p.name: p.value(assigned) for p in self.parameters if (assigned := assignments.get(p.name)) is not None
        }
        return self.space.active({**self.constants, **given})

    def _is_conditional(self, name: str) -> bool:
        return name in self._by_name and bool(self._by_name[name].names) and not self.space[name].when


def _metrics(spec: StudySpec) -> list[dict[str, Any]]:
    if spec.scalarize is not None:
        return [{"name": SCALARIZED, "objective": "minimize", "strategy": "optimize"}]
    if len(spec.objectives) > MAX_METRICS:
        raise InvalidStudyError(
            reasons.INVALID_OPTION,
            f"objectives: SigOpt optimises one or two metrics, there are {len(spec.objectives)}: make one of them with "
            "scalarize, or use backend optuna",
        )
    return [{"name": o.metric, "objective": o.direction, "strategy": "optimize"} for o in spec.objectives]


def _parameter(dimension: Dimension, entry: Double | Int | Categorical | Conditional | None) -> Parameter:
    if entry is not None:
        return _native(dimension, entry)
    name = dimension.name
    match dimension.distribution:
        case CategoricalDistribution():
            names = _names(dimension.choices)
            return Parameter(
                dimension, {"name": name, "type": "categorical", "categorical_values": list(names)}, names[-1], names
            )
        case IntDistribution(low=low, high=high, step=step) | FloatDistribution(low=low, high=high, step=step):
            return _numeric(dimension, low, high, step)
    raise AssertionError(dimension.distribution)


def _numeric(dimension: Dimension, low: float, high: float, step: float | None) -> Parameter:
    distribution = dimension.distribution
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    log, normal = distribution.log or dimension.log_steps, dimension.normal
    if log and normal is not None:
        raise InvalidStudyError(
            reasons.INVALID_SPACE,
            f"searchSpace: {dimension.name} is normal on a logarithmic scale, which SigOpt has not: give it a range",
        )
    is_int = isinstance(distribution, IntDistribution) and not log and normal is None
    definition: dict[str, Any] = {"name": dimension.name, "type": "int" if is_int else "double"}
    if log:
        definition["transformation"] = "log"
    unit = is_int and step == 1
    count = 0 if step is None or unit or distribution.log or normal is not None else round((high - low) / step) + 1
    if 0 < count <= MAX_GRID:
        assert step is not None
        definition["grid"] = [min(low + index * step, high) for index in range(count)]
        return Parameter(dimension, definition, high)
    definition["bounds"] = {"min": low, "max": high}
    if normal is not None:
        definition["prior"] = {"name": "normal", "mean": normal.mean, "scale": normal.deviation}
    return Parameter(dimension, definition, high, is_exact=step is None or unit)


def _native(dimension: Dimension, entry: Double | Int | Categorical | Conditional) -> Parameter:
    if isinstance(entry, Conditional):
        return _parameter(dimension, None)
    definition = entry.model_dump(exclude_none=True, exclude={"conditions", "default_value"})
    if isinstance(entry, Categorical):
        definition["categorical_values"] = entry.names
        made = Parameter(dimension, definition, entry.names[-1], tuple(entry.names))
    elif entry.grid is not None:
        definition["grid"] = sorted(entry.grid)
        made = Parameter(dimension, definition, max(entry.grid))
    else:
        assert entry.bounds is not None
        made = Parameter(dimension, definition, entry.bounds.max)
    return made if entry.default_value is None else replace(made, replacement=entry.default_value)


def _only_value(dimension: Dimension) -> Any:
    distribution = dimension.distribution
    if isinstance(distribution, CategoricalDistribution):
        return dimension.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low


def _names(choices: Sequence[Any]) -> tuple[str, ...]:
    """A text is its own name, other values go by their JSON; where two would be the same, by their place too."""
    names = [choice if isinstance(choice, str) else json.dumps(choice, sort_keys=True) for choice in choices]
    if len(set(names)) == len(names) and all(0 < len(name) <= MAX_NAME for name in names):
        return tuple(names)
    return tuple(f"{index}: {name}"[:MAX_NAME] for index, name in enumerate(names))
