"""Names of metrics, which trials report with the Trainer's prefix and people write without it, or the reverse."""

from collections.abc import Mapping
from typing import Any

DEFAULT_OBJECTIVE = "objective"
"""Metric of an objective that names none."""
TEST_PREFIX = "test_"
"""Metrics on data that no trial is judged by."""
_PREFIX = "eval_"


def find_metric(metrics: Mapping[str, Any], name: str) -> Any:
    """The metric of this name, or else of this name with ``eval_`` put before it or taken away; None where there is
    none. Never a ``test_`` metric by way of another name."""
    if name in metrics:
        return metrics[name]
    other = name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else _PREFIX + name
    return None if other.startswith(TEST_PREFIX) else metrics.get(other)


def canonical(name: str) -> str:
    """One name for both spellings."""
    return name.removeprefix(_PREFIX)
