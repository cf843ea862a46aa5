"""Trials one after the other in the same process, of which none finds what another left."""

import gc
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy
import numpy.random  # which numpy puts off, and every fork would import anew
import torch
from torch.distributed import distributed_c10d

from hpstudy.training.precision import Precision

_SEED = 0


@dataclass(frozen=True)
class Baseline:
    """The state of a process before its first trial, which each trial begins from."""

    environment: dict[str, str]
    folder: str
    """The working directory."""
    generators: tuple[Any, ...]
    """Of Python, numpy and torch."""
    dtype: torch.dtype
    device: torch.device | None
    """On which tensors are made; None where nobody said."""
    threads: int
    flags: tuple[bool, ...]
    """Of torch, for the whole process."""
    precision: Precision

    @classmethod
    def take(cls) -> Self:
        """Take it once, when everything that trials share is in memory: what is there now is left out of all later
        collections of garbage, which would take 0.2 s each for the objects that imports made."""
        gc.collect()
        gc.freeze()
        return cls(
            environment=dict(os.environ),
            folder=str(Path.cwd()),
            generators=(random.getstate(), numpy.random.get_state(), torch.get_rng_state()),
            dtype=torch.get_default_dtype(),
            device=_default_device(),
            threads=torch.get_num_threads(),
            flags=_flags(),
            precision=Precision.take(),
        )

    def release(self) -> None:
        """No trial comes any more: collect as usual."""
        gc.unfreeze()


def reset(baseline: Baseline) -> None:
    """End what a trial left: its garbage and GPU memory, the precision that accelerate keeps for the process, the
    generators, the environment, the working directory and torch's flags. The process group stays."""
    _forget_accelerator()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()  # torch keeps 8 to 32 MiB for each stream that multiplied
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()
    if dict(os.environ) != baseline.environment:
        os.environ.clear()
        os.environ.update(baseline.environment)
    os.chdir(baseline.folder)
    python, of_numpy, of_torch = baseline.generators
    random.setstate(python)
    numpy.random.set_state(of_numpy)
    torch.set_rng_state(of_torch)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(torch.initial_seed())
    torch.set_grad_enabled(True)
    torch.set_default_dtype(baseline.dtype)
    if _default_device() != baseline.device:
        torch.set_default_device(baseline.device)
    if torch.get_num_threads() != baseline.threads:
        torch.set_num_threads(baseline.threads)
    if _flags() != baseline.flags:
        _set_flags(*baseline.flags)
    baseline.precision.restore()


def seed_generators() -> None:
    """Begin from one seed, where a trial has no other: what it draws must not depend on which process it is in. Python
    seeds its own generator anew in every fork."""
    random.seed(_SEED)
    numpy.random.seed(_SEED)
    torch.manual_seed(_SEED)


def leave_process_group() -> None:
    """End the process group that a trial made, on all ranks at the same place; the next makes one of its own."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    _forget_process_group()


def abandon_process_group() -> None:
    """End it on a rank that failed, so that those that wait for it in a collective fail, too."""
    if torch.distributed.is_initialized():
        distributed_c10d._abort_process_group()  # NCCL's operations that never end would hold up destroy_process_group
    _forget_process_group()
    gc.collect()  # gloo hangs up when nothing holds the group any more


def _forget_process_group() -> None:
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].PartialState._reset_state()
    # DeepSpeed keeps the groups that it has made, and its own of all ranks, for the process.
    deepspeed: Any = sys.modules.get("deepspeed")
    release = getattr(deepspeed.utils.groups, "_release_process_group_references", None) if deepspeed else None
    if release is not None:  # older ones cannot
        deepspeed.comm.comm.cdb = None
        release()


def _forget_accelerator() -> None:
    """accelerate keeps one state for the whole process and refuses another mixed precision in it."""
    state = sys.modules.get("accelerate.state")
    if state is not None:
        state.AcceleratorState._reset_state()
        state.GradientState._reset_state()


def _default_device() -> torch.device | None:
    """torch.get_default_device knows no None, and opens CUDA to say which GPU "cuda" is."""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def _flags() -> tuple[bool, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.is_anomaly_enabled(),
        torch.is_anomaly_check_nan_enabled(),
        sys.float_info.min / 2 == 0,  # flushing of denormals: torch cannot tell, but it is the whole thread's
    )


def _set_flags(
    deterministic: bool,
    warn_only: bool,
    cudnn_deterministic: bool,
    cudnn_benchmark: bool,
    anomaly: bool,
    check_nan: bool,
    flush_denormal: bool,
) -> None:
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn_deterministic, cudnn_benchmark
    torch.autograd.set_detect_anomaly(anomaly, check_nan)
    torch.set_flush_denormal(flush_denormal)
