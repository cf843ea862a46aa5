"""Opening the Optuna storage, with errors that say what to do and never show a password."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes
from hpstudy.storage.locks import SessionLocks
from hpstudy.storage.sources import find_sources

CONNECT_TIMEOUT = 10  # seconds; a Service without endpoints may drop packets for ever
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""Libpq's: a server that vanished with its node is noticed within half a minute, where TCP alone would wait for hours.
https://www.postgresql.org/docs/current/libpq-connect.html"""

_FROZEN = {
    "objectives",
    "scalarize",
    "constraints",
    "search_space",
    "backend",
    "initial_trials",
    "warm_start_from",
}
"""What the stored trials depend on."""


class StorageUnreachableError(ConnectionError):
    """The database does not answer or refuses the connection; worth trying again."""


def parse_url(url: str) -> URL:
    """Read a storage URL.

    Raises:
        InvalidStudyError: it is malformed or names a database that is not supported; the URL itself is not repeated.
    """
    try:
        parsed = make_url(url.strip())
    except (ArgumentError, ValueError):
        parsed = None
    # What people write, and what Secrets of other tools hold; the driver is ours to choose.
    driver = {"postgresql": "postgresql+psycopg2", "postgres": "postgresql+psycopg2"}
    if parsed is not None:
        parsed = parsed.set(drivername=driver.get(parsed.drivername, parsed.drivername))
    if parsed is None or parsed.drivername not in {"postgresql+psycopg2", "sqlite"}:
        raise InvalidStudyError(
            reasons.STORAGE_UNREACHABLE,
            "the storage URL must look like postgresql://user:password@host:5432/database or sqlite:///file.db",
        )
    return parsed


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn the database's errors into :class:`StorageUnreachableError`."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise StorageUnreachableError(_first_line(error.__cause__ or error)) from error
    except (DBAPIError, NoSuchModuleError) as error:
        raise StorageUnreachableError(_first_line(error.orig if isinstance(error, DBAPIError) else error)) from error
    except SQLAlchemyError as error:
        raise StorageUnreachableError(_first_line(error)) from error


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open the storage and create its tables where they are missing, safe with many openers at once.

    Raises:
        InvalidStudyError: the URL is malformed.
        StorageUnreachableError: the database does not answer or refuses.
    """
    parsed = parse_url(url)
    engine_kwargs: dict[str, Any] = {}
    if parsed.get_backend_name() == "postgresql":
        # One connection for Optuna and one for the locks: N workers hold 2N. Optuna opens a second one for the moment
        # in which it makes its tables; it is not kept.
        engine_kwargs = {
            "pool_size": 1,
            "max_overflow": 1,
            "pool_pre_ping": True,
            "connect_args": {"connect_timeout": CONNECT_TIMEOUT, "application_name": "hpstudy", **KEEPALIVES},
        }
    text = parsed.render_as_string(hide_password=False)
    with storage_errors(), SessionLocks(text) as locks, locks.holding("schema"):
        return optuna.storages.RDBStorage(text, engine_kwargs=engine_kwargs)


def open_study(storage: optuna.storages.RDBStorage, name: str, spec: StudySpec, **kwargs: Any) -> optuna.Study:
    """Create the study, or open it when it exists.

    Args:
        kwargs: sampler and pruner, as for ``optuna.create_study``.

    Raises:
        InvalidStudyError: the stored trials were made with other objectives, another space or backend; or a study of
            ``warmStartFrom`` cannot be used.
        StorageUnreachableError: the database does not answer.
    """
    frozen = json.loads(spec.model_dump_json(by_alias=True, include=_FROZEN))
    directions = [objective.direction for objective in spec.objectives]
    with storage_errors():
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=storage, study_name=name, directions=directions, load_if_exists=True, **kwargs
        )
        stored = study.user_attrs.get(attributes.SPEC)
        if spec.search_space is None and stored is not None:  # only the script knows it
            frozen["searchSpace"] = stored.get("searchSpace")
        changed = (
            []
            if stored is None
            else [field for field, value in frozen.items() if (stored.get(field) or None) != (value or None)]
        )
        if stored and changed == ["searchSpace"] and not stored.get("searchSpace") and spec.trial.script is not None:
            changed = []  # opened before the script told its space
            study.set_user_attr(attributes.SPEC, frozen)
        if changed and any(_has_run(trial) for trial in study.get_trials(deepcopy=False)):
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
        if spec.warm_start_from and attributes.SEEDED not in study.user_attrs:
            find_sources(storage, name, spec)  # afterwards they may go
    return study


def _has_run(trial: optuna.trial.FrozenTrial) -> bool:
    """Not one that another study ran, or that still waits for its turn."""
    return trial.state is not TrialState.WAITING and attributes.TAKEN_FROM not in trial.user_attrs


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
