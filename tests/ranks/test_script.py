"""Trials of a user's own Trainer script, in worker groups."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hpstudy.api.exits import EXIT_INVALID, EXIT_PREEMPTED
from hpstudy.storage import attributes
from tests.ranks.groups import Group, eventually, group
from tests.ranks.test_worker import failure
from tests.support.builders import manifest
from tests.support.postgres import postgres
from tests.support.processes import REPOSITORY

OBJECTIVES = [{"metric": "eval_loss", "direction": "minimize"}]


def script(folder: Path, scenario: str = "", **options: Any) -> Any:
    fields = {
        "trial": {"script": {"path": "script_of_tests.py", "args": [scenario]}},
        "objectives": OBJECTIVES,
        "searchSpace": None,
        "budget": {"maxTrials": 3},
    }
    return group(folder, "", **(fields | options))


def refusal(made: Group) -> dict[str, str]:
    return json.loads((made.folder / "refusal-0").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_search_of_a_script_runs_the_budget_of_the_study(tmp_path: Path, nodes: int) -> None:
    with script(tmp_path, "raises in one trial", nodes=nodes, processes=2 // nodes) as made:
        assert made.join() == [0] * nodes
        assert made.states() == ["FAIL"] + ["COMPLETE"] * 3
        assert failure(made, 0) == ("error", "ValueError: no luck in this one")
        best = min((trial for trial in made.trials() if trial.value is not None), key=lambda trial: trial.value)
        assert [(tmp_path / f"best-{rank}").read_text() for rank in range(2)] == [str(best.number)] * 2
        assert {trial.user_attrs[attributes.GROUP] for trial in made.trials()} == {0}


def test_ranks_without_a_gpu_train_together_where_the_script_says_nothing_of_cpus(tmp_path: Path) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    with script(tmp_path, "not a word of CPUs", processes=2, environment=hidden) as made:
        assert made.join() == [0]
        assert made.states() == ["COMPLETE"] * 3
        # 64 points in batches of 8, two epochs: 16 steps of one rank.
        assert [(tmp_path / f"steps-{rank}").read_text() for rank in range(2)] == ["8", "8"]


def test_a_space_of_the_study_is_that_of_the_script(tmp_path: Path) -> None:
    space = {"parameters": {"learning_rate": {"type": "float", "low": 0.02, "high": 0.03}}}
    with script(tmp_path, "no space", searchSpace=space) as made:
        assert made.join() == [0]
        assert all(0.02 <= trial.params["learning_rate"] <= 0.03 for trial in made.trials())


def test_two_groups_share_the_budget(tmp_path: Path) -> None:
    with postgres() as server, ExitStack() as stack:
        url = server.create_database("script")
        both = [
            stack.enter_context(script(tmp_path, url=url, index=index, budget={"maxTrials": 5}, parallelism=2))
            for index in range(2)
        ]
        assert [made.join() for made in both] == [[0], [0]]
        assert both[0].states() == ["COMPLETE"] * 5
        assert {trial.user_attrs[attributes.GROUP] for trial in both[0].trials()} == {0, 1}


def test_a_killed_rank_zero_fails_its_trial_and_the_script_starts_again(tmp_path: Path) -> None:
    with script(tmp_path, "killed", processes=2) as made:
        assert made.join() == [0]
        assert made.states() == ["FAIL"] + ["COMPLETE"] * 3
        assert failure(made, 0) == ("error", "rank 0 was ended by SIGKILL")


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_trial_that_takes_too_long_is_ended_and_the_script_starts_again(tmp_path: Path, nodes: int) -> None:
    fields = {"trialTimeout": "8s", "retries": {"timeout": 1}}
    with script(tmp_path, "slow in the second trial", nodes=nodes, processes=2 // nodes, **fields) as made:
        assert made.join(300) == [0] * nodes
        assert made.states() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
        assert failure(made, 1) == ("timeout", "took longer than trialTimeout 8s")
        assert made.trials()[2].params == made.trials()[1].params


def test_sigterm_hands_the_trial_back_and_a_successor_runs_it(tmp_path: Path) -> None:
    with script(tmp_path, "slow", processes=2) as made:
        eventually((tmp_path / "slow-0").exists)
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join() == [EXIT_PREEMPTED]
        assert made.states() == ["FAIL", "WAITING"]
        assert failure(made, 0) == ("preempted", "the worker was told to stop")
        made.start(0)
        assert made.join() == [0]
        assert made.states() == ["FAIL"] + ["COMPLETE"] * 3


@pytest.mark.parametrize(
    ("scenario", "reason", "complaint"),
    [
        ("raises at once", "ScriptFailed", "failed 3 times without finishing a trial; last:\n"),
        ("no search", "ScriptEnded", "ended without running a trial; it must call"),
        ("no space", "InvalidSpace", "searchSpace: neither the study has one nor the script an hp_space"),
    ],
)
def test_a_script_that_cannot_run_a_trial_ends_the_study(
    tmp_path: Path, scenario: str, reason: str, complaint: str
) -> None:
    with script(tmp_path, scenario) as made:
        assert made.join() == [EXIT_INVALID]
        told = refusal(made)
        assert told["reason"] == reason
        assert complaint in told["message"]
        assert (scenario != "raises at once") or "RuntimeError: nothing works here" in told["message"]


def test_an_error_after_the_search_is_told(tmp_path: Path) -> None:
    """The study is over by then, and nothing would start the script again."""
    script = {"path": str(REPOSITORY / "tests" / "ranks" / "script_of_tests.py"), "args": ["raises at the end"]}
    study = manifest(trial={"script": script}, objectives=OBJECTIVES, searchSpace=None, budget={"maxTrials": 1})
    (tmp_path / "study.json").write_text(json.dumps(study))
    done = subprocess.run(
        [sys.executable, "-m", "hpstudy.cli.main", "run", "study.json", "--output", "out"],
        cwd=tmp_path,
        env=os.environ
        | {"TEST_FOLDER": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path[1:]])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the script failed after its search  RuntimeError: no space left for the model" in done.stdout
    assert "1 trials complete" in done.stdout
    log = (tmp_path / "out" / "worker.log").read_text()
    assert 'raise RuntimeError("no space left for the model")' in log


def test_what_is_no_script_is_refused(tmp_path: Path) -> None:
    with script(tmp_path, trial={"script": {"path": "absent.py"}}) as made:
        assert made.join() == [EXIT_INVALID]
        assert refusal(made)["reason"] == "InvalidScript"
