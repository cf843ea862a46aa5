"""What the chart tells the operator, through its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from hpstudy.api.errors import InvalidStudyError
from hpstudy.storage.urls import parse_url

DATABASE_URL = "HPSTUDY_DATABASE_URL"
RUNNER_IMAGE = "HPSTUDY_RUNNER_IMAGE"
HEALTH_PORT = "HPSTUDY_HEALTH_PORT"
WATCH_NAMESPACES = "HPSTUDY_WATCH_NAMESPACES"
WORKERS_DATABASE_HOST = "HPSTUDY_WORKERS_DATABASE_HOST"
WORKERS_DATABASE_PORT = "HPSTUDY_WORKERS_DATABASE_PORT"
LEASE = "HPSTUDY_LEASE"
POD = "HPSTUDY_POD"
LOG_LEVEL = "HPSTUDY_LOG_LEVEL"
LOG_LEVELS = ("debug", "info", "warning", "error")


class SettingsError(ValueError):
    """The environment lacks something that the operator cannot do without."""


@dataclass(frozen=True)
class LeaseName:
    """A Lease and its candidate."""

    namespace: str
    name: str
    holder: str
    """Of this process, and of no other that may run at the same time: the pod's name. A container that is started again
    in its pod goes on as the holder that it was."""


@dataclass(frozen=True)
class Settings:
    """Settings of one operator process."""

    database_url: str = field(repr=False)
    """PostgreSQL for the studies that bring no storage of their own: a URL of a role that may create roles and
    schemas. Its host becomes part of the Secrets in other namespaces, so it must be reachable from there."""
    runner_image: str
    """Image of workers whose template names none."""
    health_port: int
    """Where ``/healthz``, ``/readyz`` and ``/metrics`` answer."""
    namespaces: tuple[str, ...] = ()
    """Whose studies are run; empty: those of all namespaces."""
    workers_database_host: str = ""
    """Of the same database in the Secrets of other namespaces, a proxy's say; empty: as in ``database_url``."""
    workers_database_port: int | None = None
    """Likewise."""
    lease: LeaseName | None = None
    """What replicas hold to be the one that acts; None for a process that is alone."""
    log_level: str = "info"
    """Lowest level of what is logged, one of LOG_LEVELS."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the environment.

        Raises:
            SettingsError: naming every variable that is missing, or the one that is wrong.
        """
        wanted = (DATABASE_URL, RUNNER_IMAGE, HEALTH_PORT)
        if missing := [name for name in wanted if not environment.get(name)]:
            raise SettingsError(f"set {', '.join(missing)} in the operator's environment")
        _check_database(environment[DATABASE_URL])
        if not environment[HEALTH_PORT].isdigit():
            raise SettingsError(f"{HEALTH_PORT} must be a port number")
        port = environment.get(WORKERS_DATABASE_PORT, "")
        if port and not port.isdigit():
            raise SettingsError(f"{WORKERS_DATABASE_PORT} must be a port number")
        level = environment.get(LOG_LEVEL) or "info"
        if level not in LOG_LEVELS:
            raise SettingsError(f"{LOG_LEVEL} must be one of {', '.join(LOG_LEVELS)}")
        return cls(
            database_url=environment[DATABASE_URL],
            runner_image=environment[RUNNER_IMAGE],
            health_port=int(environment[HEALTH_PORT]),
            namespaces=tuple(name for name in environment.get(WATCH_NAMESPACES, "").split(",") if name),
            workers_database_host=environment.get(WORKERS_DATABASE_HOST, ""),
            workers_database_port=int(port) if port else None,
            lease=_lease(environment.get(LEASE, ""), environment.get(POD, "")),
            log_level=level,
        )


def _check_database(url: str) -> None:
    try:
        parsed = parse_url(url)
    except InvalidStudyError as error:
        raise SettingsError(f"{DATABASE_URL}: {error.message}") from None
    if parsed.get_backend_name() != "postgresql":
        raise SettingsError(f"{DATABASE_URL}: the operator's own database must be PostgreSQL")


def _lease(lease: str, holder: str) -> LeaseName | None:
    if not lease:
        return None
    namespace, _, name = lease.partition("/")
    if not (namespace and name and holder):
        raise SettingsError(f"{LEASE} must be NAMESPACE/NAME, and {POD} the name of this replica")
    return LeaseName(namespace, name, holder)
