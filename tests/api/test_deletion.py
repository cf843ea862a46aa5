"""The end of an HPStudy: what stays, what goes, and that it never waits for ever."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import yaml

from hpstudy.api.names import stored_study_name
from hpstudy.api.study import KIND, Metadata
from hpstudy_operator.deletion import FINALIZER, PATIENCE, Deletion
from hpstudy_operator.kube import Kube
from hpstudy_operator.tenants import Tenants, tenant_name
from tests.api.harness import BETWEEN, Operator, Team, eventually, study
from tests.api.installed import CHART, SYSTEM, helm
from tests.api.policies import forbidden
from tests.support.apiserver import ApiServer
from tests.support.postgres import Postgres

OURS = ("hpstudies", "jobs", "pods", "services", "configmaps", "secrets")


def started(team: Team, name: str = "reviews", **spec: object) -> str:
    """A study with a trial; its name in the storage."""
    team.apply(study(name, **spec))
    team.until("StorageReady", "True", name=name)
    team.pods(f"{name}-0")
    if "storage" not in spec:
        team.complete(0.5, name=name)
    return stored_study_name(Metadata.model_validate(team.study(name)["metadata"]))


def delete(team: Team, name: str = "reviews") -> None:
    team.kubectl("delete", "hps", name, "--wait=false")


def until_gone(team: Team, name: str = "reviews") -> None:
    eventually(lambda: team.api.find("hpstudies", team.namespace, name) is None, f"the end of {name}")


def finalizers(team: Team) -> list[str]:
    return list(team.study()["metadata"].get("finalizers", []))


def stored(team: Team, database: Postgres) -> list[str]:
    """Studies in the namespace's schema, by name."""
    return database.sql(f'select study_name from "{tenant_name(team.namespace)}".studies order by 1').splitlines()


def trials(team: Team, database: Postgres) -> int:
    """Rows there that belong to trials."""
    tables = ("trials", "trial_params", "trial_values", "trial_user_attributes")
    schema = tenant_name(team.namespace)
    return sum(int(database.sql(f'select count(*) from "{schema}".{table}')) for table in tables)


def events(team: Team, reason: str) -> list[str]:
    return [event["message"] for event in team.api.list("events", team.namespace) if event["reason"] == reason]


def test_retain_waits_for_nobody_and_leaves_nothing_but_the_trials(
    served: Team, operator: Operator, database: Postgres
) -> None:
    name = started(served)
    assert finalizers(served) == []
    operator.stop(signal.SIGKILL)
    try:
        delete(served)
        for kind in OURS:
            served.until_names(kind)
    finally:
        operator.start()
    assert stored(served, database) == [name]


def test_the_secret_goes_with_the_last_study_of_the_namespace(served: Team) -> None:
    started(served, "first")
    started(served, "second")
    owners = served.api.find("secrets", served.namespace, "hpstudy-storage")["metadata"]["ownerReferences"]  # type: ignore[index]
    assert [owner["name"] for owner in owners] == ["first", "second"]
    delete(served, "first")
    served.until_names("jobs", "second-0")
    served.complete(0.6, name="second")
    delete(served, "second")
    served.until_names("secrets")


def test_delete_removes_the_study_once_no_worker_can_write(served: Team, database: Postgres) -> None:
    name = started(served, deletionPolicy="Delete")
    kept = started(served, "other")
    assert finalizers(served) == [FINALIZER]
    before = trials(served, database)
    (pod,) = served.pods()
    # As a worker that takes its time to end.
    served.api.patch("pods", served.namespace, pod["metadata"]["name"], {"metadata": {"finalizers": ["test/busy"]}})
    served.run_pods()
    delete(served)
    served.until_names("jobs", "other-0")
    for _ in range(6):  # passes
        served.poke()
        time.sleep(BETWEEN)
    assert stored(served, database) == sorted([name, kept])
    served.api.patch("pods", served.namespace, pod["metadata"]["name"], {"metadata": {"finalizers": None}})
    until_gone(served)
    assert stored(served, database) == [kept]
    assert trials(served, database) * 2 == before
    assert events(served, "StudyLeftInStorage") == []


def test_the_finalizer_follows_the_policy(served: Team, database: Postgres) -> None:
    name = started(served, deletionPolicy="Delete")
    served.edit({"deletionPolicy": "Retain"})
    eventually(lambda: finalizers(served) == [], "no finalizer")
    served.edit({"deletionPolicy": "Delete"})
    eventually(lambda: finalizers(served) == [FINALIZER], "a finalizer")
    served.poke()
    eventually(lambda: served.status().get("progress") == "1/10", "progress")
    served.stays_quiet()
    delete(served)
    until_gone(served)
    assert name not in stored(served, database)


