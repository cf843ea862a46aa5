"""Studies that have trials before they begin."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection

from hpstudy.api.study import StudySpec
from hpstudy.samplers.engine import EngineSampler, Observation
from hpstudy.space.load import read_space
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import conclude
from tests.support.builders import spec
from tests.support.trials import take

RANDOM = {"name": "RandomSampler"}
SPACE = {
    "parameters": {
        "lr": {"type": "float", "low": 0.001, "high": 1, "log": True},
        "layers": {"type": "int", "low": 1, "high": 5},
        "optim": {"type": "categorical", "choices": ["adam", "sgd", None]},
        "momentum": {"type": "float", "low": 0, "high": 0.9, "when": {"optim": ["sgd"]}},
    }
}
FLAT = {"parameters": {"x": {"type": "float", "low": -2, "high": 2}, "y": {"type": "float", "low": 0, "high": 4}}}
LISTS = {"optuna": {"sizes": {"suggest_categorical": {"choices": [[8, 8], [16], "wide"]}}}}


def complete(loop: TrialLoop, study: StudySpec, **metrics: Any) -> Assignment:
    """Run the next trial to its end."""
    trial = take(loop)
    loop.tell(trial, conclude(metrics or {"loss": 1.0}, study))
    return trial


def initial(given: list[dict[str, Any]], **fields: Any) -> StudySpec:
    """A study with initial trials."""
    return spec(**({"searchSpace": SPACE, "initialTrials": given, "sampler": RANDOM} | fields))


class Middle(EngineSampler):
    """An engine that proposes the middle, and keeps what it is told."""

    history: Sequence[Observation] = ()

    def propose(
        self, history: Sequence[Observation], directions: Sequence[StudyDirection], number: int, seed: int
    ) -> Mapping[str, Any]:
        self.history = history
        return {"lr": 0.1, "layers": 3, "optim": "adam"} if "lr" in self.space else {"x": 0.0, "y": 2.0}


def middle(study: StudySpec) -> Middle:
    """The engine for a study."""
    space = read_space(study)
    assert space is not None
    return Middle(space, seed=0)


def made_up(trial: optuna.Trial) -> dict[str, Any]:
    """A define-by-run space."""
    return {"rate": trial.suggest_float("lr", 0, 1)}
