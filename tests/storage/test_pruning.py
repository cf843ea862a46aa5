"""What pruners compare when a trial was cut off and goes on, on real SQLite and PostgreSQL."""

from collections.abc import Sequence
from typing import Any

import pytest

from hpstudy.api.study import StudySpec
from hpstudy.samplers.build import build_pruner
from hpstudy.samplers.pruning import HyperbandPruner
from hpstudy.storage.attributes import Failure
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.storage.stored import NAME, trials_of
from tests.support.builders import spec
from tests.support.trials import complete, take

HALVING = {"name": "SuccessiveHalvingPruner", "options": {"min_resource": 1, "reduction_factor": 2}}
HYPERBAND = {"name": "HyperbandPruner", "options": {"min_resource": 1, "max_resource": 8, "reduction_factor": 2}}
RUNGS = {"completed_rung_0": 0.5, "completed_rung_1": 0.6, "completed_rung_2": 0.75}
"""Of CURVE, with a reduction factor of 2."""
CURVE = (0.5, 0.6, 0.68, 0.75)


def a_study(pruner: dict[str, Any], **fields: Any) -> StudySpec:
    return spec(objectives=[{"metric": "loss", "direction": "maximize"}], pruner=pruner, **fields)


def report(
    loop: TrialLoop, trial: Assignment, values: Sequence[float], first: int = 1, *, past: bool = False
) -> list[bool]:
    """What the pruner says at each step."""
    return [loop.report(trial, step, {"loss": value}, past=past) for step, value in enumerate(values, first)]


def rungs(url: str, trial: Assignment) -> dict[str, float]:
    """What it is compared by."""
    return {name: value for name, value in trials_of(url)[trial.number].system_attrs.items() if name in RUNGS}


def cut_off(loop: TrialLoop, trial: Assignment, failure: Failure = Failure.PREEMPTED) -> Assignment:
    """The trial that goes on."""
    loop.tell(trial, Outcome(failure=failure, message="gone"))
    again = take(loop)
    assert again.continues == trial.number
    return again


def prunes(loop: TrialLoop, *values: float) -> bool:
    """What becomes of another trial."""
    trial = take(loop)
    pruned = any(report(loop, trial, values))
    loop.tell(trial, Outcome(pruned=True) if pruned else complete(values[-1]))
    return pruned


@pytest.mark.parametrize("interruptions", [0, 1, 2])
def test_a_trial_that_goes_on_is_compared_by_what_it_had_at_each_rung(interruptions: int, storage_url: str) -> None:
    with TrialLoop(a_study(HALVING), storage_url, NAME) as loop:
        trial = take(loop)
        assert report(loop, trial, CURVE) == [False] * 4
        for _ in range(interruptions):
            trial = cut_off(loop, trial)
            assert report(loop, trial, CURVE, past=True) == [False] * 4
        assert report(loop, trial, [0.8], 5) == [False]
        assert rungs(storage_url, trial) == RUNGS
        # At the first rung half of all may go on: of one of two, of one of three, of two of four.
        assert [prunes(loop, value) for value in (0.55, 0.52, 0.54)] == [False, True, False]


def test_a_past_that_others_have_overtaken_prunes_nothing(url: str) -> None:
    with TrialLoop(a_study(HALVING), url, NAME) as loop:
        trial = take(loop)
        assert report(loop, trial, CURVE[:3]) == [False] * 3
        loop.tell(trial, Outcome(failure=Failure.LOST, message="gone"))
        trial = take(loop)
        assert not prunes(loop, 0.9, 0.9, 0.9, 0.9)
        assert report(loop, trial, CURVE[:3], past=True) == [False] * 3
        assert report(loop, trial, CURVE[3:], 4) == [True], "at the next rung it is compared"


def test_a_trial_that_goes_on_keeps_its_bracket_of_hyperband(url: str) -> None:
    """Trials 0 and 1 of a study of this name are in brackets with other first rungs, at steps 1 and 2."""
    with TrialLoop(a_study(HYPERBAND), url, NAME) as loop:
        trial = take(loop)
        assert report(loop, trial, CURVE) == [False] * 4
        assert rungs(url, trial) == RUNGS
        for _ in range(2):
            trial = cut_off(loop, trial)
            assert report(loop, trial, CURVE, past=True) == [False] * 4
            assert rungs(url, trial) == RUNGS


def test_hyperband_leaves_out_runs_that_were_cut_off(url: str) -> None:
    """In bracket 0 of a study of this name are trial 0 with its other runs, 1 and 2, and trial 10."""
    with TrialLoop(a_study(HYPERBAND, budget={"maxTrials": 20}), url, NAME) as loop:
        trial = take(loop)
        for value in (0.4, 0.4):
            report(loop, trial, [value])
            trial = cut_off(loop, trial)
        report(loop, trial, [0.5])
        for _ in range(7):
            loop.tell(take(loop), complete())
        assert prunes(loop, 0.45), "of two the better one goes on; of four it would be two"
        assert trials_of(url)[10].system_attrs["completed_rung_0"] == 0.45


def test_hyperband_within_another_pruner_keeps_brackets_too() -> None:
    options = {"wrapped_pruner": HYPERBAND, "patience": 1}
    made: Any = build_pruner(a_study({"name": "PatientPruner", "options": options}))
    assert isinstance(made._wrapped_pruner, HyperbandPruner)
