"""What a study has used of its time and its GPUs, and whether a trial is as good as its goals: a query each, which only
studies with such limits pay for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from hpstudy.api import reasons
from hpstudy.api.study import Budget, Objective
from hpstudy.storage import attributes
from hpstudy.storage.feasible import FEASIBLE, FEASIBLE_NAMES

# Optuna's columns are naive and in UTC.
_EPOCH = {
    "postgresql": "extract(epoch from {})",
    "sqlite": "(julianday({}) - 2440587.5) * 86400.0",
    "mysql": "timestampdiff(microsecond, '1970-01-01', {}) / 1e6",
}
_SPENT = """
    select min({start}),
    sum(case when t.datetime_complete is not null then {gpus} * ({end} - {start}) end),
    sum(case when t.state = 'RUNNING' then {gpus} end),
    sum(case when t.state = 'RUNNING' then {gpus} * {start} end)
    from trials t join studies s on s.study_id = t.study_id
    left join trial_user_attributes g on g.trial_id = t.trial_id and g.key = :gpus
    left join trial_user_attributes w on w.trial_id = t.trial_id and w.key = :taken
    where s.study_name = :study and w.trial_id is null and t.datetime_start is not null
"""
_GOALS = """
    select t.number, t.trial_id from trials t join studies s on s.study_id = t.study_id
    where s.study_name = :study and {feasible} {goals} order by t.number limit 1
"""
_GOAL = """
    and exists (select 1 from trial_values v
        where v.trial_id = t.trial_id and v.objective = {place} and v.value {compares} :goal{place})
"""
_VALUES = text("select objective, value from trial_values where trial_id = :trial")
# Not "double precision", which MariaDB does not take here, nor "double", which PostgreSQL does not.
_GPUS = "cast(g.value_json as float)"


@dataclass(frozen=True)
class Spent:
    """Time and GPUs that the trials of a study have taken, in whatever state they are. A function of the time, because
    trials run."""

    began: datetime | None = None
    """When the first trial did; with a time zone, as all times here."""
    gpu_seconds: float = 0.0
    """Of the trials that have ended."""
    gpus: float = 0.0
    """Held by those that run."""
    since: datetime | None = None
    """When these began: the mean, each by its GPUs."""

    def gpu_hours(self, now: datetime) -> float:
        """Used until then."""
        running = 0.0 if self.since is None else self.gpus * (now - self.since).total_seconds()
        return (self.gpu_seconds + running) / 3600

    def elapsed(self, now: datetime) -> timedelta:
        """Since the first trial began."""
        return timedelta() if self.began is None else now - self.began

    def due(self, budget: Budget) -> datetime | None:
        """When the time or the GPU hours are used up, should all go on as it is; it may have been."""
        found = []
        if budget.timeout is not None and self.began is not None:
            found.append(self.began + timedelta(seconds=budget.timeout.seconds))
        if budget.gpu_hours is not None and self.since is not None:
            left = budget.gpu_hours * 3600 - self.gpu_seconds
            found.append(self.since + timedelta(seconds=left / self.gpus))
        return min(found, default=None)


def read_spent(connection: Connection, study: str) -> Spent:
    """One pass over the study's trials."""
    epoch = _EPOCH[connection.dialect.name]
    start, end = epoch.format("t.datetime_start"), epoch.format("t.datetime_complete")
    query = text(_SPENT.format(start=start, end=end, gpus=_GPUS))
    names = {"study": study, "gpus": attributes.GPUS, "taken": attributes.TAKEN_FROM}
    began, ended, gpus, starts = connection.execute(query, names).one()
    return Spent(
        began=None if began is None else datetime.fromtimestamp(float(began), UTC),
        gpu_seconds=float(ended or 0),
        gpus=float(gpus or 0),
        since=datetime.fromtimestamp(float(starts) / float(gpus), UTC) if gpus else None,
    )


def read_goal(connection: Connection, study: str, objectives: list[Objective]) -> str | None:
    """The first trial that meets all goals, in words; None where there is none, or no goal."""
    goals = {place: objective.goal for place, objective in enumerate(objectives) if objective.goal is not None}
    if not goals:
        return None
    conditions = "".join(_GOAL.format(place=place, compares=_compares(objectives[place])) for place in goals)
    query = text(_GOALS.format(feasible=FEASIBLE, goals=conditions))
    bound = {f"goal{place}": goal for place, goal in goals.items()}
    row = connection.execute(query, {"study": study, **bound, **FEASIBLE_NAMES}).first()
    if row is None:
        return None
    values = {found.objective: found.value for found in connection.execute(_VALUES, {"trial": row.trial_id})}
    reached = ", ".join(
        f"{objectives[place].metric} {values[place]:.6g} {_compares(objectives[place])} {goal:.6g}"
        for place, goal in goals.items()
    )
    return f"trial {row.number} reached the goal{'s' if len(goals) > 1 else ''}: {reached}"


def _compares(objective: Objective) -> str:
    return ">=" if objective.direction == "maximize" else "<="


def record_of(reason: str, budget: Budget) -> dict[str, Any]:
    """That this limit was reached, for ``hpstudy:limit``."""
    return {"reason": reason, "limit": _limit(reason, budget)}


def still_reached(record: Mapping[str, Any] | None, budget: Budget) -> str | None:
    """The reason, unless the limit was raised since it was recorded, or removed."""
    if record is None:
        return None
    limit = _limit(record["reason"], budget)
    return record["reason"] if limit is not None and limit <= record["limit"] else None


def _limit(reason: str, budget: Budget) -> float | None:
    if reason == reasons.TIMEOUT_REACHED:
        return None if budget.timeout is None else budget.timeout.seconds
    return budget.gpu_hours
