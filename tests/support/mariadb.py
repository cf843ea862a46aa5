"""A real MariaDB for the block, in a second or two: unsafe against power cuts, and the tests' own."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql

from tests.support.processes import free_port, hack, start, stop, unprivileged, wait_until
from tests.support.tls import Certificate, make_certificate

_OPTIONS = (
    "--no-defaults",
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--skip-name-resolve",
    "--bind-address=127.0.0.1",
    "--max-connections=300",
)
USER = PASSWORD = "hpstudy"


class MariaDB:
    """A server with an administrator `hpstudy` (password `hpstudy`)."""

    def __init__(self, directory: Path, certificate: Certificate | None) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self.certificate = certificate
        self._directory = directory

    def url(self, database: str) -> str:
        """Return the URL as a user of HPStudy writes it."""
        return f"mysql://{USER}:{PASSWORD}@{self.host}:{self.port}/{database}"

    def sql(self, statement: str, database: str | None = None) -> tuple[tuple[Any, ...], ...]:
        """Run SQL as the administrator; return the rows."""
        with (
            contextlib.closing(
                pymysql.connect(
                    host=self.host,
                    port=self.port,
                    user=USER,
                    password=PASSWORD,
                    database=database,
                    autocommit=True,
                    ssl_ca=str(self.certificate.file) if self.certificate else None,
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return tuple(cursor.fetchall())

    def create_database(self, name: str) -> str:
        """Create an empty database, as the documentation says, and return its URL."""
        self.sql(f"create database `{name}` character set utf8mb4 collate utf8mb4_bin")
        return self.url(name)

    def accepts(self) -> bool:
        """Whether it takes connections yet."""
        with contextlib.suppress(pymysql.Error):
            self.sql("select 1")
            return True
        return False


@contextlib.contextmanager
def mariadb(*, tls: bool = False) -> Iterator[MariaDB]:
    """Run a MariaDB of the block's own.

    Args:
        tls: it takes no connection without.
    """
    program = hack("mariadb.sh")
    user = unprivileged("mysql")
    # Not below pytest's tmp_path, which only its owner may enter.
    directory = Path(tempfile.mkdtemp(prefix="hpstudy-maria-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        server = MariaDB(directory, make_certificate(directory, user) if tls else None)
        if user:
            shutil.chown(directory, user)
        prepare = directory / "init.sql"
        prepare.write_text(
            f"create user {USER}@'%' identified by '{PASSWORD}';\ngrant all on *.* to {USER}@'%' with grant option;\n"
        )
        install = ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal"]
        install += [f"--datadir={directory}/data", "--skip-test-db"]
        subprocess.run(install, user=user, check=True, capture_output=True)
        log = directory / "server.log"
        where = [f"--datadir={directory}/data", f"--socket={directory}/socket", f"--port={server.port}"]
        own = [f"--init-file={prepare}", f"--pid-file={directory}/pid"]
        if server.certificate:
            own += [f"--ssl-cert={server.certificate.file}", f"--ssl-key={server.certificate.key}"]
            own += ["--require-secure-transport=on"]
        process = start([program, *_OPTIONS, *where, *own], log, user=user)
        wait_until(server.accepts, process, log)
        yield server
    finally:
        if process:
            stop(process)
        shutil.rmtree(directory, ignore_errors=True)
