"""What the chart tells the operator, through its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

DATABASE_URL = "HPSTUDY_DATABASE_URL"
RUNNER_IMAGE = "HPSTUDY_RUNNER_IMAGE"
HEALTH_PORT = "HPSTUDY_HEALTH_PORT"
WATCH_NAMESPACES = "HPSTUDY_WATCH_NAMESPACES"
WORKERS_DATABASE_HOST = "HPSTUDY_WORKERS_DATABASE_HOST"
WORKERS_DATABASE_PORT = "HPSTUDY_WORKERS_DATABASE_PORT"


class SettingsError(ValueError):
    """The environment lacks something that the operator cannot do without."""


@dataclass(frozen=True)
class Settings:
    """Settings of one operator process."""

    database_url: str = field(repr=False)
    """PostgreSQL for the studies that bring no storage of their own: a URL of a role that may create roles and
    schemas. Its host becomes part of the Secrets in other namespaces, so it must be reachable from there."""
    runner_image: str
    """Image of workers whose template names none."""
    health_port: int
    """Where ``/healthz`` answers."""
    namespaces: tuple[str, ...] = ()
    """Whose studies are run; empty: those of all namespaces."""
    workers_database_host: str = ""
    """Of the same database in the Secrets of other namespaces, a proxy's say; empty: as in ``database_url``."""
    workers_database_port: int | None = None
    """Likewise."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the environment.

        Raises:
            SettingsError: naming every variable that is missing.
        """
        wanted = (DATABASE_URL, RUNNER_IMAGE, HEALTH_PORT)
        if missing := [name for name in wanted if not environment.get(name)]:
            raise SettingsError(f"set {', '.join(missing)} in the operator's environment")
        if not environment[HEALTH_PORT].isdigit():
            raise SettingsError(f"{HEALTH_PORT} must be a port number")
        port = environment.get(WORKERS_DATABASE_PORT, "")
        if port and not port.isdigit():
            raise SettingsError(f"{WORKERS_DATABASE_PORT} must be a port number")
        return cls(
            database_url=environment[DATABASE_URL],
            runner_image=environment[RUNNER_IMAGE],
            health_port=int(environment[HEALTH_PORT]),
            namespaces=tuple(name for name in environment.get(WATCH_NAMESPACES, "").split(",") if name),
            workers_database_host=environment.get(WORKERS_DATABASE_HOST, ""),
            workers_database_port=int(port) if port else None,
        )
