"""The status of a study, from what was observed."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from hpstudy.api.status import StudyStatus, TrialCounts
from hpstudy.api.study import StudySpec
from hpstudy.storage.reading import StudySnapshot
from hpstudy_operator.conditions import State, merge, parse_time, timestamp
from hpstudy_operator.observe import Snapshot

_FROM_STORAGE = (
    "trials",
    "progress",
    "objectives",
    "sampler",
    "best",
    "bestTrials",
    "paretoFrontSize",
    "hypervolume",
    "warmStart",
)


def build_status(snapshot: Snapshot, states: Iterable[State], now: datetime, **fields: Any) -> dict[str, Any]:
    """The whole status.

    What is not known now stays as it was: a database that is away takes no trial from the status.

    Args:
        states: the conditions that are known now.
        fields: startTime, completionTime, workers; None removes one.
    """
    status = dict(snapshot.status)
    if snapshot.storage and snapshot.storage.snapshot and snapshot.study:
        for key in _FROM_STORAGE:
            status.pop(key, None)
        status |= _trials(snapshot.storage.snapshot, snapshot.study.spec)
        if moved := last_movement(snapshot, now):
            status["lastTrialTime"] = timestamp(moved)
    status |= fields
    status["observedGeneration"] = snapshot.generation
    status["conditions"] = merge(snapshot.status.get("conditions", []), states, snapshot.generation, now)
    return {key: value for key, value in status.items() if value is not None}


def last_movement(snapshot: Snapshot, now: datetime) -> datetime | None:
    """When a trial last started or ended, by the operator's clock and as often as it looks; None: none ever has. The
    storage has times too, but those are of many machines' clocks and time zones."""
    stored = snapshot.storage.snapshot if snapshot.storage else None
    known = snapshot.status.get("trials") or TrialCounts().model_dump()
    if stored is not None and stored.counts.model_dump() != known:
        return now
    recorded = snapshot.status.get("lastTrialTime")
    return parse_time(recorded) if recorded else None


def _trials(stored: StudySnapshot, spec: StudySpec) -> dict[str, Any]:
    finished = stored.counts.complete + stored.counts.pruned
    status = StudyStatus(
        trials=stored.counts,
        progress=f"{finished}/{spec.budget.max_trials}",
        objectives=", ".join(f"{objective.direction} {objective.metric}" for objective in spec.objectives),
        sampler=stored.sampler,
        best=_best(stored, spec),
        best_trials=list(stored.best),
        pareto_front_size=stored.front_size,
        hypervolume=stored.hypervolume,
        warm_start=stored.warm_start,
    )
    # By way of JSON, which has no infinity: the API server would refuse one.
    dumped: dict[str, Any] = json.loads(status.model_dump_json(by_alias=True, exclude_none=True))
    return {key: dumped[key] for key in _FROM_STORAGE if key in dumped}


def _best(stored: StudySnapshot, spec: StudySpec) -> str | None:
    if not stored.best:
        return "none within the constraints" if stored.counts.complete and spec.constraints else None
    if stored.front_size is not None:
        return f"{stored.front_size} on the front"
    return f"{stored.best[0].values[spec.objectives[0].metric]:.4g}"