def test_a_namespace_that_is_deleted_does_not_wait_for_its_secret(served: Team, database: Postgres) -> None:
    started(served, deletionPolicy="Delete")
    (pod,) = served.pods()
    served.kubectl.delete("secret", "hpstudy-storage")
    served.api.delete_namespace(served.namespace)
    # As the kubelet. Kubernetes deletes the pods of a namespace first, and the rest when they are gone.
    served.set_pod(pod, {"phase": "Failed"})
    until_gone(served)
    assert stored(served, database) == []
    served.kubectl("wait", "--for=delete", f"namespace/{served.namespace}", "--timeout=60s")
    served.api.create_namespace(served.namespace)  # for the fixture, which deletes it


def test_a_trigger_of_the_namespace_gets_no_more_rights_than_its_role(served: Team, database: Postgres) -> None:
    started(served, deletionPolicy="Delete")
    role = tenant_name(served.namespace)
    statements = f"""
        set role "{role}"; set search_path to "{role}";
        create function rise() returns trigger language plpgsql as $$ begin
            begin reset role; execute 'alter role "{role}" createrole'; exception when others then null; end;
            return old; end $$;
        create trigger rise before delete on studies for each row execute function rise();
    """
    database.sql(statements)
    delete(served)
    until_gone(served)
    assert stored(served, database) == []
    assert database.sql(f"select rolcreaterole from pg_roles where rolname = '{role}'") == "f"


def own_storage(team: Team, database: Postgres) -> dict[str, object]:
    url = database.create_database(team.namespace)
    team.kubectl("create", "secret", "generic", "own", f"--from-literal=url={url}")
    return {"storage": {"secretRef": {"name": "own"}}, "deletionPolicy": "Delete"}


def test_delete_removes_the_study_from_a_storage_of_its_own(served: Team, database: Postgres) -> None:
    started(served, **own_storage(served, database))
    assert database.sql("select count(*) from studies", served.namespace) == "1"
    delete(served)
    until_gone(served)
    assert database.sql("select count(*) from studies", served.namespace) == "0"
    assert served.names("secrets") == ["own"]


def test_a_study_whose_storage_nobody_knows_any_more_is_let_go_with_a_warning(served: Team, database: Postgres) -> None:
    name = started(served, **own_storage(served, database))
    served.kubectl.delete("secret", "own")
    delete(served)
    until_gone(served)
    (message,) = eventually(lambda: events(served, "StudyLeftInStorage"), "a warning")
    assert name in message
    assert "no Secret 'own'" in message


def test_a_database_that_stays_away_is_waited_for_until_patience_ends(
    served: Team, database: Postgres, kube: Kube, tenants: Tenants
) -> None:
    name = started(served, deletionPolicy="Delete")
    database.stop(signal.SIGINT)
    try:
        delete(served)
        waiting = served.until("StorageReady", "False", "StorageUnreachable")
        assert "cannot be removed from the storage: connection" in waiting["message"]
        for _ in range(6):  # passes
            served.poke()
            time.sleep(BETWEEN)
        assert len(events(served, "StorageUnreachable")) == 1
        resource = kube.get(KIND, served.namespace, "reviews")
        assert resource is not None
        deletion, at = Deletion(kube, tenants), datetime.fromisoformat(resource["metadata"]["deletionTimestamp"])
        assert deletion.advance(resource, at + PATIENCE - timedelta(seconds=1)) is not None
        assert finalizers(served) == [FINALIZER]
        deletion.advance(kube.get(KIND, served.namespace, "reviews") or {}, at + PATIENCE)
        until_gone(served)
    finally:
        database.start()
    (message,) = events(served, "StudyLeftInStorage")
    assert name in message
    assert stored(served, database) == [name]


def test_a_database_that_refuses_is_told_of_and_asked_again(served: Team, database: Postgres) -> None:
    started(served, deletionPolicy="Delete")
    schema = tenant_name(served.namespace)
    database.sql(f"""
        create function "{schema}".refuse() returns trigger language plpgsql as
            $$ begin raise exception 'kept for the audit'; end $$;
        create trigger refuse before delete on "{schema}".studies for each row execute function "{schema}".refuse();
    """)
    delete(served)
    assert "kept for the audit" in served.until("StorageReady", "False", "StorageRefused")["message"]
    assert finalizers(served) == [FINALIZER]
    database.sql(f'drop trigger refuse on "{schema}".studies')
    until_gone(served)
    assert stored(served, database) == []


