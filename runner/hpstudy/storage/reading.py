"""What a study has reached, read with a few queries and without loading its trials."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import optuna
from sqlalchemy import bindparam, text
from sqlalchemy.engine import Connection

from hpstudy.api.status import MAX_BEST_TRIALS, MAX_FRONT_TRIALS, BestTrial, TrialCounts
from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes
from hpstudy.storage.opening import storage_errors
from hpstudy.storage.pareto import pareto_front


@dataclass(frozen=True)
class Stop:
    """Why a study is over before its budget is."""

    reason: str
    message: str


@dataclass(frozen=True)
class Tally:
    """What a study has spent, and what was decided about it."""

    counts: TrialCounts
    stop: Stop | None = None
    sampler: str | None = None
    """The sampler that was chosen for it, and why."""


@dataclass(frozen=True)
class StudySnapshot:
    """The state of a study in the storage."""

    counts: TrialCounts = field(default_factory=TrialCounts)
    best: tuple[BestTrial, ...] = ()
    """The best trials, or the Pareto front; bounded."""
    front_size: int | None = None
    """With several objectives: trials on the front."""
    last_failure: str | None = None
    """Why the latest failed trial failed."""
    stop: Stop | None = None
    sampler: str | None = None
    """The sampler that was chosen for it, and why."""


_TALLY = text(
    """
    select cast(t.state as varchar(60)), a.value_json, count(*) from trials t
    join studies s on s.study_id = t.study_id
    left join trial_user_attributes a on a.trial_id = t.trial_id and a.key = :failure
    where s.study_name = :study group by t.state, a.value_json
    union all
    select a.key, a.value_json, 0 from study_user_attributes a
    join studies s on s.study_id = a.study_id
    where s.study_name = :study and a.key in (:stopped, :sampler)
    """
)
_LAST_FAILURE = text(
    """
    select t.number, a.value_json from trials t
    join studies s on s.study_id = t.study_id
    join trial_user_attributes a on a.trial_id = t.trial_id and a.key = :message
    join trial_user_attributes f on f.trial_id = t.trial_id and f.key = :failure and f.value_json not in :retried
    where s.study_name = :study and t.state = 'FAIL' order by t.number desc limit 1
    """
).bindparams(bindparam("retried", expanding=True))
_VALUES = text(
    """
    select t.trial_id, v.objective, v.value from trials t
    join studies s on s.study_id = t.study_id
    join trial_values v on v.trial_id = t.trial_id
    where s.study_name = :study and t.state = 'COMPLETE'
    """
)


def read_tally(connection: Connection, study: str) -> Tally:
    """Trials of the study by state, all zero when the storage does not know it, and the study's own attributes."""
    counts = dict.fromkeys(TrialCounts.model_fields, 0)
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "running", "WAITING": "waiting"}
    decided: dict[str, Mapping[str, str]] = {}
    keys = {"failure": attributes.FAILURE, "stopped": attributes.STOPPED, "sampler": attributes.SAMPLER}
    for state, value, number in connection.execute(_TALLY, {"study": study, **keys}):
        if state.startswith(attributes.PREFIX):
            decided[state] = json.loads(value)
            continue
        retried = value is not None and json.loads(value) in attributes.RETRIED
        counts[names.get(state) or ("preempted" if retried else "failed")] += number
        counts["total"] += number
    stopped, chosen = decided.get(attributes.STOPPED), decided.get(attributes.SAMPLER)
    return Tally(
        TrialCounts(**counts),
        stop=Stop(stopped["reason"], stopped["message"]) if stopped else None,
        sampler=f"{chosen['name']}: {chosen['why']}" if chosen else None,
    )


def last_failure(connection: Connection, study: str) -> str | None:
    """The number and message of the latest failed trial."""
    retried = [json.dumps(failure) for failure in attributes.RETRIED]
    keys = {"message": attributes.MESSAGE, "failure": attributes.FAILURE, "retried": retried}
    row = connection.execute(_LAST_FAILURE, {"study": study, **keys}).first()
    return None if row is None else f"trial {row[0]}: {json.loads(row[1])}"


def read_snapshot(storage: optuna.storages.RDBStorage, study: str, spec: StudySpec) -> StudySnapshot:
    """Read counts, best trials or Pareto front, and the last failure.

    Raises:
        StorageUnreachableError: the database does not answer.
    """
    with storage_errors():
        with storage.engine.connect() as connection:
            tally = read_tally(connection, study)
            failure = last_failure(connection, study) if tally.counts.failed else None
            if len(spec.objectives) == 1:
                best, front_size = _best_ids(connection, study, spec), None
            else:
                front = _front_ids(connection, study, spec)
                best, front_size = front[:MAX_FRONT_TRIALS], len(front)
        trials = tuple(_best_trial(storage.get_trial(trial_id), spec) for trial_id in best)
    return StudySnapshot(tally.counts, trials, front_size, failure, tally.stop, tally.sampler)


def _best_ids(connection: Connection, study: str, spec: StudySpec) -> list[int]:
    order = "asc" if spec.objectives[0].direction == "minimize" else "desc"
    query = text(f"{_VALUES.text} order by v.value {order}, t.number limit :limit").bindparams(bindparam("limit"))
    rows = connection.execute(query, {"study": study, "limit": MAX_BEST_TRIALS})
    return [row.trial_id for row in rows]


def _front_ids(connection: Connection, study: str, spec: StudySpec) -> list[int]:
    values: dict[int, dict[int, float]] = {}
    for trial_id, objective, value in connection.execute(_VALUES, {"study": study}):
        values.setdefault(trial_id, {})[objective] = value
    ids = list(values)
    points = [[values[trial_id][objective] for objective in range(len(spec.objectives))] for trial_id in ids]
    return [ids[index] for index in pareto_front(points, [o.direction for o in spec.objectives])]


def _best_trial(trial: optuna.trial.FrozenTrial, spec: StudySpec) -> BestTrial:
    group = trial.user_attrs.get(attributes.GROUP)
    return BestTrial(
        number=trial.number,
        values={objective.metric: value for objective, value in zip(spec.objectives, trial.values, strict=True)},
        hyperparameters=trial.params,
        worker=None if group is None else str(group),
        duration=round(trial.duration.total_seconds(), 3) if trial.duration else None,
    )
