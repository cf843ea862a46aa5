"""Backend wandb: hyperband, as W&B's own engine has it."""

from collections.abc import Sequence

import optuna
import pytest

from hpstudy.samplers.build import build_pruner
from hpstudy.storage.attributes import Failure
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.support.trials import take
from tests.unit.samplers.wandb_studies import a_study, add_reports, in_memory, running, sweep

HISTORIES = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0], [5.0, 5.0], [6.0, 6.0]]


@pytest.mark.parametrize(
    ("direction", "sign"),
    [("minimize", 1.0), ("maximize", -1.0)],
)
@pytest.mark.parametrize("written", ["in the configuration", "as a pruner"])
def test_hyperband_stops_a_bad_trial_and_no_good_one(direction: str, sign: float, written: str) -> None:
    native = sweep(x={"min": 0.0, "max": 1.0})
    options = {"min_iter": 2, "eta": 3}
    pruner = {"name": "hyperband", "options": options}
    if written == "in the configuration":
        native["early_terminate"], pruner = {"type": "hyperband", **options}, None  # type: ignore[assignment]
    study, space = in_memory(a_study(native, pruner=pruner, objectives=[{"metric": "loss", "direction": direction}]))
    add_reports(study, space, [[sign * value for value in history] for history in HISTORIES])
    assert not study.pruner.prune(study, running(study, space, [sign * 9.0])), "before the first band"
    assert study.pruner.prune(study, running(study, space, [sign * 1.0, sign * 9.0]))
    assert not study.pruner.prune(study, running(study, space, [sign * 9.0, sign * 1.0]))


def test_hyperband_reads_max_iter_and_a_lenient_rule_as_w_and_b_does() -> None:
    native = sweep(x={"min": 0.0, "max": 1.0})
    options = {"max_iter": 8, "s": 2, "eta": 2, "strict": False}
    study, space = in_memory(a_study(native, pruner={"name": "hyperband", "options": options}))
    add_reports(study, space, HISTORIES)
    assert study.pruner.prune(study, running(study, space, [9.0, 9.0]))
    assert not study.pruner.prune(study, running(study, space, [1.0, 9.0])), "its best value counts"


def test_a_trial_is_pruned_through_the_study_s_loop(url: str) -> None:
    study = a_study(
        sweep(x={"min": 0.0, "max": 1.0}), pruner={"name": "hyperband", "options": {"min_iter": 1}}, sampler=None
    )
    with TrialLoop(study, url, "study") as loop:
        for value in (1.0, 2.0, 3.0):
            assigned = loop.next()
            assert isinstance(assigned, Assignment)
            loop.report(assigned, 1, {"loss": value})
            loop.tell(assigned, Outcome(values=(value,)))
        bad = loop.next()
        assert isinstance(bad, Assignment)
        assert loop.report(bad, 1, {"loss": 9.0})


@pytest.mark.parametrize("failures", [(), (Failure.PREEMPTED,), (Failure.LOST, Failure.PREEMPTED)])
def test_a_trial_that_was_cut_off_is_compared_once(failures: Sequence[Failure], url: str) -> None:
    fields = {
        "pruner": {"name": "hyperband", "options": {"min_iter": 1, "eta": 3}},
        "objectives": [{"metric": "loss", "direction": "maximize"}],
    }
    with TrialLoop(a_study(sweep(x={"min": 0.0, "max": 1.0}), **fields), url, "study") as loop:
        for value in (0.9, 0.1, 0.11):
            trial = take(loop)
            for failure in failures if value == 0.9 else ():
                loop.report(trial, 1, {"loss": value})
                loop.tell(trial, Outcome(failure=failure, message="gone"))
                trial = take(loop)
            loop.report(trial, 1, {"loss": value})
            loop.tell(trial, Outcome(values=(value,)))
        assert not loop.report(take(loop), 1, {"loss": 0.8}), "it is the second of four"


def test_optuna_s_pruners_work_by_name() -> None:
    pruner = build_pruner(a_study(sweep(x={"value": 1}), pruner={"name": "MedianPruner"}))
    assert isinstance(pruner, optuna.pruners.MedianPruner)
