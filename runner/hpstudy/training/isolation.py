"""Trials one after the other in the same process, of which none finds what another left."""

import gc
import os
import random
import sys
from dataclasses import dataclass
from typing import Any, Self

import numpy
import torch


@dataclass(frozen=True)
class Baseline:
    """The state of a process before its first trial, which each trial begins from."""

    environment: dict[str, str]
    generators: tuple[Any, ...]
    """Of Python, numpy and torch."""
    dtype: torch.dtype
    threads: int
    flags: tuple[Any, ...]
    """Of torch: what TrainingArguments of one trial switch on for the whole process."""

    @classmethod
    def take(cls) -> Self:
        """Take it once, when everything that trials share is in memory: what is there now is left out of all later
        collections of garbage, which would take 0.2 s each for the objects that imports made."""
        gc.collect()
        gc.freeze()
        return cls(
            environment=dict(os.environ),
            generators=(random.getstate(), numpy.random.get_state(), torch.get_rng_state()),
            dtype=torch.get_default_dtype(),
            threads=torch.get_num_threads(),
            flags=_flags(),
        )

    def release(self) -> None:
        """No trial comes any more: collect as usual."""
        gc.unfreeze()


def reset(baseline: Baseline) -> None:
    """End what a trial left: its garbage and GPU memory, the precision that accelerate keeps for the process, the
    generators, the environment and torch's flags. The process group stays."""
    _forget_accelerator()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()
    if dict(os.environ) != baseline.environment:
        os.environ.clear()
        os.environ.update(baseline.environment)
    python, of_numpy, of_torch = baseline.generators
    random.setstate(python)
    numpy.random.set_state(of_numpy)
    torch.set_rng_state(of_torch)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(baseline.dtype)
    if torch.get_num_threads() != baseline.threads:
        torch.set_num_threads(baseline.threads)
    _set_flags(baseline.flags)


def _forget_accelerator() -> None:
    """accelerate keeps one state for the whole process and refuses another mixed precision in it."""
    state = sys.modules.get("accelerate.state")
    if state is not None:
        state.AcceleratorState._reset_state()
        state.GradientState._reset_state()


def _flags() -> tuple[Any, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )


def _set_flags(flags: tuple[Any, ...]) -> None:
    if flags == _flags():
        return
    torch.use_deterministic_algorithms(flags[0], warn_only=flags[1])
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags[2:4]
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags[4:6]
