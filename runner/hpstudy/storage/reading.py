"""What a study has reached, read with a few queries and without loading its trials."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from sqlalchemy import DateTime, text
from sqlalchemy.engine import Connection

from hpstudy.api.status import BestTrial, TrialCounts, WarmStartCounts
from hpstudy.api.study import AUTO, StudySpec
from hpstudy.storage import attributes
from hpstudy.storage.best import Best, read_best
from hpstudy.storage.errors import storage_errors
from hpstudy.storage.limits import Spent, read_goal, read_spent, still_reached
from hpstudy.storage.settings import Settings


@dataclass(frozen=True)
class Stop:
    """Why a study is over before its budget is."""

    reason: str
    message: str


@dataclass(frozen=True)
class Tally:
    """What a study has spent, and what was decided about it."""

    counts: TrialCounts = field(default_factory=TrialCounts)
    stop: Stop | None = None
    goal: str | None = None
    """Which trial reached the goals of the objectives, in words."""
    spent: Spent = field(default_factory=Spent)
    """Of its time and its GPUs, where the budget limits these."""
    limit: str | None = None
    """The reason that says which of these limits was reached."""
    last_failure: str | None = None
    """Number, class and message of the trial that failed last."""
    sampler: str | None = None
    """The sampler by name; one that was chosen for it, with the reason."""
    warm_start: WarmStartCounts | None = None
    """What was taken from other studies."""
    running_groups: frozenset[int] = frozenset()
    """Worker groups with running trials."""
    settings: Settings | None = None
    """What the operator tells the workers, where there is one."""


@dataclass(frozen=True)
class StudySnapshot(Tally):
    """The state of a study in the storage, with its best trials."""

    best: tuple[BestTrial, ...] = ()
    """The best trials, or the Pareto front; bounded."""
    front_size: int | None = None
    """With several objectives: trials on the front."""
    hypervolume: float | None = None
    """Between the front and the objectives' references, where all have one."""
    longest: float | None = None
    """Seconds that the longest of the latest trials took, where it was asked for."""
    begun: Mapping[int, int] = field(default_factory=dict)
    """Trials that each worker group has begun, where it was asked for."""
    weighted: BestTrial | None = None
    """With several objectives and ``scalarize``: the trial of the front that is best by that."""

    @property
    def winner(self) -> BestTrial | None:
        """The one best trial; None where there is none, or nothing says which of a front it is."""
        if self.front_size is not None:
            return self.weighted
        return self.best[0] if self.best else None


# Trials that were taken from another study are nobody's result. PostgreSQL does not unite its enumeration of states
# with text, and no type to cast it to has the same name everywhere.
_TALLY = text(
    """
    select case t.state when 'COMPLETE' then 'COMPLETE' when 'PRUNED' then 'PRUNED' when 'RUNNING' then 'RUNNING'
        when 'WAITING' then 'WAITING' else 'FAIL' end, a.value_json, b.value_json, count(*) from trials t
    join studies s on s.study_id = t.study_id
    left join trial_user_attributes a on a.trial_id = t.trial_id
        and a.key = case t.state when 'FAIL' then :failure when 'RUNNING' then :group end
    left join trial_user_attributes b on b.trial_id = t.trial_id and b.key = :again
    left join trial_user_attributes w on w.trial_id = t.trial_id and w.key = :taken
    where s.study_name = :study and w.trial_id is null group by t.state, a.value_json, b.value_json
    union all
    select a.key, a.value_json, null, 0 from study_user_attributes a
    join studies s on s.study_id = a.study_id
    where s.study_name = :study and a.key in (:stopped, :limit, :sampler, :seeded, :settings)
    """
)
_LAST_FAILURE = text(
    """
    select t.number, f.value_json, a.value_json from trials t
    join studies s on s.study_id = t.study_id
    join trial_user_attributes a on a.trial_id = t.trial_id and a.key = :message
    join trial_user_attributes f on f.trial_id = t.trial_id and f.key = :failure
    left join trial_user_attributes b on b.trial_id = t.trial_id and b.key = :again
    where s.study_name = :study and t.state = 'FAIL' and b.trial_id is null
    order by t.datetime_complete desc, t.number desc limit 1
    """
)
_BEGUN = text(
    """
    select a.value_json, count(*) from trials t
    join studies s on s.study_id = t.study_id
    join trial_user_attributes a on a.trial_id = t.trial_id and a.key = :group
    left join trial_user_attributes w on w.trial_id = t.trial_id and w.key = :taken
    where s.study_name = :study and w.trial_id is null group by a.value_json
    """
)
_LATEST = 1000
"""Trials of which the longest is looked for."""
_DURATIONS = text(
    """
    select t.datetime_start, t.datetime_complete from trials t
    join studies s on s.study_id = t.study_id
    left join trial_user_attributes w on w.trial_id = t.trial_id and w.key = :taken
    where s.study_name = :study and t.state in ('COMPLETE', 'PRUNED') and w.trial_id is null
        and t.datetime_start is not null
    order by t.number desc limit :limit
    """
).columns(datetime_start=DateTime, datetime_complete=DateTime)


