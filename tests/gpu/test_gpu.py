"""What only a GPU can show: ``make gpu-check``."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hpstudy.storage import attributes
from tests.ranks.groups import group

HERE = Path(__file__).parent


def run(folder: Path, function: str, trials: int, **fields: Any) -> list[dict[str, Any]]:
    """The metrics of each trial, all of which complete."""
    budget = {"maxTrials": trials}
    with group(folder, function, module="trials_on_gpu", home=HERE, budget=budget, **fields) as made:
        assert made.join(500) == [0]
        assert made.states() == ["COMPLETE"] * trials
        return [trial.user_attrs[attributes.METRICS] for trial in made.trials()]


def test_a_forked_rank_opens_its_device_and_reduces_by_nccl_in_bf16(tmp_path: Path) -> None:
    found = run(tmp_path, "reduces", 3)
    assert [metrics["loss"] for metrics in found] == [1.0] * 3
    assert all(metrics["ranks"] == 1 for metrics in found)


def test_ranks_on_several_devices_reduce_together(tmp_path: Path, devices: int) -> None:
    (metrics,) = run(tmp_path, "reduces", 1, processes=devices)
    assert metrics["ranks"] == devices
    assert metrics["loss"] == pytest.approx(devices * (devices + 1) / 2)


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_memory_of_the_device_is_flat_over_fifty_trials(tmp_path: Path, isolation: str) -> None:
    found = run(tmp_path, "trains", 50, workers={"isolation": isolation})
    used = [metrics["used_mib"] for metrics in found]
    print(f"{isolation}: the device holds {used[1]:.0f} MiB before trial 1, {used[-1]:.0f} MiB before trial 49")
    assert all(metrics["allocated_mib"] < 1 for metrics in found), "a trial's tensors outlive it"
    assert used[-1] - used[1] < 64, used


def test_out_of_memory_is_the_trials_own_failure(tmp_path: Path) -> None:
    budget = {"maxTrials": 2, "maxFailedTrials": 1}
    with group(tmp_path, "too_large", module="trials_on_gpu", home=HERE, budget=budget) as made:
        assert made.join(300) == [0]
        first, *others = made.trials()
        assert first.user_attrs[attributes.FAILURE] == "oom"
        assert [trial.state.name for trial in others] == ["COMPLETE"] * 2


def test_small_trials_share_a_device(tmp_path: Path) -> None:
    """trialsPerPod auto: one trial first for each device, then as many as its peak of device memory allows."""
    workers, budget = {"processesPerNode": 1, "trialsPerPod": "auto"}, {"maxTrials": 12}
    with group(tmp_path, "trains", module="trials_on_gpu", home=HERE, workers=workers, budget=budget) as made:
        assert made.join(300) == [0]
        trials = made.trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 12
    spans = [(trial.datetime_start, trial.datetime_complete) for trial in trials]
    together = [
        sum(begun <= start < (ended or start) for begun, ended in spans if begun) for start, _ in spans if start
    ]
    print(f"trials running at the start of each: {together}")
    assert together[0] == 1
    assert max(together) > torch.cuda.device_count()


def test_the_trainer_trains_in_bf16(tmp_path: Path) -> None:
    found = run(tmp_path, "", 2, **form(tmp_path, bf16=True))
    assert max(metrics["eval_f1"] for metrics in found) > 0.9


def test_the_trainer_shards_over_several_devices(tmp_path: Path, devices: int) -> None:
    """FSDP through accelerate, which takes no notice of it on CPUs."""
    wrapped = {"transformer_layer_cls_to_wrap": ["BertLayer"]}
    found = run(tmp_path, "", 2, processes=devices, **form(tmp_path, bf16=True, fsdp="full_shard", fsdp_config=wrapped))
    assert max(metrics["eval_f1"] for metrics in found) > 0.9


def form(tmp_path: Path, **arguments: Any) -> dict[str, Any]:
    """A study of a small classifier on words that are easily told apart."""
    lines = [
        f"{'abc' * (n % 5 + 1) if n % 2 else 'xyz' * (n % 7 + 1)} {n},{'up' if n % 2 else 'down'}" for n in range(400)
    ]
    (tmp_path / "data.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    config = {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    transformers = {
        "task": "text-classification",
        "model": {"config": config | {"vocab_size": 200, "intermediate_size": 128, "max_position_embeddings": 64}},
        "dataset": {"csv": str(tmp_path / "data.csv"), "maxLength": 32},
        "arguments": {"num_train_epochs": 4, "per_device_train_batch_size": 32} | arguments,
    }
    space = {"parameters": {"learning_rate": {"type": "float", "low": 1e-3, "high": 3e-3}}}
    objectives = [{"metric": "eval_f1", "direction": "maximize"}]
    return {"objectives": objectives, "searchSpace": space, "trial": {"transformers": transformers}}
