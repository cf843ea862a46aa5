"""Opening the Optuna storage, with errors that say what to do and never show a password."""

from typing import Any

import optuna
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes
from hpstudy.storage.connecting import connect_args
from hpstudy.storage.errors import storage_errors
from hpstudy.storage.frozen import changed_fields, frozen_part, has_ended, has_run, is_same_trial, recorded_trial
from hpstudy.storage.locks import SessionLocks
from hpstudy.storage.sources import find_sources
from hpstudy.storage.urls import parse_url

_LONG_STATEMENT = 240  # seconds; the rows of a large study are removed in one. Below STUCK_SECONDS of the operator


def open_storage(url: str, *, upgrade: bool = False) -> optuna.storages.RDBStorage:
    """Open the storage and create its tables where they are missing, safe with many openers at once.

    Args:
        upgrade: tables of an older version of Optuna as well, unless trials run in them; else they are refused.

    Raises:
        InvalidStudyError: the URL is malformed, or the tables are those of another version of Optuna.
        StorageUnreachableError: the database does not answer.
    """
    parsed = parse_url(url)
    plain = parsed.render_as_string(hide_password=False)
    with storage_errors(), SessionLocks(plain) as locks, locks.holding("schema"):
        storage = optuna.storages.RDBStorage(
            plain, engine_kwargs=_engine_options(parsed), skip_compatibility_check=True
        )
        try:
            _fit_schema(storage, upgrade=upgrade)
        except BaseException:
            storage.engine.dispose()
            raise
        return storage


def reopen_storage(url: str) -> optuna.storages.RDBStorage:
    """Open a storage whose tables are known to be there and to fit.

    Raises:
        StorageUnreachableError: the database does not answer.
    """
    parsed = parse_url(url)
    with storage_errors():
        return optuna.storages.RDBStorage(
            parsed.render_as_string(hide_password=False),
            engine_kwargs=_engine_options(parsed),
            skip_compatibility_check=True,
            skip_table_creation=True,
        )


def _fit_schema(storage: optuna.storages.RDBStorage, *, upgrade: bool) -> None:
    """Make sure that the tables are of this Optuna's version. The caller holds the lock."""
    current, head = storage.get_current_version(), storage.get_head_version()
    if current == head:
        return
    versions = f"version {current}, and optuna {optuna.__version__} needs version {head}"
    if current not in storage.get_all_versions():
        raise InvalidStudyError(
            reasons.SCHEMA_MISMATCH,
            f"the tables of the storage are of schema {versions}: use an image with the newer optuna that made them",
        )
    if not upgrade:
        raise InvalidStudyError(
            reasons.SCHEMA_MISMATCH,
            f"the tables of the storage are of schema {versions}: when nothing else uses it any more, upgrade it with "
            "optuna storage upgrade --storage URL",
        )
    with storage.engine.connect() as connection:
        running = connection.scalar(text("select count(*) from trials where state = 'RUNNING'"))
    if running:
        raise InvalidStudyError(
            reasons.SCHEMA_MISMATCH,
            f"the tables of the storage are of schema {versions}: they are upgraded when its {running} running trials "
            "have ended",
        )
    storage.upgrade()


def open_engine(url: str) -> Engine:
    """Connections to a database that is only looked into: nothing is created, nothing kept open.

    Raises:
        InvalidStudyError: the URL is malformed.
    """
    parsed = parse_url(url)
    arguments = connect_args(parsed, seconds=_LONG_STATEMENT)
    return create_engine(parsed, poolclass=NullPool, connect_args=arguments)


def _engine_options(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {}
    # One connection for Optuna and one for the locks: N workers hold 2N. Optuna opens a second one for the moment in
    # which it makes its tables; it is not kept.
    return {"pool_size": 1, "max_overflow": 1, "pool_pre_ping": True, "connect_args": connect_args(url)}


def open_study(storage: optuna.storages.RDBStorage, name: str, spec: StudySpec, **kwargs: Any) -> optuna.Study:
    """Create the study, or open it when it exists.

    Args:
        kwargs: sampler and pruner, as for ``optuna.create_study``.

    Raises:
        InvalidStudyError: the stored trials were made with other objectives, another space or backend; or a study of
            ``warmStartFrom`` cannot be used.
        StorageUnreachableError: the database does not answer.
    """
    frozen = frozen_part(spec)
    directions = [objective.direction for objective in spec.objectives]
    with storage_errors():
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=storage, study_name=name, directions=directions, load_if_exists=True, **kwargs
        )
        stored = study.user_attrs.get(attributes.SPEC)
        if spec.search_space is None and stored is not None:  # only the script knows it
            frozen["searchSpace"] = stored.get("searchSpace")
        changed = [] if stored is None else changed_fields(spec, frozen, stored)
        if stored and changed == ["searchSpace"] and not stored.get("searchSpace") and spec.trial.script is not None:
            changed = []  # opened before the script told its space
            study.set_user_attr(attributes.SPEC, frozen)
        if changed and has_run(storage, name):
            raise InvalidStudyError(
                reasons.SPEC_CHANGED,
                f"{' and '.join(changed)} changed, and study {name!r} has trials of the old one: "
                "undo the change or give the study another name",
            )
        if changed:  # it was corrected before its first trial
            optuna.delete_study(study_name=name, storage=storage)
            study = optuna.create_study(storage=storage, study_name=name, directions=directions, **kwargs)
        if changed or stored is None:
            study.set_user_attr(attributes.METRIC_NAMES, [objective.metric for objective in spec.objectives])
            study.set_user_attr(attributes.SPEC, frozen)
        _keep_trial(storage, study, spec)
        if spec.warm_start_from and attributes.SEEDED not in study.user_attrs:
            find_sources(storage, name, spec)  # afterwards they may go
    return study


def _keep_trial(storage: optuna.storages.RDBStorage, study: optuna.Study, spec: StudySpec) -> None:
    """Record what a trial is, which may be corrected until there are values that others would be compared with.

    Raises:
        InvalidStudyError: it is another one now, and there are.
    """
    stored = study.user_attrs.get(attributes.TRIAL)
    if stored is not None and is_same_trial(spec, stored):
        return
    if stored is not None and has_ended(storage, study.study_name):
        raise InvalidStudyError(
            reasons.SPEC_CHANGED,
            f"trial changed, and study {study.study_name!r} has results of the old one: undo the change or give the "
            "study another name",
        )
    study.set_user_attr(attributes.TRIAL, recorded_trial(spec))
