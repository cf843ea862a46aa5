"""The GPUs that torch sees, asked for without opening CUDA in this process, whose forks are to open it."""

import os
from collections.abc import Callable
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""Variables that the answer depends on: a user's module may set one when it is imported."""


def count_gpus() -> int:
    """How many GPUs torch sees. For the warm parent of ranks, and for them until they ask torch themselves.

    torch asks NVML, and CUDA itself where NVML cannot say: a MIG slice by its name, a machine without NVML, ROCm
    without amdsmi. No process that is forked after that can open CUDA. So a fork asks, once for each set of visible
    devices, and torch gives its answer to all who ask here, what is imported among them.
    """
    if not torch.cuda._is_compiled():  # a build for CPUs alone
        return 0
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.device_count()
    gpus = _count(tuple(map(os.environ.get, _VISIBLE)))
    torch.cuda._cached_device_count = gpus
    return gpus


def forget_count() -> None:
    """Let torch ask for itself again: in a process that may open CUDA, and choose among the GPUs before it does."""
    torch.cuda._cached_device_count = None


def has_opened_cuda() -> bool:
    """Whether this process has opened CUDA, or asked it anything, so that none that is forked from it can open it.

    torch registers its handler of forks before its first call of CUDA, and the handler acts in the child.
    """
    return torch.cuda.is_initialized() or bool(_ask_a_fork(_is_in_bad_fork))  # type: ignore[no-untyped-call]


@cache
def _count(visible: tuple[str | None, ...]) -> int:
    return _ask_a_fork(_device_count)


def _device_count() -> int:
    forget_count()  # of other visible devices
    return torch.cuda.device_count()


def _is_in_bad_fork() -> int:
    return int(torch.cuda._is_in_bad_fork())


def _ask_a_fork(question: Callable[[], int]) -> int:
    context = get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(writer, question))
    process.start()
    writer.close()
    try:
        return int(reader.recv_bytes())
    except EOFError:
        process.join()
        raise RuntimeError(f"asking torch for GPUs in a fork ended with exit code {process.exitcode}") from None
    finally:
        reader.close()
        process.kill()
        process.join()


def _answer(writer: "Connection[bytes, bytes]", question: Callable[[], int]) -> None:
    writer.send_bytes(str(question()).encode())
