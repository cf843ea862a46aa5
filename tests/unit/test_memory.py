"""When memory ran out. The kernel's own count is tried with a real control group in tests/ranks/test_faults.py."""

from pathlib import Path

import pytest
import torch
from accelerate.utils import find_executable_batch_size

from hpstudy.storage.attributes import Failure
from hpstudy.training.faults import is_out_of_memory, lost_a_peer
from hpstudy.trials.causes import Cause, Kind
from hpstudy.worker.memory import OomKills

KILLED = "rank 1 was ended by SIGKILL"


def even_a_batch_of_one_is_too_much() -> Exception:
    @find_executable_batch_size(starting_batch_size=2)
    def train(batch_size: int) -> None:
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {batch_size} GiB")

    with pytest.raises(RuntimeError) as error:
        train()
    return error.value


def wrapped(error: Exception) -> Exception:
    try:
        raise ValueError("step 3") from error
    except ValueError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA driver error: out of memory"), True),
        (RuntimeError("HIP error: out of memory\nHIP kernel errors might be asynchronously reported"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (MemoryError(), True),
        (wrapped(MemoryError()), True),
        (even_a_batch_of_one_is_too_much(), True),
        (wrapped(KeyError("lr")), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory of what was said"), False),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("last_error", "oom"),
    [
        ("Cuda failure 2 'out of memory'", True),
        ("Cuda failure 'out of memory'", True),  # of older ones
        ("HIP failure 'out of memory'", True),
        ("Cuda failure 719 'unspecified launch failure'", False),
        ("socketPollConnect: connect to 10.0.0.2<40001> returned Connection refused", False),
    ],
)
def test_what_nccl_says_of_this_rank_s_memory_is_no_lost_peer(last_error: str, oom: bool) -> None:
    head = "NCCL error in: ProcessGroupNCCL.cpp:77, unhandled cuda error (run with NCCL_DEBUG=INFO for details)\n"
    error = torch.distributed.DistBackendError(
        f"{head}ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n{last_error}"
    )
    assert (is_out_of_memory(error), lost_a_peer(error)) == (oom, not oom)


def test_a_lost_peer_because_of_memory_is_told_as_memory() -> None:
    with pytest.raises(torch.distributed.DistBackendError) as caught:
        raise torch.distributed.DistBackendError("the collective ended") from torch.OutOfMemoryError(
            "CUDA out of memory"
        )
    assert not lost_a_peer(caught.value)


@pytest.mark.parametrize(
    ("membership", "counter", "limit"),
    [
        ("0::/", "memory.events", "memory.max"),
        ("0::/user.slice/a", "user.slice/a/memory.events", "user.slice/a/memory.max"),
        ("4:memory:/kubepods/b\n0::/", "memory/memory.oom_control", "memory/memory.limit_in_bytes"),
    ],
)
@pytest.mark.parametrize(
    ("killed", "words", "expected"),
    [
        (True, KILLED, (Failure.OOM, f"{KILLED}: out of memory, the container may use 2 GiB")),
        (True, "ValueError: no luck", (Failure.ERROR, "ValueError: no luck")),
        (False, KILLED, (Failure.ERROR, KILLED)),
    ],
)
def test_a_kill_is_of_memory_where_the_kernel_counted_one(
    tmp_path: Path, membership: str, counter: str, limit: str, killed: bool, words: str, expected: tuple[Failure, str]
) -> None:
    """In a container the group's files are at the root, whatever its membership says."""
    (tmp_path / counter).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / counter).write_text("low 0\noom 3\noom_kill 3\n")
    (tmp_path / limit).write_text(f"{2**31}\n")
    (tmp_path / "membership").write_text(membership + "\n")
    kills = OomKills(tmp_path, tmp_path / "membership")
    if killed:
        (tmp_path / counter).write_text("low 0\noom 4\noom_kill 4\n")
    explained = kills.explain(Cause(rank=1, kind=Kind.KILLED, message=words, at=0))
    assert explained is not None
    assert (explained.failure, explained.message) == expected


def test_without_control_groups_nothing_is_known(tmp_path: Path) -> None:
    cause = Cause(rank=1, kind=Kind.KILLED, message=KILLED, at=0)
    assert OomKills(tmp_path, tmp_path / "none").explain(cause) == cause
