"""What the stored trials depend on, compared with the study as it is now, whichever versions wrote the two."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from optuna.storages import RDBStorage
from pydantic import TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from sqlalchemy import text

from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes

_FIELDS = ("objectives", "scalarize", "constraints", "backend", "search_space", "initial_trials", "warm_start_from")
_IN_OBJECTIVES = ("metric", "direction")
"""Of the objectives neither goal nor reference, which no trial depends on."""
# Not those that were taken from another study, nor those that still wait for their turn.
_EXISTS = """
    select 1 from trials t join studies s on s.study_id = t.study_id
    left join trial_user_attributes w on w.trial_id = t.trial_id and w.key = :taken
    where s.study_name = :study and w.trial_id is null and t.state {states} limit 1
    """
_HAS_RUN = text(_EXISTS.format(states="<> 'WAITING'"))
_HAS_ENDED = text(_EXISTS.format(states="in ('COMPLETE', 'PRUNED')"))


def frozen_part(spec: StudySpec) -> dict[str, Any]:
    """What is recorded of the spec (``attributes.SPEC``)."""
    part: dict[str, Any] = json.loads(spec.model_dump_json(by_alias=True, include=set(_FIELDS)))
    return {**part, "objectives": _bare(part["objectives"])}


def changed_fields(spec: StudySpec, part: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """Fields that say another thing than the stored ones, as users write them.

    Args:
        part: of the spec.
    """
    names = {to_camel(name): name for name in _FIELDS}
    return [
        field
        for field, name in names.items()
        if _same(spec, name, part.get(field)) != _same(spec, name, stored.get(field))
    ]


def recorded_trial(spec: StudySpec) -> dict[str, Any]:
    """What is recorded of the trial (``attributes.TRIAL``)."""
    recorded: dict[str, Any] = json.loads(spec.trial.model_dump_json(by_alias=True, exclude_defaults=True))
    return recorded


def is_same_trial(spec: StudySpec, stored: Mapping[str, Any]) -> bool:
    """Whether a trial is what was recorded."""
    return bool(_same(spec, "trial", recorded_trial(spec)) == _same(spec, "trial", stored))


def has_run(storage: RDBStorage, name: str) -> bool:
    """Whether a trial of the study's own has begun."""
    return _finds(storage, name, _HAS_RUN)


def has_ended(storage: RDBStorage, name: str) -> bool:
    """Whether a trial of the study's own has values that others would be compared with."""
    return _finds(storage, name, _HAS_ENDED)


def _finds(storage: RDBStorage, name: str, query: Any) -> bool:
    with storage.engine.connect() as connection:
        return connection.scalar(query, {"study": name, "taken": attributes.TAKEN_FROM}) is not None


def _same(spec: StudySpec, name: str, value: Any) -> Any:
    """A form in which equal values are equal: read by today's types without what those do not know, and written without
    defaults. A field that one of two versions does not have is then no change, as long as it has its default."""
    if name == "objectives" and value:
        value = _bare(value)
    adapter, field = _adapter(type(spec), name), type(spec).model_fields[name]
    try:
        read = adapter.validate_python(value, extra="ignore")
    except ValidationError:  # of a version with other rules
        return value or None
    if read == field.get_default(call_default_factory=True, validated_data={}):
        return None
    return adapter.dump_python(read, mode="json", by_alias=True, exclude_defaults=True) or None


@cache
def _adapter(spec: type[StudySpec], name: str) -> TypeAdapter[Any]:
    annotation: Any = spec.model_fields[name].annotation
    return TypeAdapter(annotation)


def _bare(objectives: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: each[key] for key in _IN_OBJECTIVES if key in each} for each in objectives]
