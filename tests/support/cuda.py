"""torch as it is where it was built for CUDA and NVML cannot say how many GPUs there are, on a machine that has none.

The torch of tests is built for CPUs, and NVML is not there: what is missing is CUDA's own count, and that asking for it
spoils every later fork. torch has one handler of forks for all kinds of devices; here that of another kind, which CPU
builds have, is CUDA's. All else is torch's own, ``torch.cuda.init`` among it.
"""

import os
from functools import cache

import torch

VARIABLE = "TEST_GPUS"
"""In a group's environment: how many GPUs its pods believe to have."""
WITHOUT_NVML = "TEST_WITHOUT_NVML"
"""In a group's environment: torch on a GPU finds no NVML."""


def lose_nvml() -> None:
    """Have torch ask CUDA itself for its GPUs, in this process and its forks."""
    torch.cuda._device_count_nvml = lambda: -1


def pretend_gpus(count: int) -> None:
    """Be such a torch, with so many GPUs, in this process and its forks."""

    @cache  # CUDA reads the variable once
    def asks_cuda() -> int:
        if not torch._C._mtia_isInBadFork():  # which CUDA's count does not mind
            torch._C._mtia_init()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return count if visible is None else len(visible.split(","))

    torch._C._cuda_getDeviceCount = asks_cuda
    torch.cuda._is_in_bad_fork = torch._C._mtia_isInBadFork
