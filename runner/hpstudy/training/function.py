"""The ``function`` form: ``objective(trial)`` of the user's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpstudy.api.study import Objective
from hpstudy.entry import import_entry
from hpstudy.training.trial import Trial
from hpstudy.training.values import plain


class FunctionForm:
    """Calls ``module:function`` on every rank."""

    def __init__(self, entry: str, objectives: Sequence[Objective]) -> None:
        self._entry = entry
        self._objectives = objectives
        self._function: Callable[[Trial], Any]

    def prepare(self) -> None:
        """Import the function."""
        self._function = import_entry(self._entry, "trial.function")

    def run(self, trial: Trial) -> Mapping[str, Any]:
        """Call it and name what it returns.

        Raises:
            TypeError: it returned neither a number, nor one for each objective, nor a mapping.
        """
        result = self._function(trial)
        if trial.rank != 0:
            return {}
        return name_metrics(result, self._objectives, self._entry)


def name_metrics(result: Any, objectives: Sequence[Objective], entry: str) -> dict[str, Any]:
    """Metrics by name, from what a function returned."""
    if isinstance(result, Mapping):
        return {str(name): plain(value) for name, value in result.items()}
    names = [objective.metric for objective in objectives]
    values = list(result) if isinstance(result, Sequence) and not isinstance(result, str) else [result]
    values = [plain(value) for value in values]
    if len(values) != len(names) or not all(isinstance(value, int | float) for value in values):
        raise TypeError(
            f"{entry} returned {result!r:.200}; it must return {'a number' if len(names) == 1 else 'numbers'} "
            f"for {', '.join(names)}, or a mapping of metrics"
        )
    return dict(zip(names, values, strict=True))
