"""A study as SigOpt's experiment: parameters, metrics, and assignments there and back.

The same for SigOpt's optimiser in the process and for a sigopt-server. What SigOpt has not is put so that every study
has its values back unchanged: steps are a grid or are rounded to, a whole number on a logarithmic scale is a real one
that is rounded, a parameter with a normal density goes by its quantile, choices of any type by names, and one with a
single value stays here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers.coordinates import Coordinate, Range
from hpstudy.samplers.exhaustive import grid_values
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
    has_default: bool = False
    """Whether the replacement is the study's own."""

    @property
    def name(self) -> str:
        """Of the hyperparameter."""
        return self.dimension.name

    def assign(self, value: Any) -> Any:
        """SigOpt's value for one of a trial's."""
        if self.names:
            return self.names[int(self.dimension.distribution.to_internal_repr(self.dimension.encode(value)))]
        return Coordinate(self.dimension).place(value) if self.dimension.normal else value

    def value(self, assigned: Any) -> Any:
        """A trial's value for one of SigOpt's, on the grid and within the bounds to the last digit."""
        dimension = self.dimension
        if self.names:
            return dimension.choices[self.names.index(assigned)]
        if isinstance(dimension.distribution, CategoricalDistribution):  # a grid of SigOpt's own
            return min(dimension.choices, key=lambda choice: abs(choice - assigned))
        step = dimension.step
        if step and not dimension.log_steps and dimension.normal is None:
            assert isinstance(dimension.distribution, FloatDistribution | IntDistribution)
            assigned = round((assigned - dimension.distribution.low) / step)
        return Coordinate(dimension).value(assigned)


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
            if parameter.has_default:
                definition["default_value"] = parameter.replacement
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
    if not isinstance(dimension.distribution, CategoricalDistribution):
        return _numeric(dimension)
    names = _names(dimension.choices)
    definition = {"name": dimension.name, "type": "categorical", "categorical_values": list(names)}
    return Parameter(dimension, definition, names[-1], names)


def _numeric(dimension: Dimension) -> Parameter:
    distribution = dimension.distribution
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, log, step = (
        distribution.low,
        distribution.high,
        distribution.log or dimension.log_steps,
        dimension.step,
    )
    is_whole = isinstance(distribution, IntDistribution)
    definition: dict[str, Any] = {"name": dimension.name, "type": "int" if is_whole and not log else "double"}
    if dimension.normal is not None:
        # SigOpt's own priors are for its first trials only, and leave it a range almost without end.
        axis = Coordinate(dimension).axis
        assert isinstance(axis, Range)
        definition |= {"type": "double", "bounds": {"min": axis.low, "max": axis.high}}
        return Parameter(dimension, definition, axis.high, is_exact=not step and not is_whole)
    if log:
        definition["transformation"] = "log"
    if step and (high - low) / step < MAX_GRID:
        return Parameter(dimension, definition | {"grid": grid_values(distribution)}, high)
    definition["bounds"] = {"min": low, "max": high}
    return Parameter(dimension, definition, high, is_exact=not step and not (log and is_whole))


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
    return made if entry.default_value is None else replace(made, replacement=entry.default_value, has_default=True)


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
