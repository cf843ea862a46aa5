"""Several replicas, real processes: whatever is done to them, one acts."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import assert_clean
from tests.api.harness import Operator, Team, eventually, study
from tests.api.installed import SYSTEM
from tests.support.apiserver import ApiServer
from tests.support.postgres import Postgres

LEASE = "replicas"
EXIT_LOST = 3


@pytest.fixture
def replicas(
    operator: Operator, server: ApiServer, database: Postgres, tmp_path: Path
) -> Iterator[tuple[Operator, Operator]]:
    """A replica that leads, and one that stands by, instead of the operator of the other tests."""
    operator.stop()
    server.kubectl.in_namespace(SYSTEM)("delete", "lease", "hpstudy", "--ignore-not-found")
    kubeconfig = server.kubeconfig_of(SYSTEM, "hpstudy")
    pair = tuple(Operator(kubeconfig, database.url(), tmp_path / pod, pod=pod) for pod in ("first", "second"))
    try:
        for replica in pair:
            replica.start()
            eventually(lambda: holder(server), "a leader")
        yield pair[0], pair[1]
    finally:
        for replica in pair:
            if replica.is_running():
                replica.send(signal.SIGCONT)
                assert replica.stop() in {0, EXIT_LOST}
                assert_clean(replica.log)
        operator.start()


def holder(server: ApiServer) -> str:
    spec = server.kubectl.in_namespace(SYSTEM).get("lease", "hpstudy").get("spec", {})
    return str(spec.get("holderIdentity", ""))


def leads(replica: Operator) -> bool:
    return replica.metrics()["hpstudy_leader"] == 1


def is_served(team: Team, name: str) -> None:
    """A new study gets its workers."""
    team.apply(study(name))
    team.job(f"{name}-0")


def test_one_acts_and_all_are_ready(replicas: tuple[Operator, Operator], team: Team, server: ApiServer) -> None:
    first, second = replicas
    assert holder(server) == "first"
    assert (leads(first), leads(second)) == (True, False)
    assert first.probe("readyz") == second.probe("readyz") == 200
    is_served(team, "reviews")
    eventually(lambda: first.metrics()["hpstudy_reconcile_seconds_count"], "a pass")
    assert second.metrics()["hpstudy_reconcile_seconds_count"] == 0
    assert not [name for name in second.metrics() if name.startswith("hpstudy_studies{")]


def test_a_leader_that_is_told_to_stop_hands_over(
    replicas: tuple[Operator, Operator], team: Team, server: ApiServer
) -> None:
    first, second = replicas
    is_served(team, "before")
    assert first.stop() == 0
    assert holder(server) in {"", "second"}  # given back: nobody waits for it to lapse
    eventually(lambda: leads(second), "the other leads")
    is_served(team, "after")
    eventually(lambda: second.metrics()["hpstudy_reconcile_seconds_count"] >= 2, "a look at what was there before")


def test_a_leader_that_is_killed_is_followed(
    replicas: tuple[Operator, Operator], team: Team, server: ApiServer
) -> None:
    first, second = replicas
    first.stop(signal.SIGKILL)
    assert holder(server) == "first"
    team.apply(study())
    team.job()
    assert leads(second)
    assert second.probe() == 200


def test_a_leader_that_was_stopped_for_long_ends_without_a_write(
    replicas: tuple[Operator, Operator], team: Team, server: ApiServer
) -> None:
    first, second = replicas
    team.apply(study())
    team.run_pods()
    team.until("Running", "True")
    first.send(signal.SIGSTOP)
    team.edit({"parallelism": 2})
    team.until_names("jobs", "reviews-0", "reviews-1")
    assert leads(second)
    team.run_pods("reviews-1")
    # The Job controller takes a second to count it, which would be taken for a write of the operator's.
    eventually(lambda: team.job("reviews-1")["status"].get("ready"), "a ready pod")
    team.complete(0.5)
    team.poke()
    eventually(lambda: team.status().get("progress") == "1/10", "progress")
    second.stop(signal.SIGKILL)  # what is written from here on is the first one's
    before = team.versions()
    # What it missed is work for it, and its Lease is not taken by anybody: only its own clock can tell it.
    team.edit({"parallelism": 3})
    study_ = ("hpstudies", "reviews")
    first.send(signal.SIGCONT)
    assert first.end() == EXIT_LOST
    assert {**team.versions(), study_: ""} == {**before, study_: ""}


def test_replicas_that_start_at_once_agree(replicas: tuple[Operator, Operator], team: Team, server: ApiServer) -> None:
    for replica in replicas:
        replica.stop(signal.SIGKILL)
    server.kubectl.in_namespace(SYSTEM)("delete", "lease", "hpstudy")
    for replica in replicas:
        replica.launch()
    for replica in replicas:
        replica.wait_until_ready()
    eventually(lambda: holder(server), "a leader")
    eventually(lambda: any(map(leads, replicas)), "one that leads")
    is_served(team, "reviews")
    leaders = [replica.pod for replica in replicas if leads(replica)]
    assert leaders == [holder(server)]