def read_tally(connection: Connection, study: str, spec: StudySpec) -> Tally:
    """Trials of the study by state, all zero when the storage does not know it, and the study's own attributes."""
    counts = dict.fromkeys(TrialCounts.model_fields, 0)
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "running", "WAITING": "waiting"}
    decided: dict[str, Mapping[str, Any]] = {}
    keys = {
        "failure": attributes.FAILURE,
        "taken": attributes.TAKEN_FROM,
        "stopped": attributes.STOPPED,
        "limit": attributes.LIMIT,
        "sampler": attributes.SAMPLER,
        "seeded": attributes.SEEDED,
        "settings": attributes.SETTINGS,
        "group": attributes.GROUP,
        "again": attributes.AGAIN,
    }
    running: set[int] = set()
    for state, value, again, number in connection.execute(_TALLY, {"study": study, **keys}):
        if state.startswith(attributes.PREFIX):
            decided[state] = json.loads(value)
            continue
        if state == "RUNNING" and value is not None:
            running.add(json.loads(value))
        counts[names.get(state) or _kind_of_failure(value, again)] += number
        counts["total"] += number
    stopped, chosen = decided.get(attributes.STOPPED), decided.get(attributes.SAMPLER)
    seeded = decided.get(attributes.SEEDED, {})
    settings = Settings.parse(found) if (found := decided.get(attributes.SETTINGS)) else None
    if settings is not None:
        spec = settings.over(spec)
    timed = spec.budget.timeout is not None or spec.budget.gpu_hours is not None
    return Tally(
        TrialCounts(**counts),
        stop=Stop(stopped["reason"], stopped["message"]) if stopped and _holds(stopped, spec) else None,
        goal=read_goal(connection, study, spec.objectives) if counts["complete"] else None,
        spent=read_spent(connection, study) if timed else Spent(),
        limit=still_reached(decided.get(attributes.LIMIT), spec.budget),
        last_failure=_last_failure(connection, study) if counts["failed"] else None,
        sampler=_sampler(chosen, spec),
        warm_start=WarmStartCounts.model_validate(seeded["warmStart"]) if seeded.get("warmStart") else None,
        running_groups=frozenset(running),
        settings=settings,
    )


def _kind_of_failure(failure: str | None, again: str | None) -> str:
    if again is None:
        return "failed"
    return "preempted" if failure is not None and json.loads(failure) in attributes.WORKER_ENDED else "retried"


def _sampler(chosen: Mapping[str, Any] | None, spec: StudySpec) -> str | None:
    """The one that the study names now, whatever was chosen for it before."""
    if spec.sampler is not None and spec.sampler.name != AUTO:
        return spec.sampler.name
    return f"{chosen['name']}: {chosen['why']}" if chosen else None


def _holds(stopped: Mapping[str, Any], spec: StudySpec) -> bool:
    """Whether the study is still over. That all points are tried is so for that very sampler alone. An end by stopWhen
    is one of that very rule, and of that very budget: who raises maxTrials asks for more trials than there were when it
    said enough."""
    if "sampler" in stopped:
        return bool(stopped["sampler"] == (spec.sampler and spec.sampler.model_dump(mode="json")))
    if "stopWhen" not in stopped:
        return True
    now = None if spec.stop_when is None else spec.stop_when.model_dump(mode="json", by_alias=True)
    return bool(stopped["stopWhen"] == now and spec.budget.max_trials <= stopped["maxTrials"])


def _last_failure(connection: Connection, study: str) -> str | None:
    """The number, class and message of the trial that failed last and does not run again."""
    keys = {"message": attributes.MESSAGE, "failure": attributes.FAILURE, "again": attributes.AGAIN}
    row = connection.execute(_LAST_FAILURE, {"study": study, **keys}).first()
    return None if row is None else f"trial {row[0]}, {json.loads(row[1])}: {json.loads(row[2])}"


def read_snapshot(
    storage: optuna.storages.RDBStorage, study: str, spec: StudySpec, known: StudySnapshot | None = None
) -> StudySnapshot:
    """Read counts, best trials or Pareto front, and the last failure.

    Args:
        known: an earlier one of the same study and spec: what cannot have changed since is not read again.

    Raises:
        StorageUnreachableError: the database does not answer.
    """
    with storage_errors(), storage.engine.connect() as connection:
        return read_from(connection, study, spec, known)


def read_from(connection: Connection, study: str, spec: StudySpec, known: StudySnapshot | None = None) -> StudySnapshot:
    """The same, on a connection."""
    tally = read_tally(connection, study, spec)
    # A trial that has ended changes no more: without another, what was read of the best still holds.
    if known is not None and tally.counts.complete == known.counts.complete:
        best = Best(known.best, known.front_size, known.hypervolume, known.weighted)
    else:
        best = read_best(connection, study, spec)
    return StudySnapshot(
        **vars(tally),
        best=best.trials,
        front_size=best.front_size,
        hypervolume=best.hypervolume,
        weighted=best.weighted,
    )


def begun_trials(connection: Connection, study: str) -> dict[int, int]:
    """How many trials each worker group has begun."""
    keys = {"study": study, "group": attributes.GROUP, "taken": attributes.TAKEN_FROM}
    return {int(json.loads(group)): count for group, count in connection.execute(_BEGUN, keys)}


def longest_trial(connection: Connection, study: str) -> float | None:
    """Seconds that the longest of the latest trials took that ended with values or were pruned; None: there is none."""
    rows = connection.execute(_DURATIONS, {"study": study, "taken": attributes.TAKEN_FROM, "limit": _LATEST})
    return max(((ended - begun).total_seconds() for begun, ended in rows), default=None)
