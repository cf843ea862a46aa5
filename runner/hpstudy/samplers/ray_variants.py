"""Ray Tune's grid and random search."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy
import optuna
from optuna.study import StudyDirection

from hpstudy.samplers.coordinates import Choices, Coordinates
from hpstudy.samplers.engine import EngineSampler, Observation, read_history
from hpstudy.samplers.ray_domains import categories, domain, key, name_of
from hpstudy.space.dimensions import SearchSpace


class VariantSampler(EngineSampler):
    """Ray's BasicVariantGenerator: every combination of the grid, in Ray's order, with the other parameters at random.

    A combination counts as tried by its values, whichever trial had them. When all were tried the next round begins, or
    the study is over where there is nothing but the grid.

    Args:
        grid: names of the grid's parameters.
        constant_grid_search: the other parameters are drawn once a round.
    """

    def __init__(
        self, space: SearchSpace, grid: frozenset[str], *, seed: int | None = None, constant_grid_search: bool = False
    ) -> None:
        super().__init__(space, seed)
        self._coordinates = Coordinates(space)
        self._grid = [name for name in self._coordinates.by_name if name in grid]
        self._is_grid = bool(grid) and all(name in grid for name in self._coordinates.by_name)
        self._constant = constant_grid_search
        self._variants: list[dict[str, Any]] = []
        self._more = self._generate() if self._grid else iter([{}])

    def propose(
        self, history: Sequence[Observation], directions: Sequence[StudyDirection], number: int, seed: int
    ) -> Mapping[str, Any]:
        """See :class:`EngineSampler`."""
        variant, rounds = self._next(history)
        if self._constant:
            seed = int(numpy.random.SeedSequence([self._seed, rounds]).generate_state(1)[0])
        return self._coordinates.values({**self._draw(seed), **variant})

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether there is nothing but the grid, and all of it was tried or is running."""
        return self._is_grid and self._next(read_history(study, self.space, -1))[1] > 0

    def _next(self, history: Sequence[Observation]) -> tuple[dict[str, Any], int]:
        """The first combination of those that were tried least, and how often it was."""
        tried = Counter(
            tuple(str(self._coordinates.by_name[name].place(trial.values[name])) for name in self._grid)
            for trial in history
            if all(name in trial.values for name in self._grid)
        )
        while len(self._variants) <= len(tried) and (more := next(self._more, None)) is not None:
            self._variants.append(more)
        counts = [tried[tuple(variant[name] for name in self._grid)] for variant in self._variants]
        least = min(counts)
        return self._variants[counts.index(least)], least

    def _generate(self) -> Iterator[dict[str, Any]]:
        """Combinations as Ray makes them, one after the other: there may be millions."""
        from ray import tune
        from ray.tune.search.variant_generator import generate_variants

        axes = self._coordinates.axes
        spec = {}
        for name in self._grid:
            axis = axes[name]
            assert isinstance(axis, Choices)
            spec[key(name)] = tune.grid_search(categories(axis))
        for _, variant in generate_variants(spec):
            yield {name_of(given): place for given, place in variant.items()}

    def _draw(self, seed: int) -> dict[str, Any]:
        from ray.tune.search.variant_generator import generate_variants

        spec = {key(name): domain(axis) for name, axis in self._coordinates.axes.items() if name not in self._grid}
        _, drawn = next(iter(generate_variants(spec, random_state=numpy.random.RandomState(seed))))
        return {name_of(given): place for given, place in drawn.items()}
