"""An external database with TLS, whose authority is a file in the operator's pod."""

import queue
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hpstudy.api.load import parse_study
from hpstudy.api.study import Metadata
from hpstudy.storage.errors import StorageUnreachableError
from hpstudy.storage.opening import open_storage
from hpstudy_operator.deletion import FINALIZER, Deletion
from hpstudy_operator.deletion import PATIENCE as PATIENCE_OF_DELETION
from hpstudy_operator.kube import Kube
from hpstudy_operator.storages import Storages
from hpstudy_operator.tenants import Tenants, tenant_name
from tests.api.harness import PATIENCE, Team, study
from tests.support.postgres import Postgres, postgres
from tests.support.tls import make_certificate


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Postgres]:
    """A PostgreSQL that takes no connection without TLS."""
    with postgres(tls=True) as running:
        yield running


def verified(database: Postgres, authority: Path | None = None) -> str:
    """The URL of an administrator's Secret."""
    assert database.certificate is not None
    return f"{database.url()}?sslmode=verify-full&sslrootcert={authority or database.certificate.file}"


def test_what_the_administrators_url_says_of_tls_holds_for_the_namespaces_too(
    team: Team, kube: Kube, encrypted: Postgres
) -> None:
    tenants = Tenants(kube, verified(encrypted))
    url = str(tenants.url(Metadata(name="reviews", namespace=team.namespace)))
    assert tenants.provision(team.namespace, url)
    assert team.secret().endswith(verified(encrypted).partition("?")[2].replace("/", "%2F"))
    storage = open_storage(url)  # as a worker with the same file
    sessions = "select distinct ssl from pg_stat_ssl join pg_stat_activity using (pid) where usename"
    assert encrypted.sql(f"{sessions} = '{tenant_name(team.namespace)}'") == "t"
    storage.engine.dispose()


def test_a_server_that_the_authority_does_not_know_is_told_no_password(
    team: Team, kube: Kube, encrypted: Postgres, tmp_path: Path
) -> None:
    tenants = Tenants(kube, verified(encrypted, make_certificate(tmp_path).file))
    url = str(tenants.url(Metadata(name="reviews", namespace=team.namespace)))
    with pytest.raises(StorageUnreachableError, match="certificate verify failed"):
        tenants.provision(team.namespace, url)


def test_a_study_may_bring_a_storage_with_an_authority_that_the_operator_has(served: Team, encrypted: Postgres) -> None:
    served.kubectl("create", "secret", "generic", "own", f"--from-literal=url={verified(encrypted)}")
    served.apply(study(storage={"secretRef": {"name": "own"}}))
    served.until("StorageReady", "True")
    lost = verified(encrypted, Path("/nowhere/ca.crt"))
    served.kubectl("create", "secret", "generic", "lost", f"--from-literal=url={lost}")
    served.apply(study("lost", storage={"secretRef": {"name": "lost"}}))
    said = served.until("StorageReady", "False", name="lost")["message"]
    assert "sslrootcert in the storage URL is no file" in said


def test_the_administrators_authority_may_be_away_for_a_while(
    team: Team, kube: Kube, encrypted: Postgres, tmp_path: Path
) -> None:
    """As when a Secret is written anew. Passwords stay as they are; what is to be deleted waits, and not for ever."""
    authority = tmp_path / "ca.crt"
    assert encrypted.certificate is not None
    shutil.copy(encrypted.certificate.file, authority)
    tenants = Tenants(kube, verified(encrypted, authority))
    team.apply(study(deletionPolicy="Delete"))
    team.kubectl("patch", "hps/reviews", "--type=merge", f'-p={{"metadata": {{"finalizers": ["{FINALIZER}"]}}}}')
    metadata = parse_study(team.study()).metadata
    url = str(tenants.url(metadata))
    assert tenants.provision(team.namespace, url)
    authority.unlink()
    assert tenants.url(metadata) == url
    assert team.secret() == url
    team.kubectl("delete", "hps/reviews", "--wait=false")
    deletion, resource = Deletion(kube, tenants), team.study()
    deleted = datetime.fromisoformat(resource["metadata"]["deletionTimestamp"])
    assert deletion.advance(resource, deleted + PATIENCE_OF_DELETION - timedelta(seconds=1)) is not None
    assert "is no file where the URL is read" in team.condition("StorageReady")["message"]
    assert deletion.advance(team.study(), deleted + PATIENCE_OF_DELETION) is None
    team.until_names("hpstudies")


def test_an_authority_that_is_taken_away_is_its_own_studies_trouble(
    team: Team, kube: Kube, tenants: Tenants, encrypted: Postgres, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.crt"
    assert encrypted.certificate is not None
    shutil.copy(encrypted.certificate.file, authority)
    team.kubectl("create", "secret", "generic", "own", f"--from-literal=url={verified(encrypted, authority)}")
    team.apply(study(storage={"secretRef": {"name": "own"}}))
    moved: queue.Queue[tuple[str, str]] = queue.Queue()
    storages = Storages(kube, tenants, lambda *name: moved.put(name))
    storages.start()
    try:
        written = parse_study(team.study())
        assert storages.look(written, 1, {}).snapshot
        authority.unlink()
        storages._catch_up(verified(encrypted, authority))
        assert moved.get(timeout=PATIENCE) == (team.namespace, "reviews")
        assert "is no file where the URL is read" in storages.look(written, 1, {}).message
        storages.close_idle()
        shutil.copy(encrypted.certificate.file, authority)
        assert storages.look(written, 1, {}).snapshot
    finally:
        storages.close()
