"""Studies for the tests of backend optuna."""

from collections.abc import Callable
from typing import Any

from hpstudy.api.study import StudySpec
from hpstudy.trials.budget import Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.support.builders import spec

NAME = "study"
FLAT = {
    "x": {"type": "float", "low": -2, "high": 2},
    "n": {"type": "int", "low": 1, "high": 64, "log": True},
    "kind": {"type": "categorical", "choices": ["a", "b", None]},
}
FINITE = {
    "x": {"type": "float", "low": 0, "high": 0.2, "step": 0.1},
    "n": {"type": "int", "low": 1, "high": 2},
    "flag": {"type": "categorical", "choices": [True, False]},
}
NUMERIC = {"x": FLAT["x"], "y": {"type": "float", "low": -2, "high": 2}}


def a_study(parameters: dict[str, Any] = FLAT, **fields: Any) -> StudySpec:
    """A study of these parameters."""
    return spec(searchSpace={"parameters": parameters}, **fields)


def run(loop: TrialLoop, trials: int, value: Callable[[dict[str, Any]], float] | None = None) -> list[dict[str, Any]]:
    """Run trials to their end; fewer where the study ends before."""
    taken = []
    for _ in range(trials):
        assigned = loop.next()
        if isinstance(assigned, Verdict):
            break
        taken.append(assigned.parameters)
        told = value(assigned.parameters) if value else value_of(assigned.parameters)
        loop.tell(assigned, Outcome(values=(told,) * len(loop._spec.objectives)))
    return taken


def value_of(parameters: dict[str, Any]) -> float:
    """What they come to."""
    return sum(float(value) ** 2 for value in parameters.values() if isinstance(value, int | float))


TWO = [{"metric": "a", "direction": "minimize"}, {"metric": "b", "direction": "maximize"}]
