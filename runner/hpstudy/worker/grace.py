"""How long a pod that was told to stop has."""

import os

from hpstudy.api.names import DEFAULT_GRACE_SECONDS, GRACE_VARIABLE


def grace_seconds() -> float:
    """From SIGTERM to SIGKILL, as the pod's template says."""
    return float(os.environ.get(GRACE_VARIABLE, DEFAULT_GRACE_SECONDS))
