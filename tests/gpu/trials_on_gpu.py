"""Objective functions of the GPU check, which worker groups import as trials_on_gpu."""

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist

from hpstudy import Trial

match os.environ.get("TEST_ON_IMPORT"):
    case "asks":
        torch._C._cuda_getDeviceCount()
    case "opens":
        torch.zeros(1, device="cuda")


def reduces(trial: Trial) -> dict[str, float]:
    """A sum over all ranks by NCCL, of bf16 numbers on each rank's own device."""
    torch.cuda.set_device(trial.device)
    dist.init_process_group("nccl", device_id=trial.device)
    part = torch.full((1024, 1024), trial.rank + 1.0, device=trial.device, dtype=torch.bfloat16)
    dist.all_reduce(part)
    return {"loss": part.float().mean().item(), "ranks": float(trial.world_size), "process": float(os.getpid())}


def raises_on_the_last_rank(trial: Trial) -> dict[str, float]:
    """In the first trial, while the others wait for it. Notes how long the trial took until then."""
    began = time.monotonic()
    torch.cuda.set_device(trial.device)
    dist.init_process_group("nccl", device_id=trial.device)
    part = torch.ones(1, device=trial.device)
    dist.all_reduce(part)
    torch.cuda.synchronize()
    if trial.number == 0 and trial.rank == trial.world_size - 1:
        Path(os.environ["TEST_FOLDER"], "seconds").write_text(str(time.monotonic() - began))
        raise ValueError(f"no luck on rank {trial.rank}")
    dist.all_reduce(part)
    return {"loss": part.item()}


def trains(trial: Trial) -> dict[str, float]:
    """Some steps of a model of 70 MB in bf16, and what the device held before: by this process, and in all."""
    free, total = torch.cuda.mem_get_info(trial.device)
    before = torch.cuda.memory_allocated(trial.device)
    model = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(16)]).to(trial.device, torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(3):
        loss = model(torch.randn(256, 1024, device=trial.device, dtype=torch.bfloat16)).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        trial.report({"loss": loss.item()}, step)
    # A cycle that only the garbage collector finds, as models with hooks are.
    model.itself = model
    return {"loss": loss.item(), "used_mib": (total - free) / 2**20, "allocated_mib": before / 2**20}


def trains_for_a_while(trial: Trial) -> dict[str, float]:
    """Long enough for as many others to start as there are GPUs. On which device, by its identity, and of how many."""
    metrics = trains(trial)
    time.sleep(4)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    uuid = str(torch.cuda.get_device_properties(trial.device).uuid).replace("-", "")[:12]
    return metrics | {
        "seen": torch.cuda.device_count(),
        "visible": float(visible) if visible.isdigit() else -1.0,
        "uuid": float(int(uuid, 16)),
    }


def too_large(trial: Trial) -> float:
    """The first trial asks for more than any device has."""
    size = 2**45 if trial.number == 0 else 2**20
    return float(torch.zeros(size, dtype=torch.uint8, device=trial.device).sum())
