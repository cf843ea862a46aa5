"""What an exception of a rank says of its cause."""

import re

import torch
import torch.distributed

_WORDS = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory"
    r"|(CUDA|HIP)( driver)? error: out of memory"
    r"|(Cuda|HIP) failure (\d+ )?'out of memory'"  # of NCCL and RCCL, in a DistBackendError
    r"|Triton Error \[(CUDA|HIP)\]: out of memory"
    r"|(CUBLAS|HIPBLAS|CUDNN)_STATUS_ALLOC_FAILED"
    r"|No executable batch size found"  # of accelerate, where even one row needs too much
)
"""Of RuntimeErrors where an allocator other than torch's caching one has nothing left."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether it, or the error that it was raised from, is one of memory: the host's or a GPU's."""
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and _WORDS.search(str(error)):
            return True
        error = error.__cause__
    return False


def lost_a_peer(error: BaseException) -> bool:
    """Whether the error only says that another rank is gone. Gloo raises plain RuntimeErrors that name its sources;
    NCCL's errors are of one class, those of this rank's memory too."""
    if is_out_of_memory(error):
        return False
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo/transport" in str(error)
    )
