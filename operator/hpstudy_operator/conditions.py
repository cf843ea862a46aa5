"""Conditions as the Kubernetes API conventions want them.

https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from hpstudy.api.status import CONDITION_TYPES

MAX_MESSAGE = 2000
"""Characters: a driver's or a kubelet's error in full, and a status that stays small."""

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class State:
    """What a condition should say."""

    type: str
    status: Status
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Change:
    """A condition that says something new: an event."""

    state: State
    warning: bool


def timestamp(now: datetime) -> str:
    """As metav1.Time."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(stamp: str) -> datetime:
    """A time of the API server's."""
    return datetime.fromisoformat(stamp)


def merge(
    previous: Sequence[dict[str, Any]], states: Iterable[State], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The conditions with these states; what is not mentioned stays as it was. lastTransitionTime changes with the
    status alone."""
    by_type = {condition["type"]: condition for condition in previous}
    for state in states:
        before = by_type.get(state.type)
        unchanged = before is not None and before["status"] == state.status
        by_type[state.type] = {
            "type": state.type,
            "status": state.status,
            "reason": state.reason,
            "message": shorten(state.message),
            "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else timestamp(now),
            "observedGeneration": generation,
        }
    return [by_type[name] for name in CONDITION_TYPES if name in by_type]


def changes(previous: Sequence[dict[str, Any]], current: Sequence[dict[str, Any]]) -> list[Change]:
    """What is worth an event: a status that changed, and a trouble that got another reason. Not what a new study starts
    with (not stalled, not failed), not a message that says the same in other words, and not twice what two conditions
    say (Running and Suspended)."""
    before = {condition["type"]: condition for condition in previous}
    result: list[Change] = []
    for condition in current:
        old = before.get(condition["type"])
        state = State(condition["type"], condition["status"], condition["reason"], condition["message"])
        warning = is_trouble(state)
        if old is None:
            new = state.status == "True" or warning
        else:
            new = old["status"] != state.status or (warning and old["reason"] != state.reason)
        if new and state.reason not in {change.state.reason for change in result}:
            result.append(Change(state, warning))
    return result


def is_trouble(state: State) -> bool:
    """Whether somebody should look."""
    bad = {"Accepted": "False", "StorageReady": "False", "Stalled": "True", "Failed": "True"}
    return bad.get(state.type) == state.status


def is_true(status: dict[str, Any], name: str, generation: int | None = None) -> bool:
    """Whether a condition holds and, if a generation is given, is about it."""
    return any(
        condition["type"] == name
        and condition["status"] == "True"
        and (generation is None or condition.get("observedGeneration") == generation)
        for condition in status.get("conditions", [])
    )


def shorten(message: str) -> str:
    """A message that fits into a status."""
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
