"""Worker groups that the study has no more trials for: real processes, real SQLite, every form of a trial."""

import os
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpstudy.api.exits import EXIT_PREEMPTED
from hpstudy.storage.opening import open_storage
from hpstudy.storage.settings import record_settings
from tests.ranks.groups import Group, eventually, group
from tests.ranks.test_worker import failure

HELD = """
touch $TEST_FOLDER/held-0
while [ ! -e $TEST_FOLDER/go ]; do sleep 0.1; done
echo '{"loss": 1}' >> $HPSTUDY_METRICS
"""
FORMS: dict[str, dict[str, Any]] = {
    "process": {"processes": 2},
    "two nodes": {"nodes": 2},
    "inline": {"processes": 2, "workers": {"isolation": "inline"}},
    "side by side": {"workers": {"trialsPerPod": 2}},
    "command": {"trial": {"command": {"argv": ["/bin/sh", "-c", HELD]}}},
    "script": {
        "processes": 2,
        "trial": {"script": {"path": "script_of_tests.py", "args": ["held"]}},
        "objectives": [{"metric": "eval_loss", "direction": "minimize"}],
        "searchSpace": None,
    },
}


def told(made: Group, **changed: Any) -> None:
    """As the operator, which saw the study changed."""
    storage = open_storage(made.url)
    try:
        record_settings(
            optuna.load_study(study_name="study", storage=storage), made.study.spec.model_copy(update=changed)
        )
    finally:
        storage.engine.dispose()


@pytest.mark.parametrize("form", FORMS)
def test_a_group_that_is_removed_ends_its_trials_and_leaves(tmp_path: Path, form: str) -> None:
    fields: dict[str, Any] = {"index": 1, "parallelism": 2, "budget": {"maxTrials": 9}, **FORMS[form]}
    trials = 2 if form == "side by side" else 1
    with group(tmp_path, "held", **fields) as made:
        eventually((tmp_path / "held-0").exists)
        eventually(lambda: made.states() == ["RUNNING"] * trials)
        told(made, parallelism=1)
        (tmp_path / "go").touch()
        assert made.join() == [0] * fields.get("nodes", 1)
        assert made.states() == ["COMPLETE"] * trials
    assert not (tmp_path / "best-0").exists(), "what a script does at its end is for a search that is over"


def test_a_group_of_another_revision_leaves_at_once_when_it_is_started(tmp_path: Path) -> None:
    """A pod that a Job of old replaces."""
    with group(tmp_path, "held", budget={"maxTrials": 9}, environment={"HPSTUDY_REVISION": "old"}) as made:
        eventually((tmp_path / "held-0").exists)
        told(made)
        made.kill(0)
        made.start(0)
        assert made.join() == [0]
        assert made.states() == ["FAIL", "WAITING"]
        assert failure(made, 0)[0] == "lost"


def test_a_trial_that_was_suspended_goes_on_with_its_successor(tmp_path: Path) -> None:
    with group(tmp_path, "held", budget={"maxTrials": 1}, retries={"preempted": 0}) as made:
        eventually((tmp_path / "held-0").exists)
        told(made, suspend=True)
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join() == [EXIT_PREEMPTED]
        assert failure(made, 0) == ("suspended", "the study is suspended")
        told(made)
        (tmp_path / "go").touch()
        made.start(0)
        assert made.join() == [0]
        first, second = made.trials()
        assert (second.state.name, second.params) == ("COMPLETE", first.params)
