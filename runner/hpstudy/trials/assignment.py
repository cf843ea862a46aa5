"""A trial as it is handed to who runs it."""

from dataclasses import dataclass, field
from typing import Any

import optuna


@dataclass(frozen=True)
class Assignment:
    """A trial to run."""

    number: int
    parameters: dict[str, Any]
    continues: int | None
    """The trial whose last checkpoint it starts from, where there is one."""
    alone: bool  # nothing may run beside it
    trial: optuna.Trial = field(compare=False, repr=False)
