"""What only a GPU can show: ``make gpu-check``."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from hpstudy.api import reasons
from hpstudy.api.exits import EXIT_INVALID
from hpstudy.storage import attributes
from hpstudy.worker.cpu import available_cpus
from tests.gpu.conftest import DEVICES
from tests.ranks.groups import FINDS_DEEPSPEED, Group, group
from tests.support import cuda
from tests.support.sharding import SHARDINGS

HERE = Path(__file__).parent
AUTO_SHARE = 4
"""trialsPerPod auto: at most a quarter of the budget at once."""


def on_gpus(folder: Path, function: str, **fields: Any) -> AbstractContextManager[Group]:
    """A group that sees the GPUs of this machine."""
    return group(folder, function, module="trials_on_gpu", home=HERE, on_gpus=True, **fields)


def run(folder: Path, function: str, trials: int, **fields: Any) -> list[dict[str, Any]]:
    """The metrics of each trial, all of which complete."""
    budget = {"maxTrials": trials}
    with on_gpus(folder, function, budget=budget, **fields) as made:
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
    with on_gpus(tmp_path, "too_large", budget=budget) as made:
        assert made.join(300) == [0]
        first, *others = made.trials()
        assert first.user_attrs[attributes.FAILURE] == "oom"
        assert [trial.state.name for trial in others] == ["COMPLETE"] * 2


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_a_rank_that_raises_ends_those_that_wait_for_it_in_nccl(tmp_path: Path, devices: int, isolation: str) -> None:
    budget, workers = {"maxTrials": 1, "maxFailedTrials": 1}, {"isolation": isolation}
    with on_gpus(tmp_path, "raises_on_the_last_rank", processes=devices, workers=workers, budget=budget) as made:
        assert made.join(300) == [0]
        failed, complete = made.trials()
    assert failed.user_attrs[attributes.FAILURE] == "error"
    assert failed.user_attrs[attributes.MESSAGE] == f"ValueError: no luck on rank {devices - 1}"
    assert complete.state.name == "COMPLETE"
    before = float((tmp_path / "seconds").read_text())
    assert failed.duration is not None
    assert failed.duration.total_seconds() - before < 30


def test_inline_ranks_reduce_by_nccl_in_trial_after_trial(tmp_path: Path, devices: int) -> None:
    found = run(tmp_path, "reduces", 4, processes=devices, workers={"isolation": "inline"})
    assert [metrics["ranks"] for metrics in found] == [devices] * 4
    assert [metrics["loss"] for metrics in found] == pytest.approx([devices * (devices + 1) / 2] * 4)
    assert len({metrics["process"] for metrics in found}) == 1


def test_small_trials_share_a_device(tmp_path: Path) -> None:
    """trialsPerPod auto: one trial first for each device, then as many as its peak of device memory allows."""
    several = DEVICES + 1
    if available_cpus() < several:
        pytest.skip(f"{DEVICES} GPUs and {available_cpus()} CPUs: no more trials at once than GPUs")
    workers, budget = {"processesPerNode": 1, "trialsPerPod": "auto"}, {"maxTrials": AUTO_SHARE * several}
    with on_gpus(tmp_path, "trains_for_a_while", workers=workers, budget=budget) as made:
        assert made.join(500) == [0]
        trials = made.trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * AUTO_SHARE * several
    spans = [(trial.datetime_start, trial.datetime_complete) for trial in trials]
    together = [
        sum(begun <= start < (ended or start) for begun, ended in spans if begun) for start, _ in spans if start
    ]
    print(f"trials running at the start of each: {together}")
    assert together[0] == 1
    assert max(together) > DEVICES


def test_trials_side_by_side_have_a_device_each(tmp_path: Path, devices: int) -> None:
    workers = {"processesPerNode": 1, "trialsPerPod": devices}
    found = run(tmp_path, "trains_for_a_while", 3 * devices, workers=workers)
    assert {metrics["seen"] for metrics in found} == {1}
    assert {metrics["visible"] for metrics in found} == set(range(devices))
    assert len({metrics["uuid"] for metrics in found}) == devices


def test_a_worker_counts_its_devices_without_nvml_and_its_ranks_open_them(tmp_path: Path) -> None:
    """As with MIG slices that the environment names, of which NVML does not tell torch."""
    workers = {"processesPerNode": "auto"}
    found = run(tmp_path, "reduces", 2, workers=workers, environment={cuda.WITHOUT_NVML: "1"})
    assert [metrics["ranks"] for metrics in found] == [DEVICES] * 2


@pytest.mark.parametrize("how", ["asks", "opens"])
def test_a_module_that_opens_cuda_on_import_is_refused(tmp_path: Path, how: str) -> None:
    with on_gpus(tmp_path, "reduces", environment={"TEST_ON_IMPORT": how}) as made:
        assert made.join(120) == [EXIT_INVALID]
    assert json.loads((tmp_path / "refusal-0").read_text())["reason"] == reasons.CUDA_OPENED


def test_the_trainer_trains_in_bf16(tmp_path: Path) -> None:
    found = run(tmp_path, "", 2, **form(tmp_path, bf16=True))
    assert max(metrics["eval_f1"] for metrics in found) > 0.9


@pytest.mark.parametrize("kind", SHARDINGS)
def test_the_trainer_shards_over_all_devices_in_bf16(tmp_path: Path, kind: str) -> None:
    """One is enough. What tests/ranks/test_sharded_trainers.py shows on CPUs is not shown again."""
    fields = form(tmp_path, bf16=True, **SHARDINGS[kind]) | {"environment": {FINDS_DEEPSPEED: "yes"}}
    found = run(tmp_path, "", 2, processes=DEVICES, **fields)
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
