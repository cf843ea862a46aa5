"""What one trial gets of a pod that several share."""

import os

import torch

from hpstudy.training.devices import count_gpus, forget_count
from hpstudy.trials.messages import Run
from hpstudy.worker.cpu import available_cpus

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def take_share(run: Run, processes: int) -> None:
    """Give this rank its share: threads, and the GPUs of the trial's slot. Before it does anything in parallel or on a
    GPU; what the environment says of threads goes before.

    Args:
        processes: ranks of the trial in this pod.
    """
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, available_cpus() // (processes * run.slots)))
    torch.set_num_threads(threads)  # the parent keeps to one: see worker/supervisor.py
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # accelerate chooses anew where it is not set
    gpus = count_gpus() if run.slots > 1 else 0  # as the parent knows: asking CUDA here would fix what is visible
    if gpus > processes:
        visible = os.environ.get(_VISIBLE) or ",".join(map(str, range(gpus)))
        os.environ[_VISIBLE] = ",".join(gpus_of_slot(visible.split(",")[:gpus], run.slot, processes))
    forget_count()


def gpus_of_slot(gpus: list[str], slot: int, processes: int) -> list[str]:
    """One GPU for each rank, those of the next slot after those of the one before, round and round."""
    return [gpus[(slot * processes + rank) % len(gpus)] for rank in range(processes)]
