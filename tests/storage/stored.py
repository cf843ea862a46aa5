"""What a test finds in the storage afterwards. The tables are known to be there: looking for them takes longer than
most tests do."""

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.storages import RDBStorage

from hpstudy.api.study import StudySpec
from hpstudy.storage.reading import StudySnapshot, read_snapshot
from hpstudy.storage.urls import parse_url

NAME = "study"


@contextmanager
def opened(url: str) -> Iterator[RDBStorage]:
    """The storage, closed afterwards."""
    url = parse_url(url).render_as_string(hide_password=False)  # with the driver that is ours to choose
    storage = RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
    try:
        yield storage
    finally:
        storage.engine.dispose()


def snapshot_of(url: str, study: StudySpec, name: str = NAME) -> StudySnapshot:
    """As the operator reads it."""
    with opened(url) as storage:
        return read_snapshot(storage, name, study)


def trials_of(url: str, name: str = NAME) -> list[optuna.trial.FrozenTrial]:
    """As plain Optuna reads them."""
    with opened(url) as storage:
        return optuna.load_study(study_name=name, storage=storage).trials
