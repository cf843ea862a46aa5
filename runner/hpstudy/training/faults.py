"""What an exception of a rank says of its cause."""

import torch
import torch.distributed

_WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Of plain RuntimeErrors that torch raises where an allocator other than its caching one has nothing left."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether it, or the error that it was raised from, is one of memory: the host's or a GPU's."""
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS):
            return True
        error = error.__cause__
    return False


def lost_a_peer(error: BaseException) -> bool:
    """Whether the error only says that another rank is gone. Gloo raises plain RuntimeErrors that name its sources."""
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo/transport" in str(error)
    )
