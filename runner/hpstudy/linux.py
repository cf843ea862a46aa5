"""What processes ask of Linux; see prctl(2)."""

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(number: signal.Signals) -> None:
    """Get this signal when the parent ends, so that a killed parent leaves nobody who trains on."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def reap_orphans() -> None:
    """Become the parent of descendants whose parents ended, as process 1 of a container is."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
