"""Objective functions of the GPU check, which worker groups import as trials_on_gpu."""

import torch
import torch.distributed as dist

from hpstudy import Trial


def reduces(trial: Trial) -> dict[str, float]:
    """A sum over all ranks by NCCL, of bf16 numbers on each rank's own device."""
    torch.cuda.set_device(trial.device)
    dist.init_process_group("nccl", device_id=trial.device)
    part = torch.full((1024, 1024), trial.rank + 1.0, device=trial.device, dtype=torch.bfloat16)
    dist.all_reduce(part)
    return {"loss": part.float().mean().item(), "device": float(trial.device.index), "ranks": float(trial.world_size)}


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


def too_large(trial: Trial) -> float:
    """The first trial asks for more than any device has."""
    size = 2**45 if trial.number == 0 else 2**20
    return float(torch.zeros(size, dtype=torch.uint8, device=trial.device).sum())
