"""Trials whose worker is lost go on from their last checkpoint: real pods, real ranks."""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from hpstudy.checkpoints.store import BEST, LAST
from hpstudy.storage import attributes
from tests.ranks.checkpointed_trials import STEPS, STOPS_AT, counted
from tests.ranks.groups import OWN_FOLDERS, eventually, group

FUNCTION = {"function": "checkpointed_trials:counts"}


@pytest.mark.parametrize(
    ("how", "nodes", "processes"),
    [("SIGTERM to the pod", 1, 2), ("kill -9 of both pods", 2, 1), ("kill -9 of the supervisor", 1, 1)],
)
def test_a_trial_goes_on_where_its_worker_was_lost(tmp_path: Path, how: str, nodes: int, processes: int) -> None:
    options: dict[str, Any] = {"trial": FUNCTION, "checkpoints": {}, "budget": {"maxTrials": 1}}
    ranks = nodes * processes
    with group(tmp_path, "", nodes=nodes, processes=processes, **options) as made:
        eventually(lambda: all((tmp_path / f"stopped-{rank}").exists() for rank in range(ranks)))
        if how == "SIGTERM to the pod":
            os.kill(made.pods[0].pid or 0, signal.SIGTERM)
            assert made.join() == [143]
        elif nodes == 2:
            made.kill(0)
            made.kill(1)
            made.start(1)
        else:
            os.kill(made.pods[0].pid or 0, signal.SIGKILL)
            made.pods[0].join(10)
        made.start(0)
        assert made.join() == [0] * nodes
        assert made.states() == ["FAIL", "COMPLETE"]
        first, second = made.trials()
        expected = counted(first.params["x"], ranks)
        assert second.params == first.params
        assert second.user_attrs[attributes.CONTINUES] == 0
        assert list(second.intermediate_values.values()) == pytest.approx(expected, rel=1e-6), "the whole curve"
        assert second.value == pytest.approx(expected[-1], rel=1e-6)
        steps = [tuple(map(int, line.split())) for line in (tmp_path / "steps").read_text().splitlines()]
        assert steps == [(0, step) for step in range(1, STOPS_AT + 1)] + [
            (1, step) for step in range(STOPS_AT + 1, STEPS + 1)
        ]
        store = tmp_path / "checkpoints" / "study"
        assert [path.name for path in store.iterdir()] == ["trial-1"]
        assert second.user_attrs[attributes.CHECKPOINT] == str(store / "trial-1" / BEST)
        assert (store / "trial-1" / BEST / "state").read_text().startswith(f"{STEPS} ")
        assert not (store / "trial-1" / LAST).exists()
        assert not list(tmp_path.glob("trials/*/checkpoint-*")), "nodes keep nothing"


CONFIG = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


def test_a_trainer_on_two_nodes_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Three trials of the same hyperparameters: one that is killed, one that is not, and the one that goes on. There is
    dropout, so that each rank's random generator matters."""
    source = random.Random(0)
    weights = {"up": [3, 3, 3, 1, 1, 1], "down": [1, 1, 1, 3, 3, 3]}
    rows = [f"{''.join(source.choices('abcxyz', weights[label], k=10))},{label}" for label in ["up", "down"] * 100]
    (tmp_path / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    transformers = {
        "task": "text-classification",
        "model": {"config": CONFIG},
        "dataset": {"csv": str(tmp_path / "reviews.csv"), "maxLength": 12},
        "arguments": {"num_train_epochs": 4, "learning_rate": 3e-3, "per_device_train_batch_size": 16},
    }
    fields: dict[str, Any] = {
        "trial": {"transformers": transformers},
        "objectives": [{"metric": "eval_loss", "direction": "minimize"}],
        "searchSpace": {"parameters": {"weight_decay": {"type": "float", "low": 0, "high": 1}}},
        "initialTrials": [{"weight_decay": 0.1}] * 2,
        "checkpoints": {"keep": "all", "url": f"file://{tmp_path}/checkpoints"},
        "budget": {"maxTrials": 2},
        "environment": {OWN_FOLDERS: "yes"},
    }
    record = tmp_path / "checkpoints" / "study" / "trial-0" / "last" / ".hpstudy.json"

    def reported() -> int:
        try:
            return len(json.loads(record.read_text())["reports"])
        except OSError:
            return 0

    with group(tmp_path, "", nodes=2, processes=1, **fields) as made:
        eventually(lambda: reported() >= 1, 240)
        made.kill(0)
        made.kill(1)
        before = reported()
        made.start(0)
        made.start(1)
        assert made.join(300) == [0, 0]
        assert made.states() == ["FAIL", "COMPLETE", "COMPLETE"]
        cut_off, whole, went_on = made.trials()
        assert 1 <= before <= len(cut_off.intermediate_values) < 4
        assert went_on.user_attrs[attributes.CONTINUES] == 0
        assert whole.intermediate_values == went_on.intermediate_values
        assert len(went_on.intermediate_values) == 4
        assert whole.value == went_on.value
        assert {f"trial-{n}" for n in (1, 2)} == {path.name for path in record.parents[2].iterdir()}
