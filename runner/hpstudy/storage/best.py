"""The best trials of a study, or its Pareto front: what they are is found over two numbers a trial, and only those that
a status shows are read, so that fifteen thousand trials take no more memory than fifteen."""

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy
from optuna.distributions import json_to_distribution
from sqlalchemy import BindParameter, DateTime, bindparam, text
from sqlalchemy.engine import Connection, Row

from hpstudy.api.status import MAX_BEST_TRIALS, MAX_FRONT_TRIALS, BestTrial
from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes
from hpstudy.storage.feasible import FEASIBLE, FEASIBLE_NAMES
from hpstudy.storage.pareto import hypervolume, pareto_front

_ROWS = 2000
"""Of a result, in memory at a time."""
_VALUES = f"""
    select t.trial_id, v.objective, v.value from trials t
    join studies s on s.study_id = t.study_id
    join trial_values v on v.trial_id = t.trial_id
    where s.study_name = :study and v.value is not null and {FEASIBLE}
"""  # noqa: S608  # a constant
"""Finite values of the feasible trials: in Optuna's column, infinity is null."""
_IDS: BindParameter[Sequence[int]] = bindparam("ids", expanding=True)
_TRIALS = (
    text("select trial_id, number, datetime_start, datetime_complete from trials where trial_id in :ids")
    .bindparams(_IDS)
    .columns(datetime_start=DateTime, datetime_complete=DateTime)
)
_PARAMETERS = text(
    """
    select trial_id, param_name, param_value, distribution_json from trial_params
    where trial_id in :ids order by param_id
    """
).bindparams(_IDS)
_RESULTS = text(
    "select trial_id, objective, value from trial_values where trial_id in :ids order by objective"
).bindparams(_IDS)
_ATTRIBUTES = text(
    """
    select a.trial_id, a.key, a.value_json from trial_user_attributes a
    where a.trial_id in :ids and a.key in (:group, :checkpoint)
    """
).bindparams(_IDS, group=attributes.GROUP, checkpoint=attributes.CHECKPOINT)


@dataclass(frozen=True)
class Best:
    """What a study has reached."""

    trials: tuple[BestTrial, ...] = ()
    """The best, or the Pareto front; bounded."""
    front_size: int | None = None
    """With several objectives: trials on the front."""
    hypervolume: float | None = None
    """Between the front and the objectives' references, where all have one."""
    weighted: BestTrial | None = None
    """With several objectives and ``scalarize``: the trial of the front that is best by that."""


def read_best(connection: Connection, study: str, spec: StudySpec) -> Best:
    """Find the best trials of a study, or its front, and read those that are shown."""
    if len(spec.objectives) == 1:
        return Best(_read_trials(connection, _best_ids(connection, study, spec), spec))
    ids, values = _feasible(connection, study, len(spec.objectives))
    front = pareto_front(values, [objective.direction for objective in spec.objectives])
    shown = [int(ids[index]) for index in front[:MAX_FRONT_TRIALS]]
    weighted = None
    if front and spec.is_scalar:  # no weight is negative: nothing beats the front
        index = min(front, key=lambda index: spec.weighted_sum(values[index].tolist()))
        weighted = _read_trials(connection, [int(ids[index])], spec)[0]
    return Best(_read_trials(connection, shown, spec), len(front), _volume(values[front], spec), weighted)


def _best_ids(connection: Connection, study: str, spec: StudySpec) -> list[int]:
    order = "asc" if spec.objectives[0].direction == "minimize" else "desc"
    query = text(f"{_VALUES} order by v.value {order}, t.number limit :limit")
    rows = connection.execute(query, {"study": study, "limit": MAX_BEST_TRIALS, **FEASIBLE_NAMES})
    return [row.trial_id for row in rows]


def _feasible(connection: Connection, study: str, objectives: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Ids of the feasible trials with a finite value of every objective, and the values, shape (trials, objectives)."""
    ids, values = array("q"), array("d")
    query = text(f"{_VALUES} order by t.trial_id, v.objective")
    rows = connection.execute(query, {"study": study, **FEASIBLE_NAMES}, execution_options={"yield_per": _ROWS})
    for trial_id, group in groupby(rows, key=lambda row: row.trial_id):
        row = [value for _, _, value in group]
        if len(row) == objectives:
            ids.append(trial_id)
            values.extend(row)
    return numpy.array(ids), numpy.array(values).reshape(-1, objectives)


def _volume(front: numpy.ndarray, spec: StudySpec) -> float | None:
    reference = tuple(objective.reference for objective in spec.objectives if objective.reference is not None)
    if len(reference) < len(spec.objectives):
        return None
    return hypervolume(front, reference, tuple(objective.direction for objective in spec.objectives))


def _read_trials(connection: Connection, ids: Sequence[int], spec: StudySpec) -> tuple[BestTrial, ...]:
    """The trials as a status shows them, in this order."""
    if not ids:
        return ()
    wanted = {"ids": ids}
    trials = {row.trial_id: row for row in connection.execute(_TRIALS, wanted)}
    parameters: dict[int, dict[str, Any]] = {trial_id: {} for trial_id in ids}
    for trial_id, name, value, distribution in connection.execute(_PARAMETERS, wanted):
        parameters[trial_id][name] = json_to_distribution(distribution).to_external_repr(value)
    values: dict[int, dict[str, float]] = {trial_id: {} for trial_id in ids}
    for trial_id, objective, value in connection.execute(_RESULTS, wanted):
        values[trial_id][spec.objectives[objective].metric] = value
    recorded: dict[int, dict[str, Any]] = {trial_id: {} for trial_id in ids}
    for trial_id, key, value in connection.execute(_ATTRIBUTES, wanted):
        recorded[trial_id][key] = json.loads(value)
    return tuple(
        _best_trial(trials[trial_id], values[trial_id], parameters[trial_id], recorded[trial_id], spec, place)
        for place, trial_id in enumerate(ids)
        if trial_id in trials
    )


def _best_trial(
    trial: Row[Any],
    values: dict[str, float],
    parameters: dict[str, Any],
    recorded: Mapping[str, Any],
    spec: StudySpec,
    place: int,
) -> BestTrial:
    group, begun, ended = recorded.get(attributes.GROUP), trial.datetime_start, trial.datetime_complete
    return BestTrial(
        number=trial.number,
        values=values,
        hyperparameters=parameters,
        worker=None if group is None else str(group),
        duration=round((ended - begun).total_seconds(), 3) if begun and ended else None,
        checkpoint=recorded.get(attributes.CHECKPOINT) if _is_kept(spec, place) else None,
    )


def _is_kept(spec: StudySpec, place: int) -> bool:
    """Whether the checkpoint of a trial stays that has this place, from 0, among the best: see trials/retention.py."""
    if spec.checkpoints is None or spec.checkpoints.keep == "none":
        return False
    return spec.checkpoints.keep == "all" or len(spec.objectives) > 1 or place == 0
