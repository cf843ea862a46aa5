"""A real PgBouncer for the block, in front of a real PostgreSQL."""

import contextlib
import re
import shutil
import socket
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.postgres import PASSWORD, USER, Postgres
from tests.support.processes import REPOSITORY, free_port, hack, start, stop, unprivileged, wait_until


@dataclass(frozen=True)
class PgBouncer:
    host: str
    port: int

    def accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
            return True
        return False


def documented() -> str:
    """The settings of docs/operations.md, with the role that may read pg_authid here."""
    (block,) = re.findall(r"```ini\n(.*?)```", (REPOSITORY / "docs/operations.md").read_text(), re.S)
    settings, replaced = re.subn(r"^auth_user = .*$", f"auth_user = {USER}", textwrap.dedent(block), flags=re.M)
    assert replaced == 1
    return settings


@contextlib.contextmanager
def pgbouncer(server: Postgres) -> Iterator[PgBouncer]:
    """Run a PgBouncer of the block's own as docs/operations.md wants it: sessions, and the server's own roles."""
    program, user = hack("pgbouncer.sh"), unprivileged("postgres")
    made = PgBouncer("127.0.0.1", free_port())
    directory = Path(tempfile.mkdtemp(prefix="hpstudy-bouncer-"))
    process = None
    try:
        users, settings, log = directory / "users.txt", directory / "pgbouncer.ini", directory / "log"
        users.write_text(f'"{USER}" "{PASSWORD}"\n')
        settings.write_text(f"""
[databases]
* = host={server.host} port={server.port}
[pgbouncer]
listen_addr = {made.host}
listen_port = {made.port}
unix_socket_dir =
auth_file = {users}
max_client_conn = 200
{documented()}
""")
        for path in (directory, users, settings):
            if user:
                shutil.chown(path, user)
        process = start([program, settings], log, user=user)
        wait_until(made.accepts, process, log)
        yield made
    finally:
        if process is not None:
            stop(process)
        shutil.rmtree(directory, ignore_errors=True)