def test_jobs_that_may_not_be_deleted_are_told_of_and_waited_for_until_patience_ends(
    served: Team, database: Postgres, kube: Kube, tenants: Tenants
) -> None:
    name, other = (started(served, name, deletionPolicy="Delete") for name in ("reviews", "other"))
    collectors = "request.userInfo.username.startsWith('system:serviceaccount:kube-system:')"
    probe = ("delete", "job", "reviews-0")
    with forbidden(served, "DELETE", collectors, "workers stay", *probe):
        delete(served)
        assert "workers stay" in served.until("StorageReady", "False", "Refused")["message"]
        resource = served.study()
        deletion, at = Deletion(kube, tenants), datetime.fromisoformat(resource["metadata"]["deletionTimestamp"])
        assert deletion.advance(resource, at + PATIENCE - timedelta(seconds=1)) is not None
        assert stored(served, database) == sorted([name, other]), "its workers may still write"
        deletion.advance(served.study(), at + PATIENCE)
        until_gone(served)
        (message,) = events(served, "StudyLeftInStorage")
        assert "workers stay" in message
        delete(served, "other")
        served.until("StorageReady", "False", "Refused", name="other")
    until_gone(served, "other")
    assert stored(served, database) == [name]


def test_a_database_that_comes_back_still_loses_the_study(served: Team, database: Postgres) -> None:
    started(served, deletionPolicy="Delete")
    database.stop(signal.SIGINT)
    try:
        delete(served)
        served.until("StorageReady", "False", "StorageUnreachable")
    finally:
        database.start()
    until_gone(served)
    assert stored(served, database) == []


def test_retain_also_helps_a_deletion_that_waits(served: Team, database: Postgres) -> None:
    name = started(served, deletionPolicy="Delete")
    database.stop(signal.SIGINT)
    try:
        delete(served)
        served.until("StorageReady", "False", "StorageUnreachable")
        served.edit({"deletionPolicy": "Retain"})
        until_gone(served)
    finally:
        database.start()
    assert stored(served, database) == [name]


def test_a_study_goes_when_its_time_to_live_is_over(served: Team) -> None:
    served.apply(study(budget={"maxTrials": 1}, ttlSecondsAfterFinished=4))
    served.pods()
    served.complete(0.5)
    served.poke()
    completed = served.until("Succeeded", "True")["lastTransitionTime"]
    until_gone(served)
    assert datetime.now(UTC) - datetime.fromisoformat(completed) >= timedelta(seconds=4)
    served.until_names("jobs")


def test_a_time_to_live_that_ended_while_the_operator_was_away_is_noticed(served: Team, operator: Operator) -> None:
    served.apply(study(budget={"maxTrials": 1}, ttlSecondsAfterFinished=3600))
    served.pods()
    served.complete(0.5)
    served.poke()
    served.until("Succeeded", "True")
    operator.stop(signal.SIGKILL)
    ended = (datetime.now(UTC) - timedelta(seconds=3601)).strftime("%Y-%m-%dT%H:%M:%SZ")
    served.api.patch("hpstudies", served.namespace, "reviews", {"status": {"completionTime": ended}})
    operator.start()
    until_gone(served)


def test_a_study_that_is_not_over_outlives_its_time_to_live(served: Team) -> None:
    served.apply(study(ttlSecondsAfterFinished=0))
    served.run_pods()
    served.until("Running", "True")
    served.stays_quiet()
    assert served.names("hpstudies") == ["reviews"]


def test_what_the_chart_runs_when_it_is_uninstalled_frees_the_studies(
    served: Team, server: ApiServer, operator: Operator, database: Postgres
) -> None:
    """With the rights that it has then, in either order: before the deletion, and after."""
    names = [started(served, deletionPolicy="Delete"), started(served, "other", deletionPolicy="Delete")]
    text = helm("template", "hpstudy", str(CHART), f"--namespace={SYSTEM}", "--show-only=templates/uninstall.yaml")
    hook = [found for found in yaml.safe_load_all(text) if found]
    server.kubectl.in_namespace("").apply(*(found for found in hook if found["kind"] != "Job"))
    operator.stop(signal.SIGKILL)
    try:
        delete(served)
        assert served.study()["metadata"]["deletionTimestamp"]
        (job,) = (found for found in hook if found["kind"] == "Job")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        kubeconfig = server.kubeconfig_of(SYSTEM, job["spec"]["template"]["spec"]["serviceAccountName"])
        command = [sys.executable, *container["command"][1:]]
        subprocess.run(command, env={**os.environ, "KUBECONFIG": str(kubeconfig)}, check=True, timeout=60)
        until_gone(served)
        delete(served, "other")
        until_gone(served, "other")
        for kind in OURS:
            served.until_names(kind)
    finally:
        operator.start()
    assert stored(served, database) == sorted(names)
