"""Databases that take no connection without TLS, and clients that know by which certificate."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from hpstudy.storage import connecting
from hpstudy.storage.errors import StorageUnreachableError, storage_errors
from hpstudy.storage.locks import SessionLocks
from hpstudy.storage.opening import open_engine, open_storage
from tests.support.mariadb import MariaDB, mariadb
from tests.support.postgres import Postgres, postgres
from tests.support.tls import make_certificate

_IS_ENCRYPTED = {
    "postgresql": "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
    "mysql": "select variable_value <> '' from information_schema.session_status where variable_name = 'Ssl_cipher'",
}


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest) -> Iterator[Postgres | MariaDB]:
    with postgres(tls=True) if request.param == "postgresql" else mariadb(tls=True) as running:
        yield running


@pytest.fixture(params=[False, True], ids=["a worker", "the operator"], autouse=True)
def _limited(request: pytest.FixtureRequest) -> Iterator[None]:
    """The operator waits for the server in a way of its own."""
    connecting.limit_waiting(request.param)
    yield
    connecting.limit_waiting(False)


def url_of(server: Postgres | MariaDB, authority: Path) -> str:
    """As the documentation says."""
    if isinstance(server, Postgres):
        return f"{server.url()}?sslmode=verify-full&sslrootcert={authority}"
    return f"{server.url('mysql')}?ssl_ca={authority}"


def test_a_url_with_the_authority_opens_encrypted_connections(server: Postgres | MariaDB) -> None:
    assert server.certificate is not None
    if isinstance(server, MariaDB):
        server.sql("create database if not exists tried character set utf8mb4 collate utf8mb4_bin")
    url = url_of(server, server.certificate.file).replace("/mysql?", "/tried?")
    storage = open_storage(url)
    engine = open_engine(url)
    for each in (storage.engine, engine):
        with each.connect() as connection:
            assert connection.scalar(text(_IS_ENCRYPTED[each.dialect.name]))
        each.dispose()
    with SessionLocks(engine.url.render_as_string(hide_password=False)) as locks:
        assert locks.acquire("any")


def test_another_authority_is_told_and_gets_no_password(server: Postgres | MariaDB, tmp_path: Path) -> None:
    stranger = make_certificate(tmp_path).file
    with (
        pytest.raises(StorageUnreachableError, match="certificate verify failed"),
        storage_errors(),
        open_engine(url_of(server, stranger)).connect(),
    ):
        pass
