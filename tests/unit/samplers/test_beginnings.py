"""Initial trials, warm starts, constraints and weighted objectives with the engine of every backend."""

from typing import Any

import pytest
from optuna.study import StudyDirection

from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import conclude
from tests.support.builders import spec

OBJECTIVES = [{"metric": "cost", "direction": "minimize"}, {"metric": "gain", "direction": "maximize"}]
LAYERS = {"type": "int", "low": 1, "high": 5}


def study(high: float, **fields: Any) -> StudySpec:
    space = {"parameters": {"x": {"type": "float", "low": -2, "high": high}, "layers": LAYERS}}
    complete = {"objectives": OBJECTIVES, "searchSpace": space, "sampler": {"name": "RandomSampler"}} | fields
    return spec(**{name: value for name, value in complete.items() if value is not None})


def run(loop: TrialLoop, given: StudySpec) -> dict[str, Any]:
    assigned = loop.next()
    assert isinstance(assigned, Assignment)
    x = assigned.parameters["x"]
    loop.tell(assigned, conclude({"cost": x * x, "gain": -x}, given))
    return assigned.parameters


@pytest.mark.parametrize(
    ("backend", "sampler"),
    [("optuna", "TPESampler"), ("ray", "HyperOptSearch"), ("wandb", None), ("sigopt", None)],
)
def test_every_engine_gets_what_the_study_begins_with(url: str, backend: str, sampler: str | None) -> None:
    before = study(9, initialTrials=[{"x": 8, "layers": 1}, {"x": 1.5, "layers": 2}])
    with TrialLoop(before, url, "before") as loop:
        run(loop, before)
        run(loop, before)
    given = study(
        2,
        backend=backend,
        sampler={"name": sampler} if sampler else None,
        scalarize={"weights": {"cost": 1, "gain": 2}},
        constraints=[{"metric": "cost", "max": 1}],
        initialTrials=[{"x": 0.25}, {"x": 1.25, "layers": 5}],
        warmStartFrom=[{"study": "before"}],
    )
    with TrialLoop(given, url, "after") as loop:
        assert loop.study.directions == [StudyDirection.MINIMIZE]
        first, second, third = (run(loop, given) for _ in range(3))
        trials = [trial for trial in loop.study.trials if attributes.TAKEN_FROM not in trial.user_attrs]
    assert first["x"] == 0.25
    assert first["layers"] in range(1, 6)
    assert second == {"x": 1.25, "layers": 5}
    assert -2 <= third["x"] <= 2
    assert [trial.value for trial in trials[:2]] == pytest.approx([0.0625 + 0.5, 1.5625 + 2.5])
    assert [trial.constraints["cost:max"] <= 0 for trial in trials[:2]] == [True, False]
