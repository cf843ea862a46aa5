"""What processes ask of Linux; see prctl(2)."""

import ctypes
import os
import signal
import time
from collections.abc import Container
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_OOM_STEP = 500
"""Half of the memory that there is, as the kernel's choice of whom to kill counts it: more than ranks and their parents
differ by."""


def die_with_parent(number: signal.Signals) -> None:
    """Get this signal when the parent ends, so that a killed parent leaves nobody who trains on."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def watch(process: BaseProcess) -> int:
    """A descriptor that is readable once this child has ended; the caller closes it, where it is not the child's own.

    The child's own ``sentinel`` is a pipe, which stays open for as long as any fork of the child's lives.
    """
    assert process.pid is not None
    try:
        return os.pidfd_open(process.pid)
    except OSError:  # a kernel or a container's seccomp profile without it
        return process.sentinel


def reap_orphans() -> None:
    """Become the parent of descendants whose parents ended, as process 1 of a container is."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children() -> set[int]:
    """Processes whose parent this one is, also those whose own has ended; among them such as only wait to be reaped."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found.update(map(int, path.read_text().split()))
    return found


def end_children(keep: Container[int], seconds: float = 5.0) -> list[str]:
    """End and reap the children that are not to be kept, and theirs, which become this process's own.

    Args:
        seconds: for which to wait at most: one that waits for a dead disk cannot be ended.

    Returns:
        The names of those that were running.
    """
    names: dict[int, str] = {}
    deadline = time.monotonic() + seconds
    while (strays := [pid for pid in children() if pid not in keep]) and time.monotonic() < deadline:
        for pid in strays:
            with suppress(OSError):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    names.setdefault(pid, Path(f"/proc/{pid}/comm").read_text().strip())
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)
    return list(names.values())


def be_killed_first() -> None:
    """When memory is short, the kernel ends this process before those that started it, which know what to do then."""
    with suppress(OSError):
        _OOM_SCORE.write_text(str(min(1000, int(_OOM_SCORE.read_text()) + _OOM_STEP)))
