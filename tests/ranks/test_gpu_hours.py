"""What trials hold of the GPUs of their group, as it is told of them: no GPU is there."""

from pathlib import Path
from typing import Any

import pytest

from hpstudy.storage import attributes
from tests.ranks.groups import group

LITTLE = {"maxTrials": 50, "gpuHours": 1e-6}
SCRIPT = {
    "trial": {"script": {"path": "script_of_tests.py", "args": []}},
    "objectives": [{"metric": "eval_loss", "direction": "minimize"}],
    "searchSpace": None,
}


@pytest.mark.parametrize(
    ("workers", "nodes", "held"),
    [({}, 1, 4), ({"trialsPerPod": 2}, 1, 2), ({}, 2, 8)],
    ids=["a pod", "half a pod", "two pods"],
)
def test_trials_hold_their_share_until_the_gpu_hours_are_used_up(
    tmp_path: Path, workers: dict[str, Any], nodes: int, held: float
) -> None:
    with group(tmp_path, "square", gpus=4, nodes=nodes, workers=workers, budget=LITTLE) as made:
        assert made.join() == [0] * nodes
        trials = made.trials()
    assert 1 <= len(trials) <= 2, "no more than were in hand when the first had used them up"
    assert all(trial.user_attrs[attributes.GPUS] == held for trial in trials)


def test_gpu_hours_of_a_group_without_gpus_are_refused(tmp_path: Path) -> None:
    with group(tmp_path, "square", gpus=0, budget=LITTLE) as made:
        assert made.join() == [2]
        assert "budget.gpuHours: the workers have no GPU" in (tmp_path / "refusal-0").read_text()
        assert made.trials() == []


def test_trials_of_a_script_hold_all_of_the_group(tmp_path: Path) -> None:
    with group(tmp_path, "", gpus=4, budget=LITTLE, **SCRIPT) as made:
        assert made.join() == [0]
        assert [trial.user_attrs[attributes.GPUS] for trial in made.trials()] == [4]
