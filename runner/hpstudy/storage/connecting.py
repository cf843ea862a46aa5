"""How connections to a database are made, so that neither side waits for one that has vanished."""

from typing import Any

from sqlalchemy.engine import URL

CONNECT_TIMEOUT = 10  # seconds; a Service without endpoints may drop packets for ever
_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""Libpq's: a server that vanished with its node is noticed within half a minute, where TCP alone would wait for hours.
https://www.postgresql.org/docs/current/libpq-connect.html"""
READ_TIMEOUT = 60  # seconds; no statement of a worker's takes a tenth of it


def connect_args(url: URL, application: str = "hpstudy", read_timeout: int = READ_TIMEOUT) -> dict[str, Any]:
    """Arguments of the driver, as for SQLAlchemy's ``connect_args``.

    Args:
        application: what ``pg_stat_activity`` shows.
        read_timeout: seconds that a statement may take with MySQL, whose driver knows no keepalives.
    """
    match url.get_backend_name():
        case "postgresql":
            return {"connect_timeout": CONNECT_TIMEOUT, "application_name": application, **_KEEPALIVES}
        case "mysql":
            return {
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": read_timeout,
                "write_timeout": READ_TIMEOUT,
                "program_name": application,
            }
        case _:
            return {}
