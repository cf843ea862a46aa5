"""Trials whose worker is lost go on from their last checkpoint: real pods, real ranks."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from hpstudy.checkpoints.store import BEST, LAST
from hpstudy.storage import attributes
from tests.ranks.checkpointed_trials import STEPS, STOPS_AT, counted
from tests.ranks.groups import eventually, group

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
