"""What the benchmarks' trials compute: nothing that takes time, so that what remains is what a trial costs."""

from pathlib import Path

import torch
import torch.distributed

from hpstudy import Trial


def parabola(x: float) -> float:
    return (x - 0.3) ** 2


def trivial(trial: Trial) -> float:
    """With several ranks, they meet once, as the first step of any training would."""
    if trial.world_size > 1:
        torch.distributed.init_process_group("gloo")
        torch.distributed.all_reduce(torch.ones(1))
    return parabola(trial.params["x"])


def with_memory(metrics: dict[str, float]) -> dict[str, float]:
    """Beside the metrics of an evaluation, the memory of this process that it shares with no other."""
    return {"eval_loss": metrics["eval_loss"], "private_mib": private_mib()}


def private_mib() -> float:
    """From the kernel's own account (proc_pid_smaps(5))."""
    fields = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) / 1024
