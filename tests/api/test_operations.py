"""What a platform engineer sees of the operator: probes, metrics, its end, an upgrade."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.api.client import Resource
from tests.api.conftest import assert_clean
from tests.api.harness import Operator, Team, eventually, study
from tests.api.installed import SYSTEM
from tests.api.variants import LABEL
from tests.support.apiserver import ApiServer
from tests.support.postgres import Postgres
from tests.support.proxy import proxy

Replicas = Callable[..., Operator]


@pytest.fixture
def replicas(server: ApiServer, database: Postgres, tmp_path: Path) -> Iterator[Replicas]:
    """Makes operators that end with the test: the place of its log, and what is different about it."""
    made: list[Operator] = []

    def make(log: str, database_url: str = database.url(), variant: str = "", **environment: str) -> Operator:
        kubeconfig = server.kubeconfig_of(SYSTEM, "hpstudy")
        made.append(Operator(kubeconfig, database_url, tmp_path / log, **environment))
        if variant:
            made[-1].program = (sys.executable, "-m", "tests.api.variants", variant)
        return made[-1]

    yield make
    for replica in made:
        replica.stop(signal.SIGKILL)


@pytest.fixture
def away(operator: Operator, replicas: Replicas) -> Iterator[Replicas]:
    """The operator of the other tests is not there: the test starts others in its place."""
    operator.stop()
    yield replicas
    operator.start()


def test_dead_watches_fail_the_probe_and_unheard_studies_the_readiness(
    operator: Operator, server: ApiServer, replicas: Replicas, team: Team, tmp_path: Path
) -> None:
    """The API server answers everything but the watches, whose streams stay open and silent. In a replica that stands
    by: it must be able to take over."""
    config = json.loads(server.kubeconfig_of(SYSTEM, "hpstudy").read_text())
    port = int(str(urlsplit(server.url).port))
    with proxy(port, server.directory / "server.crt", server.directory / "server.key") as network:
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{network.port}"
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        replica = replicas("log", variant="hurried", pod="standby", KUBECONFIG=str(tmp_path / "kubeconfig"))
        team.apply(study("before"))
        network.hold(b"hpstudies?")  # the first list comes with the watch
        replica.launch()
        eventually(lambda: replica.probe("readyz") == 503, "an answer")
        assert replica.probe("healthz") == 200
        network.release()
        replica.wait_until_ready()
        assert replica.probe("healthz") == 200

        network.hold(b"watch=true")
        team.apply(study("unheard"))
        eventually(lambda: replica.probe("healthz") == 503, "a probe that fails")
        assert replica.probe("readyz") == 200  # nothing that other replicas could take over
        network.release()
        eventually(lambda: replica.probe("healthz") == 200, "watches that are heard again")
        assert replica.stop() == 0
    lines = [json.loads(line) for line in replica.log.read_text().splitlines()]
    assert [line for line in lines if f"{team.namespace}/unheard" in line["message"]]


def test_metrics_tell_studies_trials_passes_storage_queue_and_restarts(served: Team, operator: Operator) -> None:
    def value(name: str) -> float:
        return operator.metrics().get(name, 0.0)

    restarts = {kind: value(f"hpstudy_worker_restarts_total{{kind={kind}}}") for kind in ("pod", "group")}
    reads = value("hpstudy_storage_seconds_count{operation=read}")
    served.apply(study())
    served.end_pods(1, "a crash")
    eventually(lambda: value("hpstudy_worker_restarts_total{kind=pod}") == restarts["pod"] + 1, "a pod in its place")
    served.apply(study("images"))
    served.end_pods(0, job="images-0")
    eventually(lambda: value("hpstudy_worker_restarts_total{kind=group}") == restarts["group"] + 1, "another attempt")
    served.run_pods("images-0")
    served.complete(0.5, 0.6, name="images")
    served.poke("images")
    own = f"namespace={served.namespace}"
    eventually(lambda: value(f"hpstudy_trials{{{own},state=complete}}") == 2, "trials")
    assert value(f"hpstudy_studies{{condition=Accepted,{own},status=True}}") == 2
    served.until("Running", "True", name="images")
    running = [served.condition("Running", name)["status"] for name in ("reviews", "images")].count("True")
    eventually(lambda: value(f"hpstudy_studies{{condition=Running,{own},status=True}}") == running, "what runs")
    assert value("hpstudy_storage_seconds_count{operation=read}") > reads
    found = operator.metrics()
    assert found["hpstudy_reconcile_seconds_count"] > 0
    assert found["hpstudy_leader"] == 1
    assert {"hpstudy_queue_depth", "hpstudy_queue_oldest_seconds", "process_resident_memory_bytes"} <= found.keys()
    assert "reviews" not in "".join(found)
    for name in ("images", "reviews"):
        served.kubectl.delete("hps", name)
    eventually(lambda: not [name for name in operator.metrics() if own in name], "nothing of studies that are gone")


def test_a_stop_does_not_wait_for_a_database_that_hangs(away: Replicas, database: Postgres, team: Team) -> None:
    url = urlsplit(database.url())
    with proxy(int(str(url.port))) as network:
        through = database.url().replace(f":{url.port}/", f":{network.port}/")
        replica = away("log", through, variant="hurried")
        replica.start()
        team.apply(study())
        team.job()
        network.hold()
        team.poke()
        eventually(lambda: replica.metrics()["hpstudy_queue_oldest_seconds"] > 1, "a pass that hangs")
        assert replica.probe() == 200
        assert replica.stop() == 0
    assert_clean(replica.log)
    assert "cut off" in replica.log.read_text()


def test_an_upgrade_leaves_what_runs_alone(away: Replicas, team: Team) -> None:
    """Another version with another image of workers, whose builders would make everything differently."""
    old = away("old", HPSTUDY_RUNNER_IMAGE="runner:old")
    old.start()
    team.apply(study(parallelism=2))
    for group in range(2):
        team.run_pods(f"reviews-{group}")
    team.until("Running", "True")
    team.complete(0.5)
    team.poke()
    eventually(lambda: team.status().get("progress") == "1/10", "progress")
    team.stays_quiet()
    before = team.versions()
    assert old.stop() == 0

    new = away("new", variant="next", HPSTUDY_RUNNER_IMAGE="runner:new")
    new.start()
    team.stays_quiet()
    study_ = ("hpstudies", "reviews")
    assert {**team.versions(), study_: ""} == {**before, study_: ""}

    # What is asked for from now on is the new version's.
    job = team.job()["metadata"]
    team.edit({"parallelism": 3})
    assert _image(team.job("reviews-2")) == "runner:new"
    eventually(lambda: LABEL in _config(team)["metadata"]["labels"], "the study as the new version writes it")
    assert team.job()["metadata"]["uid"] == job["uid"]
    assert _image(team.job()) == "runner:old"
    # And what somebody broke is mended.
    team.api.patch("configmaps", team.namespace, "reviews-study", {"data": {"study.json": "{}"}})
    eventually(lambda: _config(team)["data"]["study.json"] != "{}", "a ConfigMap that is mended")
    assert new.stop() == 0
    for replica in (old, new):
        assert_clean(replica.log)


def test_every_line_about_a_study_says_which(served: Team, operator: Operator) -> None:
    served.apply(study())
    served.until("StorageReady", "True")

    def lines() -> list[Resource]:
        """About the study: kopf writes them when the status is there."""
        complete = operator.log.read_text().rpartition("\n")[0]
        return [line for line in map(json.loads, complete.splitlines()) if line.get("namespace") == served.namespace]

    about = eventually(lines, "a line about the study")
    assert {line["study"] for line in about} == {"reviews"}
    assert {"time", "level", "logger", "message"} <= about[0].keys()


def test_a_wrong_environment_is_told(replicas: Replicas) -> None:
    replica = replicas("log", HPSTUDY_LOG_LEVEL="loud")
    replica.launch()
    assert replica.end() == 1
    assert "HPSTUDY_LOG_LEVEL must be one of debug, info, warning, error" in replica.log.read_text()


def _image(job: Resource) -> str:
    return str(job["spec"]["template"]["spec"]["containers"][0]["image"])


def _config(team: Team) -> Resource:
    return eventually(lambda: team.api.find("configmaps", team.namespace, "reviews-study"), "the ConfigMap")
