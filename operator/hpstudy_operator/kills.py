"""Worker groups whose pods are killed again and again, each judged by the trials that it begins itself: others may
train meanwhile."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hpstudy_operator.builders import BACKOFF_LIMIT
from hpstudy_operator.conditions import parse_time, timestamp
from hpstudy_operator.observe import Snapshot

MAX_KILLS = 4 * BACKOFF_LIMIT
"""Of a group that begins no trial while others do: about as many as the failures with which such a group fails the
study."""
MAX_RECORDS = 16
"""Groups of which the status remembers this: it stays small, and what kills so many kills them all."""

Record = Mapping[str, Any]
"""One of status.killedGroups."""


def kill_records(snapshot: Snapshot, moved: datetime | None, now: datetime) -> list[Record] | None:
    """Since when groups with killed pods have begun no trial; None where there is no such group.

    By the operator's clock and as often as it looks, from the number of trials that each has begun: the storage's times
    are of many machines' clocks.

    Args:
        moved: when a trial of the study last started or ended; of a group of which nothing is known, it was not later.
    """
    stored = snapshot.storage.snapshot if snapshot.storage else None
    if stored is None:
        return None
    known = {record["group"]: record for record in snapshot.status.get("killedGroups", [])}
    records: list[Record] = []
    for group in snapshot.groups:
        if group.job is None or not group.kills(None):
            continue
        begun, before = stored.begun.get(group.index, 0), known.get(group.index)
        if before is not None and before["trials"] == begun:
            records.append(before)
        else:
            made = parse_time(group.job["metadata"]["creationTimestamp"])
            since = now if before is not None else (moved or made)
            records.append({"group": group.index, "trials": begun, "since": timestamp(since)})
    return records[:MAX_RECORDS] or None
