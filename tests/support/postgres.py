"""A real PostgreSQL for the block, in a second: unsafe against power cuts, and the tests' own."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tests.support.processes import free_port, hack, start, stop, unprivileged, wait_until
from tests.support.tls import Certificate, make_certificate

#: Nothing that is kept matters after the test.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "listen_addresses": "127.0.0.1",
}
USER = PASSWORD = DATABASE = "postgres"


class Postgres:
    """A server with a superuser `postgres` (password `postgres`), which may be stopped and started."""

    def __init__(self, programs: Path, directory: Path, user: str | None, certificate: Certificate | None) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self.certificate = certificate
        self._programs, self._directory, self._user = programs, directory, user
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = DATABASE, user: str = USER, password: str = PASSWORD) -> str:
        """Return the URL that SQLAlchemy and Optuna take."""
        return f"postgresql+psycopg2://{quote(user)}:{quote(password)}@{self.host}:{self.port}/{database}"

    def sql(self, statement: str, database: str = DATABASE) -> str:
        """Run SQL as the superuser; return the rows, a line each, columns parted by |."""
        target = [f"--host={self._directory}", f"--port={self.port}", f"--username={USER}", f"--dbname={database}"]
        command = [str(self._programs / "psql"), "-XAtq", "--set=ON_ERROR_STOP=1", *target, f"--command={statement}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        self.sql(f'create database "{name}"')
        return self.url(name)

    def start(self) -> None:
        """Start, and return when connections are accepted."""
        log = self._directory / "server.log"
        settings = {**_SETTINGS, "port": str(self.port), "unix_socket_directories": str(self._directory)}
        if self.certificate:
            settings |= {"ssl": "on", "ssl_cert_file": str(self.certificate.file)}
            settings |= {"ssl_key_file": str(self.certificate.key)}
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        command = [str(self._programs / "postgres"), "-D", str(self._directory / "data"), *options]
        self._process = start(command, log, user=self._user)
        wait_until(self._accepts, self._process, log)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop: SIGQUIT as a crash would, SIGINT with a shutdown that ends the connections first."""
        if self._process is not None:
            stop(self._process, how)
            self._process = None

    def _accepts(self) -> bool:
        command = [str(self._programs / "pg_isready"), "-q", "-h", self.host, "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0


@contextlib.contextmanager
def postgres(*, tls: bool = False) -> Iterator[Postgres]:
    """Run a PostgreSQL of the block's own.

    Args:
        tls: it takes no connection without.
    """
    programs = Path(hack("postgres.sh"))
    user = unprivileged("postgres")
    # Not below pytest's tmp_path, which only its owner may enter.
    directory = Path(tempfile.mkdtemp(prefix="hpstudy-pg-"))
    server: Postgres | None = None
    try:
        server = Postgres(programs, directory, user, make_certificate(directory, user) if tls else None)
        if user:
            shutil.chown(directory, user)
        _initdb(programs, directory, user)
        if tls:
            (directory / "data/pg_hba.conf").write_text("local all all trust\nhostssl all all all scram-sha-256\n")
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _initdb(programs: Path, directory: Path, user: str | None) -> None:
    password = directory / "password"
    password.write_text(PASSWORD)
    if user:
        shutil.chown(password, user)
    options = "--no-sync --encoding=UTF8 --no-locale --auth-local=trust --auth-host=scram-sha-256"
    command = [str(programs / "initdb"), f"--pgdata={directory}/data", f"--username={USER}", f"--pwfile={password}"]
    subprocess.run([*command, *options.split()], user=user, check=True, capture_output=True)
