"""The URL of a storage. A tenant writes it into a Secret, and the operator connects with it: it must say where a
database is, and nothing else. Drivers take much more: files to read, and whether a server may ask for any."""

import re
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError

_DRIVERS = {
    "postgresql": "postgresql+psycopg2",
    "postgres": "postgresql+psycopg2",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "sqlite": "sqlite",
}
_CERTIFICATES = ("sslrootcert", "ssl_ca")
"""Keys with a file: it is read, and nothing of it is sent. A client's own certificate and key, or a file of passwords,
would prove who the process is to a server of somebody else's choice."""
_SYSTEM = ("sslrootcert", "system")
"""The certificates that the machine trusts."""
_OPTIONS = {
    # https://www.postgresql.org/docs/current/libpq-connect.html; time-outs and the application's name are ours to set.
    "postgresql": {
        "sslmode": ".*",
        "sslrootcert": ".*",
        "ssl_min_protocol_version": ".*",
        "channel_binding": ".*",
        "gssencmode": ".*",
        "target_session_attrs": ".*",
        "options": ".*",
    },
    "mysql": {"ssl_ca": ".*", "ssl_check_hostname": "true|false", "charset": "utf8mb4"},
    "sqlite": {},
}
"""What may stand after the question mark, with the values that the driver does not check in words."""
_HOST = re.compile(r"[\w.:-]+(,[\w.:-]+)*")
"""Names and addresses: no path of a socket, also not in a form that libpq alone decodes."""


def parse_url(url: str) -> URL:
    """Read a storage URL.

    Raises:
        InvalidStudyError: it is malformed, names a database that is not supported, or says more than where that is; the
            URL itself is not repeated.
    """
    try:
        parsed = make_url(url.strip())
    except (ArgumentError, ValueError):
        parsed = None
    # What people write, and what Secrets of other tools hold; the driver is ours to choose.
    if parsed is not None:
        driver = _DRIVERS.get(parsed.drivername.partition("+")[0])
        parsed = None if driver is None else parsed.set(drivername=driver)
    if parsed is None:
        raise _refusal(
            "the storage URL must look like postgresql://user:password@host:5432/database, "
            "mysql://user:password@host:3306/database or sqlite:///file.db"
        )
    if parsed.get_backend_name() != "sqlite" and not _HOST.fullmatch(parsed.host or ""):
        raise _refusal("the storage URL must name the host of the database; a socket is a file of this machine's")
    _check_options(parsed)
    return parsed


def check_in_cluster(url: str) -> None:
    """Check that all pods of a cluster can reach the database.

    Raises:
        InvalidStudyError: it is a file, or see :func:`parse_url`.
    """
    if parse_url(url).get_backend_name() == "sqlite":
        raise _refusal("in a cluster all pods must reach the database: postgresql://…, not sqlite")


def _check_options(url: URL) -> None:
    allowed = _OPTIONS[url.get_backend_name()]
    for key, value in url.query.items():
        if key not in allowed:
            raise _refusal(
                f"the storage URL says {key}, which is not allowed there; "
                + (f"allowed are {', '.join(allowed)}" if allowed else "nothing may follow the file")
            )
        if not isinstance(value, str) or not re.fullmatch(allowed[key], value):
            words = "" if allowed[key] == ".*" else f", and be {allowed[key].replace('|', ' or ')}"
            raise _refusal(f"{key} in the storage URL must be given once{words}")
        # A device or a pipe would be read for ever.
        if key in _CERTIFICATES and (key, value) != _SYSTEM and not Path(value).is_file():
            raise _refusal(f"{key} in the storage URL is no file where the URL is read")


def _refusal(message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.STORAGE_UNREACHABLE, message)
