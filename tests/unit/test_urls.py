"""What a storage's URL may say: a tenant writes it, and the operator connects with it."""

from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest
from sqlalchemy import create_engine, text

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.storage.connecting import connect_args
from hpstudy.storage.errors import StorageRefusedError, storage_errors
from hpstudy.storage.opening import open_engine, open_storage
from hpstudy.storage.urls import check_in_cluster, parse_url
from tests.support.prying_mysql import PryingMySQL, prying_mysql

SECRET = "the operator's token"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h:5432/d",
        "postgres://u:p@h/d?sslmode=verify-full&sslrootcert=system",
        "postgresql+psycopg2://u:p@first,second/d?target_session_attrs=read-write",
        "postgresql://u@[::1]:5432/d?options=-c%20search_path%3Dmine",
        f"postgresql://u@h/d?sslmode=verify-ca&sslrootcert={__file__}",
        "mysql://u:p@h/d?charset=utf8mb4",
        f"mariadb://u:p@h/d?ssl_ca={__file__}&ssl_check_hostname=false",
        "sqlite:///study.db",
    ],
)
def test_a_url_says_where_the_database_is_and_how_it_is_known(url: str) -> None:
    parsed = parse_url(url)
    assert parse_url(parsed.render_as_string(hide_password=False)) == parsed


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        # What reads files of this machine, or lets the server ask for them.
        (
            "mysql://u:secret@h/d?local_infile=1",
            "says local_infile, .* allowed are ssl_ca, ssl_check",
        ),
        ("mysql://u:secret@h/d?charset=utf8mb4&read_default_file=/etc/my.cnf", "says read_default_file"),
        ("mysql://u:secret@h/d?init_command=select+1", "says init_command"),
        ("mysql://u:secret@h/d?unix_socket=/run/mysqld.sock", "says unix_socket"),
        ("mysql://u:secret@h/d?ssl_key=/key", "says ssl_key"),
        ("mysql://u:secret@h/d?plugin=any", "says plugin"),
        ("postgresql://u:secret@h/d?passfile=/.pgpass", "says passfile, .* allowed are sslmode, "),
        ("postgresql://u:secret@h/d?service=other", "says service"),
        ("postgresql://u:secret@h/d?sslcert=/crt&sslkey=/key", "says sslcert"),
        ("postgresql://u:secret@h/d?gssdelegation=1", "says gssdelegation"),
        # Another place than the one that it shows.
        ("postgresql://u:secret@h/d?host=/run/postgresql", "says host"),
        ("postgresql://u:secret@h/d?hostaddr=10.0.0.1", "says hostaddr"),
        ("postgresql://u:secret@%2Frun%2Fpostgresql/d", "must name the host"),
        ("postgresql://u:secret@h,@socket/d", "must name the host"),
        ("postgresql://u:secret@/d", "must name the host"),
        ("mysql://u:secret@/d", "must name the host"),
        # What a driver would read for ever, or not understand.
        ("mysql://u:secret@h/d?ssl_ca=/dev/zero", "ssl_ca in the storage URL is no file"),
        ("mysql://u:secret@h/d?ssl_ca=system", "ssl_ca in the storage URL is no file"),
        ("postgresql://u:secret@h/d?sslrootcert=/nowhere", "sslrootcert in the storage URL is no file"),
        ("mysql://u:secret@h/d?ssl_check_hostname=maybe", "given once, and be true or false"),
        ("mysql://u:secret@h/d?charset=latin7", "given once, and be utf8mb4"),
        ("postgresql://u:secret@h/d?sslmode=require&sslmode=disable", "sslmode in the storage URL must be given once"),
        ("sqlite:///study.db?mode=ro", "says mode, .* nothing may follow the file"),
    ],
)
def test_it_says_nothing_else(url: str, complaint: str) -> None:
    with pytest.raises(InvalidStudyError, match=complaint) as refusal:
        parse_url(url)
    assert refusal.value.reason == reasons.STORAGE_UNREACHABLE
    assert "secret" not in str(refusal.value)


def test_in_a_cluster_it_is_no_file_of_one_machine() -> None:
    check_in_cluster("postgresql://h/d")
    with pytest.raises(InvalidStudyError, match="all pods must reach the database"):
        check_in_cluster("sqlite:////run/study.db")


@pytest.fixture
def wanted(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(SECRET)
    return tmp_path / "token"


def test_a_server_that_asks_for_a_file_gets_it_from_a_client_that_lets_it(wanted: Path) -> None:
    """Or the tests below would show nothing."""
    with prying_mysql(wanted) as server:
        with pymysql.connect(host="127.0.0.1", port=server.port, user="u", local_infile=True) as connection:
            connection.cursor().execute("select 1")
        assert set(server.received) == {SECRET.encode()}


@pytest.fixture
def prying(wanted: Path) -> Iterator[PryingMySQL]:
    with prying_mysql(wanted) as server:
        yield server


@pytest.mark.parametrize("query", ["", "?charset=utf8mb4"])
def test_a_server_that_asks_for_a_file_gets_nothing(prying: PryingMySQL, query: str) -> None:
    url = f"mysql://u:p@127.0.0.1:{prying.port}/d{query}"
    with pytest.raises(StorageRefusedError, match="asks for a file of this machine"):
        open_storage(url)
    with pytest.raises(StorageRefusedError), storage_errors(), open_engine(url).connect() as connection:
        connection.execute(text("select 1"))
    assert prying.asked == 2
    assert prying.received == []


def test_and_nothing_where_the_url_were_to_let_it(prying: PryingMySQL) -> None:
    url = f"mysql://u:p@127.0.0.1:{prying.port}/d?local_infile=1"
    with pytest.raises(InvalidStudyError, match="local_infile"):
        open_engine(url)
    assert not prying.asked
    # The second lock behind the first.
    plain = url.replace("mysql:", "mysql+pymysql:")
    engine = create_engine(plain, connect_args=connect_args(parse_url(url.partition("?")[0])))
    with pytest.raises(StorageRefusedError), storage_errors():
        engine.connect()
    assert prying.asked
    assert prying.received == []
