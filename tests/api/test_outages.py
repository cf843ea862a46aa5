"""A storage that does not work is told of in its own studies, and holds up no others."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes
import psycopg2
import pytest

from hpstudy.api.load import parse_study
from hpstudy.api.study import Metadata
from hpstudy.storage import connecting
from hpstudy_operator.kube import Kube
from hpstudy_operator.storages import Storages
from hpstudy_operator.tenants import Tenants, tenant_name
from tests.api.harness import Operator, Team, eventually, study
from tests.support.apiserver import ApiServer
from tests.support.postgres import Postgres
from tests.support.proxy import proxy

MORE = 12
"""Studies of a storage that hangs: more than the operator has workers."""
SECONDS = 30.0
"""Within which another namespace's study has its storage; alone it takes two or three."""


@contextmanager
def locked(database: Postgres, namespace: str) -> Iterator[None]:
    """Somebody has left a transaction open."""
    session = psycopg2.connect(database.url().replace("+psycopg2", ""))
    session.cursor().execute(f'lock table "{tenant_name(namespace)}".trials')
    try:
        yield
    finally:
        session.close()


def others_go_on(served: Team, other: Team, operator: Operator, words: str) -> None:
    own = {"storage": served.study()["spec"]["storage"]} if "storage" in served.study()["spec"] else {}
    names = [f"more-{number}" for number in range(MORE)]
    served.poke()
    served.apply(*(study(name, **own) for name in names))
    other.apply(study())
    began = time.monotonic()
    other.until("StorageReady", "True")
    assert time.monotonic() - began < SECONDS
    for name in ("reviews", *names):
        served.until("StorageReady", "False", "StorageUnreachable", name=name)
    eventually(lambda: words in served.condition("StorageReady")["message"], words)
    assert operator.probe() == 200


def test_a_table_that_somebody_locked_holds_up_no_other_namespace(
    served: Team, other: Team, operator: Operator, database: Postgres
) -> None:
    served.apply(study())
    served.until("StorageReady", "True")
    with locked(database, served.namespace):
        others_go_on(served, other, operator, "lock timeout")
    served.until("StorageReady", "True")


def test_a_server_that_falls_silent_holds_up_no_other_namespace(
    served: Team, other: Team, operator: Operator, database: Postgres
) -> None:
    url = database.create_database(served.namespace)
    with proxy(database.port) as between:
        through = url.replace(f":{database.port}/", f":{between.port}/")
        served.kubectl("create", "secret", "generic", "own", f"--from-literal=url={through}")
        served.apply(study(storage={"secretRef": {"name": "own"}}))
        served.until("StorageReady", "True")
        between.hold()
        others_go_on(served, other, operator, "has not answered")
        between.release()
        served.until("StorageReady", "True")


def test_a_secret_that_a_quota_forbids_is_told(served: Team) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    served.kubectl.apply({**quota, "spec": {"hard": {"secrets": "0"}}})
    status = {"hard": {"secrets": "0"}, "used": {"secrets": "0"}}  # as its controller would say
    change = ["--subresource=status", "--type=merge", "-p", json.dumps({"status": status})]
    served.kubectl("patch", "resourcequota", "none", *change)
    served.apply(study())
    said = served.until("StorageReady", "False", "SecretRefused")["message"]
    assert "'hpstudy-storage' cannot be made" in said
    assert "exceeded quota" in said
    served.kubectl.delete("resourcequota", "none")
    served.poke()
    served.until("StorageReady", "True")


def test_the_administrators_sessions_are_limited_like_all_others(team: Team, kube: Kube, database: Postgres) -> None:
    tenants = Tenants(kube, f"{database.url()}?sslmode=disable")
    connecting.limit_waiting()
    try:
        with tenants._administrator() as connection, connection.cursor() as cursor:
            cursor.execute("show lock_timeout")
            assert cursor.fetchone() == (f"{connecting.LIMITED_LOCK}s",)
            assert connection.get_dsn_parameters()["keepalives_idle"] == "10"
        url = str(tenants.url(Metadata(name="reviews", namespace=team.namespace)))
        assert tenants.provision(team.namespace, url)
    finally:
        connecting.limit_waiting(False)
    psycopg2.connect(url.replace("+psycopg2", "")).close()


def test_a_namespace_whose_secret_hangs_holds_up_no_other(
    team: Team, other: Team, database: Postgres, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads(server.kubeconfig.read_text())
    port = int(str(urlsplit(server.url).port))
    with proxy(port, server.directory / "server.crt", server.directory / "server.key") as network:
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{network.port}"
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        tenants = Tenants(Kube(connections=4), database.url())
        network.hold(f"namespaces/{team.namespace}/secrets".encode())
        with ThreadPoolExecutor(2) as pool:
            hanging = pool.submit(tenants.url, Metadata(name="reviews", namespace=team.namespace))
            time.sleep(0.5)  # it is under way
            quick = pool.submit(tenants.url, Metadata(name="reviews", namespace=other.namespace))
            try:
                assert quick.result(10) == other.secret()
                assert not hanging.done()
            finally:
                network.release()
            assert hanging.result(30) == team.secret()


def test_a_database_that_a_study_has_left_is_followed_no_longer(team: Team, kube: Kube, database: Postgres) -> None:
    urls = [database.create_database(f"{team.namespace}-{number}") for number in range(2)]
    team.kubectl("create", "secret", "generic", "own", f"--from-literal=url={urls[0]}")
    team.apply(study(storage={"secretRef": {"name": "own"}}))
    storages = Storages(kube, Tenants(kube, database.url()))
    try:
        for number, url in enumerate(urls):
            team.kubectl.patch("secret", "own", {"stringData": {"url": url}})
            assert storages.look(parse_study(team.study()), 1, {}).snapshot is not None
            followed = [storages._databases[each].is_followed for each in urls if each in storages._databases]
            assert followed == [False] * number + [True]
        team.kubectl.delete("secret", "own")
        assert storages.look(parse_study(team.study()), 1, {}).snapshot is None
        assert not any(database.is_followed for database in storages._databases.values())
    finally:
        storages.close()
