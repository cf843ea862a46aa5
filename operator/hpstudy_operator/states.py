"""What the conditions of a study say that is not over."""

from datetime import datetime

from hpstudy.api import reasons
from hpstudy_operator.conditions import State
from hpstudy_operator.groups import Finding
from hpstudy_operator.observe import Snapshot
from hpstudy_operator.stalls import ending_stall
from hpstudy_operator.storages import StorageView


def accepted_state() -> State:
    """Of a study that may run."""
    return State("Accepted", "True", reasons.ACCEPTED, "the study can run as written")


def storage_state(storage: StorageView) -> State:
    """What is known of its storage."""
    return State(
        "StorageReady",
        "True" if storage.reason == reasons.STORAGE_READY else "False",
        storage.reason,
        storage.message,
    )


def unfinished_states(
    snapshot: Snapshot, stall: Finding | None, now: datetime, *, leaving: str = "", will_start: bool = False
) -> list[State]:
    """The conditions of a study that is not over.

    Args:
        stall: what holds it up, unless it is suspended.
        leaving: what is to be said of groups that end.
    """
    return [
        *(_suspended(snapshot, now) if snapshot.is_suspended else _at_work(snapshot, stall, leaving, will_start)),
        State("Succeeded", "False", reasons.NOT_FINISHED, "the study is not over"),
        State("Failed", "False", reasons.NOT_FAILED, "the study has not failed"),
    ]


def _suspended(snapshot: Snapshot, now: datetime) -> list[State]:
    stall = ending_stall(snapshot, now)
    ending = sum(group.ending_pods for group in snapshot.groups)
    rest = f"; {ending} of its pods still end, and hand back what they train" if ending else ""
    return [
        State("Running", "False", reasons.SUSPENDED, f"the study is suspended{rest}"),
        State("Suspended", "True", reasons.SUSPENDED, "set spec.suspend to false, and the study goes on"),
        State("Stalled", "True", stall.reason, stall.message)
        if stall
        else State("Stalled", "False", reasons.SUSPENDED, "the study is suspended"),
    ]


def _at_work(snapshot: Snapshot, stall: Finding | None, leaving: str, will_start: bool) -> list[State]:
    ready = sum(1 for group in snapshot.groups if group.is_ready)
    active = [group for group in snapshot.groups if group.is_active]
    if ready:
        message = f"{ready} of {len(active)} worker groups ready{leaving}"
        running = State("Running", "True", reasons.TRIALS_RUNNING, message)
    elif active or will_start:
        held = any(group.is_held for group in active)
        message = "the Jobs are suspended until they are admitted" if held else "no worker group is ready yet"
        running = State("Running", "False", reasons.WAITING_FOR_WORKERS, message)
    elif any(group.leftovers for group in snapshot.groups):
        message = "the pods that ran before still end; then others start"
        running = State("Running", "False", reasons.WAITING_FOR_WORKERS, message)
    else:
        running = State("Running", "False", reasons.NOT_STARTED, "the other conditions say what is missing")
    return [
        running,
        State("Suspended", "False", reasons.NOT_SUSPENDED, "the study is not suspended"),
        State("Stalled", "True", stall.reason, stall.message)
        if stall
        else State("Stalled", "False", reasons.PROGRESSING, "nothing holds the study up"),
    ]
