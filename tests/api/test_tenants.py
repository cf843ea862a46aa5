"""Storage that the operator provides: a role and a schema for each namespace, apart from one another."""

import concurrent.futures
import json

import optuna
import psycopg2
import pytest
from sqlalchemy.engine import make_url

from hpstudy.api.study import Metadata
from hpstudy.storage.opening import open_storage
from hpstudy_operator.kube import Kube
from hpstudy_operator.tenants import Tenants, tenant_name
from tests.api.harness import Operator, Team, eventually, study
from tests.support.mariadb import MariaDB
from tests.support.postgres import Postgres


def connect(url: str) -> "psycopg2.extensions.connection":
    parsed = make_url(url)
    return psycopg2.connect(
        host=parsed.host, port=parsed.port, user=parsed.username, password=parsed.password, dbname=parsed.database
    )


def _nobody(team: Team) -> Metadata:
    """A study that does not exist, and so owns nothing."""
    return Metadata(name="reviews", namespace=team.namespace)


def test_a_tenant_cannot_read_or_write_its_neighbours_trials(served: Team, other: Team) -> None:
    for tenant in (served, other):
        tenant.apply(study())
        tenant.until("StorageReady", "True")
        tenant.complete(0.5)
    neighbour = tenant_name(other.namespace)
    with connect(served.secret()) as mine, mine.cursor() as cursor:
        cursor.execute("select count(*) from trials")
        assert cursor.fetchone() == (1,)
        cursor.execute("select current_schemas(false)")
        assert cursor.fetchone() == (
            [tenant_name(served.namespace)],
        )  # nor is there a table of all tenants' to fall on
    theirs = connect(other.secret())
    with theirs.cursor() as cursor:  # a session of theirs, in the middle of something
        cursor.execute("select lo_create(0)")
        (large_object,) = cursor.fetchone()
        theirs.commit()
        cursor.execute("create temp table theirs as select 'secret' as word")
        cursor.execute("select pg_my_temp_schema()::regnamespace::text, pg_backend_pid()")
        temporary, pid = cursor.fetchone()
        theirs.commit()
        cursor.execute("select 'their words'")
    try:
        for attempt in (
            f'select * from "{neighbour}".trials',
            f"select nextval('\"{neighbour}\".trials_trial_id_seq')",
            f"insert into \"{neighbour}\".studies (study_name) values ('mine')",
            f'update "{neighbour}".trials set number = 7',
            f'delete from "{neighbour}".trials',
            f'truncate "{neighbour}".trials cascade',
            f'drop schema "{neighbour}" cascade',
            f'create table "{neighbour}".mine (x int)',
            f'lock table "{neighbour}".trials',
            f'grant usage on schema "{neighbour}" to current_user',
            f'set role "{neighbour}"',
            f'set session authorization "{neighbour}"',
            f'grant "{neighbour}" to current_user',
            f'alter role "{neighbour}" password null',
            f'alter role "{neighbour}" set search_path to public',
            f"select lo_get({large_object})",
            f"select * from {temporary}.theirs",
            f"select 1 / pg_terminate_backend({pid})::int",
            "select * from pg_authid",
            "select pg_read_file('PG_VERSION')",
            "copy (select 1) to program 'true'",
            "create table public.mine (x int)",
            "create schema mine",
            "create role another",
            "create database another",
            "alter system set max_connections = 1",
        ):
            with pytest.raises(psycopg2.Error), connect(served.secret()) as mine, mine.cursor() as cursor:
                cursor.execute(attempt)
        with connect(served.secret()) as mine, mine.cursor() as cursor:
            cursor.execute("select query from pg_stat_activity where usename = %s", (neighbour,))
            assert {query for (query,) in cursor.fetchall()} <= {"<insufficient privilege>"}
            cursor.execute("select count(*) from pg_stats where schemaname = %s", (neighbour,))
            assert cursor.fetchone() == (0,)  # samples of values
    finally:
        theirs.close()
    assert other.status().get("progress") is not None


def test_the_secret_is_made_once_also_by_many_at_once(team: Team, tenants: Tenants) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        urls = set(pool.map(lambda _: tenants.url(_nobody(team)), range(16)))
        assert len(urls) == 1
        url = str(urls.pop())
        list(pool.map(lambda _: tenants.provision(team.namespace, url), range(16)))
    assert url == team.secret()
    connect(url).close()


def test_a_deleted_secret_means_a_new_password(served: Team) -> None:
    served.apply(study())
    served.until("StorageReady", "True")
    served.complete(0.5)
    old = served.secret()
    served.kubectl.delete("secret", "hpstudy-storage")
    served.poke()
    new = eventually(lambda: served.secret() if served.names("secrets") else None, "a new Secret")
    assert new != old
    eventually(lambda: _works(new), "the new password")
    assert not _works(old)
    served.complete(0.6)
    served.poke()
    eventually(lambda: served.status().get("progress") == "2/10", "progress")


def _works(url: str) -> bool:
    try:
        connect(url).close()
    except psycopg2.Error:
        return False
    return True


