"""What processes ask of Linux; see prctl(2)."""

import ctypes
import os
import signal
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


def be_killed_first() -> None:
    """When memory is short, the kernel ends this process before those that started it, which know what to do then."""
    with suppress(OSError):
        _OOM_SCORE.write_text(str(min(1000, int(_OOM_SCORE.read_text()) + _OOM_STEP)))
