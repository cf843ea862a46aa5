"""Removing a study from the storage, in a dozen statements however many trials it has.

Optuna's own ``delete_study`` loads every trial and deletes row by row.
"""

from optuna.storages._rdb.models import BaseModel, StudyModel, TrialModel
from sqlalchemy import Table, delete, select
from sqlalchemy.engine import Connection

_STUDIES: Table = StudyModel.__table__
_TRIALS: Table = TrialModel.__table__


def remove_study(connection: Connection, name: str) -> bool:
    """Remove a study and everything recorded for it; the caller commits. False when the storage does not know it."""
    study_id = connection.scalar(select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == name))
    if study_id is None:
        return False
    trials = select(_TRIALS.c.trial_id).where(_TRIALS.c.study_id == study_id)
    for table in reversed(BaseModel.metadata.sorted_tables):  # those that refer to others first
        if table is not _TRIALS and "trial_id" in table.c:
            connection.execute(delete(table).where(table.c.trial_id.in_(trials)))
        elif "study_id" in table.c:
            connection.execute(delete(table).where(table.c.study_id == study_id))
    return True
