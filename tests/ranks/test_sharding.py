"""Sharded training (FSDP) in a worker group, on gloo ranks."""

from pathlib import Path

import pytest

from hpstudy.storage import attributes
from tests.ranks.groups import group


@pytest.mark.parametrize("nodes", [1, 2])
def test_sharded_ranks_train_as_one_process_does(tmp_path: Path, nodes: int) -> None:
    """The trial compares its loss with that of the whole model on the whole batch, and is pruned once together."""
    pruner = {"name": "ThresholdPruner", "options": {"upper": 1e6, "n_warmup_steps": 1}}
    initial = [{"x": 0.01}, {"x": 0.5}]
    fields = {"budget": {"maxTrials": 2}, "initialTrials": initial, "pruner": pruner}
    with group(tmp_path, "sharded", module="sharded_trials", nodes=nodes, processes=2 // nodes, **fields) as made:
        assert made.join() == [0] * nodes
        assert made.states() == ["COMPLETE", "PRUNED"]
        metrics = made.trials()[0].user_attrs[attributes.METRICS]
        assert metrics["shard"] == 0.5, "each rank holds half of the weights"
        assert metrics["loss"] == pytest.approx(metrics["whole"], rel=1e-4)
