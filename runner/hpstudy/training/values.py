"""What a trial may report: checked on its own rank, so that the error says where it comes from."""

import operator
from collections.abc import Mapping
from typing import Any

LAST_STEP = 2**31 - 1
"""PostgreSQL's and MariaDB's integers go so far."""


def plain(value: Any) -> Any:
    """Tensors and arrays as Python's own numbers and lists; one of a single element is a number."""
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    found = value.tolist() if hasattr(value, "tolist") else value
    while found is not value and isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found


def check_step(step: Any) -> int:
    """The step of a report, as a whole number of Python's own.

    Raises:
        ValueError: it is none, or none that every storage can hold.
    """
    try:
        whole = int(step) if isinstance(step, float) and step.is_integer() else operator.index(step)
    except TypeError:
        whole = -1
    if not 0 <= whole <= LAST_STEP:
        raise ValueError(
            f"trial.report: step must be a whole number from 0 to {LAST_STEP}, got {_shown(step)}; count epochs, or "
            "steps of training"
        )
    return whole


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Check that every number is one that can be compared and recorded. NaN and infinities are no fault here.

    Raises:
        ValueError: one is not.
    """
    for name, value in metrics.items():
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, int):
                try:
                    float(each)
                except OverflowError:
                    raise ValueError(
                        f"metric {name!r} is a whole number of {each.bit_length()} bits, too large for a float; report "
                        "a smaller one (its logarithm, say)"
                    ) from None


def _shown(value: Any) -> str:
    return f"one of {value.bit_length()} bits" if isinstance(value, int) and abs(value) > 10**30 else f"{value!r:.80}"
