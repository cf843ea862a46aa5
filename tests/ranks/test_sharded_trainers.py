"""The Trainer's FSDP and DeepSpeed in worker groups: real FSDP and ZeRO, on gloo ranks (see tests.support.sharding)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpstudy.storage import attributes
from tests.ranks.groups import CPUS_SHARD, OWN_FOLDERS, eventually, group
from tests.ranks.test_checkpoints import trainer_twice
from tests.support.sharding import BACKEND, SHARDINGS

ARGUMENTS = {"num_train_epochs": 3, "per_device_train_batch_size": 16}
FOR_TRAINING = ("optimizer*", "pytorch_model_fsdp*", "global_step*", "zero_to_*", "rng_state*", "latest")


def sharded(folder: Path, kind: str, arguments: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Fields of a study of two trials that are alike."""
    given = ARGUMENTS | SHARDINGS[kind] | {"ddp_backend": BACKEND} | (arguments or {})
    fields = trainer_twice(folder, given, **options)
    fields["environment"] = {CPUS_SHARD: "yes"}
    return fields


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[float]]:
    """The losses of the same trial where each rank has the whole model."""
    folder = tmp_path_factory.mktemp("replicated")
    with group(folder, "", processes=2, **(trainer_twice(folder, ARGUMENTS) | {"budget": {"maxTrials": 1}})) as made:
        assert made.join(300) == [0]
        yield list(made.trials()[0].intermediate_values.values())


@pytest.mark.parametrize("kind", SHARDINGS)
def test_a_sharded_trial_trains_as_a_replicated_one_goes_on_and_leaves_a_whole_model(
    tmp_path: Path, kind: str, replicated: list[float]
) -> None:
    record = tmp_path / "checkpoints" / "study" / "trial-0" / "last" / ".hpstudy.json"
    with group(tmp_path, "", processes=2, **sharded(tmp_path, kind)) as made:
        eventually(record.exists, 240)
        made.kill(0)
        made.start(0)
        assert made.join(300) == [0]
        assert made.states() == ["FAIL", "COMPLETE", "COMPLETE"]
        _, whole, went_on = made.trials()
    assert went_on.user_attrs[attributes.CONTINUES] == 0
    curves = [list(trial.intermediate_values.values()) for trial in (whole, went_on)]
    assert curves[0] == pytest.approx(replicated, rel=1e-3)
    assert curves[1] == pytest.approx(curves[0], rel=1e-5), "the steps, the optimizer and the generators are the same"
    metrics = [trial.user_attrs[attributes.METRICS]["model_parameters"] for trial in (whole, went_on)]
    assert len(set(metrics)) == 1
    assert metrics[0] > 1000
    best = Path(went_on.user_attrs[attributes.CHECKPOINT])
    assert (best / "model.safetensors").stat().st_size > 4 * metrics[0]
    assert [path for pattern in FOR_TRAINING for path in best.glob(pattern)] == []

    # One rank alone, from the pretrained model, whose loss stays what it is.
    (again := tmp_path / "again").mkdir()
    fields = sharded(again, kind, {"learning_rate": 0.0, "num_train_epochs": 1}, model={"name": str(best)})
    with group(again, "", **(fields | {"budget": {"maxTrials": 1}})) as made:
        assert made.join(300) == [0]
        assert made.trials()[0].value == pytest.approx(went_on.value, rel=1e-4)


@pytest.mark.parametrize("kind", ["FSDP in parts", "ZeRO-3"])
def test_sharded_ranks_on_two_nodes_prune_together_and_leave_whole_models(tmp_path: Path, kind: str) -> None:
    """Where no node has the other's parts, a trial could not go on; its model is whole all the same."""
    fields = sharded(tmp_path, kind, {"num_train_epochs": 4}, computeObjective="counted_steps:kept")
    fields["environment"] |= {OWN_FOLDERS: "yes"}
    fields |= {"pruner": {"name": "ThresholdPruner", "options": {"upper": 0.0, "n_warmup_steps": 3}}}
    fields |= {"budget": {"maxTrials": 1}}
    with group(tmp_path, "", nodes=2, **fields) as made:
        assert made.join(300) == [0, 0]
        trial = made.trials()[0]
        assert trial.state.name == "PRUNED"
        assert len(trial.intermediate_values) == 3
        best = Path(trial.user_attrs[attributes.CHECKPOINT])
        assert (best / "model.safetensors").exists()
        assert (tmp_path / "kept").read_text().split() == ["0", "1", "1"], "parts of the last one alone"
        assert list(tmp_path.glob("node-*/trials/*/checkpoint-*")) == []
        assert json.loads((best / "config.json").read_text())["model_type"] == "bert"


@pytest.mark.parametrize("kind", ["FSDP", "ZeRO-3"])
def test_inline_ranks_shard_trial_after_trial(tmp_path: Path, kind: str) -> None:
    fields = sharded(tmp_path, kind) | {"workers": {"isolation": "inline"}}
    with group(tmp_path, "", processes=2, **fields) as made:
        assert made.join(300) == [0]
        assert made.states() == ["COMPLETE"] * 2
        first, second = made.trials()
        assert second.value == pytest.approx(first.value, rel=1e-5)
