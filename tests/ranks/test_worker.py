"""Worker groups: real processes, real gloo, real SQLite."""

import json
import os
import signal
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpstudy.api.exits import EXIT_PREEMPTED
from hpstudy.storage import attributes
from tests.ranks.groups import Group, alive, eventually, group

BUDGET = {"maxTrials": 3}


def failure(made: Group, number: int) -> tuple[str, str]:
    found = made.trials()[number].user_attrs
    return found[attributes.FAILURE], found[attributes.MESSAGE]


def test_one_process_runs_the_budget(tmp_path: Path) -> None:
    with group(tmp_path, "square", budget=BUDGET) as made:
        assert made.join() == [0]
        assert made.states() == ["COMPLETE"] * 3
        assert all(trial.value == pytest.approx(trial.params["x"] ** 2) for trial in made.trials())


@pytest.mark.parametrize("nodes", [1, 2])
def test_all_ranks_train_each_trial_and_prune_together(tmp_path: Path, nodes: int) -> None:
    pruner = {"name": "MedianPruner", "options": {"n_startup_trials": 1}}
    sampler = {"name": "RandomSampler", "options": {"seed": 1}}
    with group(
        tmp_path, "together", nodes=nodes, processes=2, pruner=pruner, sampler=sampler, budget={"maxTrials": 8}
    ) as made:
        assert made.join() == [0] * nodes
        assert {"COMPLETE", "PRUNED"} == set(made.states())
        complete = [trial for trial in made.trials() if trial.state is TrialState.COMPLETE]
        assert all(trial.value == pytest.approx(trial.params["x"] * nodes * 2, rel=1e-5) for trial in complete)
        assert all(len(trial.intermediate_values) == 4 for trial in complete)


def test_ranks_of_different_opinions_act_on_that_of_rank_zero(tmp_path: Path) -> None:
    with group(tmp_path, "disagrees", processes=2, budget={"maxTrials": 1}) as made:
        assert made.join() == [0]
        assert made.trials()[0].value == 0


def test_objectives_constraints_and_initial_trials_go_all_the_way(tmp_path: Path) -> None:
    """The best weighted sum is at x = 0, the constraint allows nothing above 0.5."""
    fields = {
        "objectives": [{"metric": "f1", "direction": "maximize"}, {"metric": "size", "direction": "minimize"}],
        "scalarize": {"weights": {"f1": 1, "size": 1}},
        "constraints": [{"metric": "eval_size", "max": 2.25}],
        "initialTrials": [{"x": 0.25}, {"x": -0.5}, {"x": 0}, {"x": 0.75}],
        "pruner": {"name": "MedianPruner", "options": {"n_startup_trials": 3}},
        "budget": {"maxTrials": 4},
    }
    with group(tmp_path, "trades_off", **fields) as made:
        assert made.join() == [0]
        assert made.states() == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED"]
        trials = made.trials()
        assert [trial.params["x"] for trial in trials] == [0.25, -0.5, 0, 0.75]
        assert trials[0].values == pytest.approx([0.4375, 1.5625])
        assert [trial.constraints["eval_size:max"] <= 0 for trial in trials] == [True, True, True, False]
        assert trials[3].intermediate_values == {0: pytest.approx(-0.9375 + 3.0625)}


def test_sigterm_hands_the_trial_back_and_a_successor_runs_it(tmp_path: Path) -> None:
    with group(tmp_path, "slow", processes=2, budget=BUDGET) as made:
        eventually((tmp_path / "began-0-1").exists)
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join() == [143]
        assert made.states() == ["FAIL", "WAITING"]
        assert failure(made, 0) == ("preempted", "the worker was told to stop")
        assert not alive(int((tmp_path / "began-0-1").read_text()))
        made.start(0)
        assert made.join() == [0]
        trials = made.trials()
        assert [trial.state.name for trial in trials] == ["FAIL"] + ["COMPLETE"] * 3
        assert trials[1].params == trials[0].params


def test_a_killed_pod_zero_loses_at_most_the_trial_in_flight(tmp_path: Path) -> None:
    with group(tmp_path, "slow", nodes=2, processes=1, budget=BUDGET) as made:
        eventually((tmp_path / "began-0-1").exists)
        made.kill(0)
        assert made.states() == ["RUNNING"]
        made.start(0)
        assert made.join() == [0, 0]
        assert made.states() == ["FAIL"] + ["COMPLETE"] * 3
        assert failure(made, 0) == ("lost", "the worker that ran it is gone")


def test_a_killed_other_pod_ends_the_trial_and_its_replacement_joins(tmp_path: Path) -> None:
    with group(tmp_path, "slow", nodes=2, processes=1, budget=BUDGET) as made:
        eventually((tmp_path / "began-0-1").exists)
        made.kill(1)
        eventually(lambda: made.states()[0] == "FAIL")
        assert failure(made, 0) == ("lost", "the pod of node 1 is gone")
        made.start(1)
        assert made.join() == [0, 0]
        assert made.states() == ["FAIL"] + ["COMPLETE"] * 3