def test_an_edited_secret_reaches_no_other_role(team: Team, other: Team, tenants: Tenants) -> None:
    theirs = str(tenants.url(_nobody(other)))
    tenants.provision(other.namespace, theirs)
    tenants.provision(team.namespace, str(tenants.url(_nobody(team))))
    parsed = make_url(theirs).set(password="stolen")
    stolen = parsed.render_as_string(hide_password=False)
    team.kubectl.patch("secret", "hpstudy-storage", {"stringData": {"url": stolen}})
    mended = str(tenants.url(_nobody(team)))
    tenants.provision(team.namespace, mended)
    assert make_url(mended).username == tenant_name(team.namespace)
    assert _works(theirs)
    assert not _works(stolen)


def test_a_secret_of_the_teams_own_is_used_as_it_is(served: Team, database: Postgres) -> None:
    url = database.create_database(served.namespace)
    served.kubectl("create", "secret", "generic", "hpstudy-storage", f"--from-literal=url={url}")
    served.apply(study())
    served.until("StorageReady", "True")
    assert served.secret() == url
    assert database.sql("select count(*) from studies", served.namespace) == "1"


def test_a_study_may_bring_a_mariadb(served: Team, maria: MariaDB) -> None:
    url = maria.create_database(served.namespace)
    served.kubectl("create", "secret", "generic", "own", f"--from-literal=url={url}")
    served.apply(study(storage={"secretRef": {"name": "own"}}, budget={"maxTrials": 2}, deletionPolicy="Delete"))
    served.until("StorageReady", "True")
    served.pods()
    assert served.names("secrets") == ["own"]
    with served.trials(url=url) as trials:
        for value in (0.5, 0.7):
            trials.tell(trials.ask({"lr": optuna.distributions.FloatDistribution(0.001, 0.1)}), value)
    served.poke()
    served.until("Succeeded", "True")
    assert served.status()["bestTrials"][0]["values"] == {"eval_f1": 0.7}
    served.kubectl.delete("hps", "reviews")
    assert maria.sql("select count(*) from studies", served.namespace) == ((0,),)


def test_tables_of_a_newer_optuna_are_left_alone_and_the_study_says_so(
    served: Team, tenants: Tenants, database: Postgres
) -> None:
    url = str(tenants.url(_nobody(served)))
    tenants.provision(served.namespace, url)
    open_storage(url).engine.dispose()
    versions = f'"{tenant_name(served.namespace)}".alembic_version'
    current = database.sql(f"select version_num from {versions}")
    database.sql(f"update {versions} set version_num = 'v9.0.0.a'")
    served.apply(study())
    assert "v9.0.0.a" in served.until("StorageReady", "False", "SchemaMismatch")["message"]
    assert served.names("jobs") == []
    database.sql(f"update {versions} set version_num = '{current}'")
    served.until("StorageReady", "True")
    served.job()


def test_a_database_that_was_emptied_is_made_again_from_the_secrets(
    team: Team, tenants: Tenants, database: Postgres
) -> None:
    url = str(tenants.url(_nobody(team)))
    tenants.provision(team.namespace, url)
    name = tenant_name(team.namespace)
    database.sql(f'drop schema "{name}" cascade; drop role "{name}"')
    assert not _works(url)
    tenants.provision(team.namespace, url)
    assert tenants.url(_nobody(team)) == url
    assert _works(url)


def test_a_running_study_goes_on_when_its_database_was_emptied(served: Team, database: Postgres) -> None:
    served.apply(study())
    served.until("StorageReady", "True")
    served.complete(0.5)
    served.poke()
    eventually(lambda: served.status().get("progress") == "1/10", "progress")
    name = tenant_name(served.namespace)
    database.sql(f'drop schema "{name}" cascade; drop role "{name}"')
    served.poke()  # once: a status is not written about a study that changes all the time
    eventually(lambda: served.status()["progress"] == "0/10", "a new schema")
    served.complete(0.6)
    served.poke()
    eventually(lambda: served.status().get("progress") == "1/10", "progress")


def test_the_secret_may_name_another_host_for_the_same_database(team: Team, kube: Kube, database: Postgres) -> None:
    """As a proxy before it would be."""
    tenants = Tenants(kube, database.url(), "localhost", database.port)
    url = str(tenants.url(_nobody(team)))
    assert make_url(url).host == "localhost"
    assert tenants.provision(team.namespace, url)
    assert _works(make_url(url).set(host=database.host).render_as_string(hide_password=False))


def test_an_administrator_need_not_be_a_superuser(team: Team, kube: Kube, database: Postgres) -> None:
    admin = f"admin_{team.namespace}"
    database.sql(f"create role \"{admin}\" login createrole password 'pw'")
    database.sql(f'grant create on database postgres to "{admin}"')
    tenants = Tenants(kube, database.url(user=admin, password="pw"))
    url = str(tenants.url(_nobody(team)))
    for _ in range(2):
        tenants.provision(team.namespace, url)
    assert _works(url)


def test_no_password_is_where_it_does_not_belong(served: Team, operator: Operator) -> None:
    served.apply(study())
    served.job()
    password = str(make_url(served.secret()).password)
    everything = served.kubectl("get", "hps,jobs,pods,services,configmaps,events", "-o", "json")
    assert json.loads(everything)["items"]
    assert password not in everything
    assert password not in operator.log.read_text()
