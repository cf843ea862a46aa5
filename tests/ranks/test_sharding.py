"""Sharded training (FSDP) in a worker group, on gloo ranks."""

from pathlib import Path

import pytest

from hpstudy.checkpoints.folders import FolderStore
from hpstudy.checkpoints.store import BEST, LAST
from hpstudy.storage import attributes
from hpstudy.training.callback import FOR_TRAINING
from hpstudy.training.checkpoints import TrialCheckpoints
from tests.ranks.groups import OWN_FOLDERS, group


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


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_checkpoint_of_which_other_nodes_hold_a_part_is_not_recorded(tmp_path: Path, nodes: int) -> None:
    fields = {
        "budget": {"maxTrials": 1},
        "checkpoints": {"keep": "all", "url": f"file://{tmp_path}/checkpoints"},
        "environment": {OWN_FOLDERS: "yes"},
    }
    given = {"module": "sharded_trials", "nodes": nodes, "processes": 2 // nodes}
    with group(tmp_path, "saves_sharded", **given, **fields) as made:
        assert made.join() == [0] * nodes
        assert made.states() == ["COMPLETE"]
        best = tmp_path / "checkpoints" / "study" / "trial-0" / "best" / "model"
        if nodes == 1:
            assert attributes.CHECKPOINT in made.trials()[0].user_attrs
            assert {path.name for path in best.iterdir()} == {".metadata", "__0_0.distcp", "__1_0.distcp"}
        else:
            assert attributes.CHECKPOINT not in made.trials()[0].user_attrs
            assert not best.parent.exists()


@pytest.mark.parametrize("below", ["", "state"])
@pytest.mark.parametrize("here", ["2", "4"])
def test_deepspeed_s_shards_count_one_from_each_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, here: str, below: str
) -> None:
    """Its best checkpoint is the gathered model, without them."""
    folder = tmp_path / "checkpoint-8"
    (folder / below / "global_step8").mkdir(parents=True)
    (folder / "model.safetensors").touch()
    for rank in range(int(here)):
        (folder / below / "global_step8" / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    store = FolderStore(tmp_path / "store")
    checkpoints = TrialCheckpoints(lambda: store, "all", 7, None, tmp_path / "live")
    for _ in range(2):
        checkpoints.publish_last(folder)
        checkpoints.publish_best(folder, leave_out=FOR_TRAINING)
    assert store.exists(7, LAST) == (here == "4")
    assert store.exists(7, BEST)
    assert caplog.text.count("a checkpoint of trial 7 is not kept: it is sharded over nodes") == (here == "2")