def test_a_killed_supervisor_takes_its_ranks_with_it(tmp_path: Path) -> None:
    with group(tmp_path, "slow", processes=2, budget=BUDGET) as made:
        eventually((tmp_path / "began-0-0").exists)
        eventually((tmp_path / "began-0-1").exists)
        os.kill(made.pods[0].pid or 0, signal.SIGKILL)
        ranks = [int((tmp_path / f"began-0-{rank}").read_text()) for rank in (0, 1)]
        eventually(lambda: not any(map(alive, ranks)))
        eventually(lambda: made.states()[0] == "FAIL")
        assert failure(made, 0)[0] == "lost"


def test_what_a_trial_leaves_running_ends_with_it(tmp_path: Path) -> None:
    with group(tmp_path, "leaves_a_child", budget={"maxTrials": 1}) as made:
        assert made.join() == [0]
        assert not alive(int((tmp_path / "child-0").read_text()))


def test_a_daemon_that_a_trial_starts_ends_with_it(tmp_path: Path) -> None:
    """It has left the trial's process group, and holds what it has inherited open."""
    with group(tmp_path, "leaves_a_daemon", budget={"maxTrials": 2}) as made:
        assert made.join() == [0]
        assert [trial.values for trial in made.trials()] == [[0.0], [0.0]]
        left = [pid for number in range(2) for pid in (tmp_path / f"daemons-{number}").read_text().split()]
        assert not any(alive(int(pid)) for pid in left)


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_without_checkpoints_nothing_stays_of_a_trial_s_folder_of_them(tmp_path: Path, isolation: str) -> None:
    with group(
        tmp_path, "fills_its_folder", processes=2, workers={"isolation": isolation}, budget={"maxTrials": 2}
    ) as made:
        assert made.join() == [0]
        assert made.states() == ["COMPLETE"] * 2
    assert {path.name for path in (tmp_path / "trials").glob("*/*")} == {"log"}


@pytest.mark.parametrize("how", [{}, {"TEST_DOWNLOADS": "1"}], ids=["imports", "downloads"])
def test_a_worker_that_prepares_leaves_when_it_is_told_to(tmp_path: Path, how: dict[str, str]) -> None:
    with group(tmp_path, "square", module="slow_to_import", environment=how) as made:
        eventually((tmp_path / "importing").exists)
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join(25) == [EXIT_PREEMPTED]


def test_a_rank_may_use_several_threads(tmp_path: Path) -> None:
    with group(tmp_path, "counts_threads", budget={"maxTrials": 1}) as made:
        assert made.join() == [0]
        metrics = made.trials()[0].user_attrs[attributes.METRICS]
        assert metrics["threads"] == len(os.sched_getaffinity(0))
        assert metrics["sum"] == pytest.approx(600**3)


def test_a_missing_metric_fails_the_study_with_the_names_of_those_there(tmp_path: Path) -> None:
    with group(tmp_path, "without_metric", budget={"maxTrials": 3, "maxFailedTrials": 1}) as made:
        assert made.join() == [0]
        assert made.states() == ["FAIL"] * 2
        message = "metric 'loss' was not reported; the trial reported accuracy, f1"
        assert failure(made, 0) == ("metric-missing", message)


def test_a_function_that_returns_no_number_is_told_what_to_return(tmp_path: Path) -> None:
    with group(tmp_path, "text", budget={"maxFailedTrials": 0}) as made:
        assert made.join() == [0]
        assert failure(made, 0)[1].startswith(
            "TypeError: trials_of_tests:text returned 'high'; it must return a number"
        )


@pytest.mark.parametrize(
    ("fields", "reason", "complaint"),
    [
        ({"trial": {"function": "absent:f"}}, "ImportFailed", "cannot import module 'absent'"),
        ({"trial": {"function": "trials_of_tests:absent"}}, "ImportFailed", "has no function 'absent'"),
        ({"searchSpace": {"python": "trials_of_tests:absent"}}, "ImportFailed", "searchSpace.python: module"),
        ({"sampler": {"name": "TPESampler", "options": {"sed": 1}}}, "InvalidOption", "sampler.options.sed"),
    ],
)
def test_what_cannot_run_ends_pod_zero_with_the_reason(
    tmp_path: Path, fields: dict[str, object], reason: str, complaint: str
) -> None:
    """Exit code 2 fails the Job, which ends the other pods."""
    with group(tmp_path, "square", nodes=2, **fields) as made:  # type: ignore[arg-type]
        made.pods[0].join(60)
        assert made.pods[0].exitcode == 2
        refusal = json.loads((tmp_path / "refusal-0").read_text())
        assert refusal["reason"] == reason
        assert complaint in refusal["message"]
