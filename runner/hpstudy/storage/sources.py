"""Other studies of the same storage, as ``warmStartFrom`` names them."""

import json
import re
from dataclasses import dataclass

import optuna
from sqlalchemy import text

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.metrics import canonical
from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes

_NAMED = text("select study_name from studies where study_name like :start order by study_id desc")
_METRICS = text(
    """
    select a.value_json from study_user_attributes a join studies s on s.study_id = a.study_id
    where s.study_name = :study and a.key = :key
    """
)


@dataclass(frozen=True)
class Source:
    """A study to learn from."""

    name: str
    """In the storage."""
    places: tuple[int, ...]
    """For each objective of this study, its place among those of the other."""


def find_sources(storage: optuna.storages.RDBStorage, name: str, spec: StudySpec) -> list[Source]:
    """The studies of ``warmStartFrom``.

    Args:
        name: of the study itself, in the storage.

    Raises:
        InvalidStudyError: one does not exist, or lacks the metric of an objective.
    """
    return [
        _find(storage, name, start.study, f"warmStartFrom[{i}]", spec) for i, start in enumerate(spec.warm_start_from)
    ]


def _find(storage: optuna.storages.RDBStorage, own: str, wanted: str, where: str, spec: StudySpec) -> Source:
    with storage.engine.connect() as connection:
        namespace, slash, _ = own.rpartition("/")
        full = f"{namespace}{slash}{wanted}"
        # In a cluster the start of the object's uid follows: see api/names.py.
        pattern = re.compile(re.escape(full) + ("(-[0-9a-f]{8})?" if slash else ""))
        known = [row[0] for row in connection.execute(_NAMED, {"start": f"{full}%"})]
        found = next((name for name in known if name != own and pattern.fullmatch(name)), None)
        if found is None:
            raise InvalidStudyError(
                reasons.INVALID_WARM_START,
                f"{where}: the storage of this study has no other study {wanted!r}; both must use the same database"
                + ("" if slash else " (hpstudy run --storage)"),
            )
        stored = connection.execute(_METRICS, {"study": found, "key": attributes.METRIC_NAMES}).scalar()
    metrics = [canonical(metric) for metric in json.loads(stored)] if stored else []
    missing = [o.metric for o in spec.objectives if canonical(o.metric) not in metrics]
    if missing:
        raise InvalidStudyError(
            reasons.INVALID_WARM_START,
            f"{where}: study {wanted!r} has no values of {', '.join(missing)}; "
            f"its objectives are {', '.join(metrics) or 'not known'}",
        )
    return Source(found, tuple(metrics.index(canonical(objective.metric)) for objective in spec.objectives))
