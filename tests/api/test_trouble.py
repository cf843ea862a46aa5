"""Studies whose groups fail, wait or are refused: a real API server with its quotas, a real Job controller, and the
operator as a process with the chart's rights. The test is the kubelet."""

from datetime import UTC, datetime, timedelta

import pytest

from hpstudy_operator.apply import apply_children
from hpstudy_operator.builders import BACKOFF_LIMIT
from hpstudy_operator.decide import Decision, decide
from hpstudy_operator.kube import Kube
from hpstudy_operator.observe import observe
from hpstudy_operator.storages import Storages
from hpstudy_operator.tenants import Tenants
from tests.api.client import Resource
from tests.api.harness import RUNNER_IMAGE, Team, eventually, study
from tests.unit.operator.objects import condition, message

LONG = timedelta(minutes=7)


def uid(served: Team) -> str:
    return str(served.job()["metadata"]["uid"])


def live_pod(served: Team) -> Resource | None:
    pods = [pod for pod in served.api.list("pods", served.namespace) if pod["status"]["phase"] == "Pending"]
    return pods[0] if pods else None


def decided_later(served: Team, kube: Kube, tenants: Tenants) -> Decision:
    """What the operator would do some minutes from now."""
    storages, then = Storages(kube, tenants), datetime.now(UTC) + LONG
    try:
        return decide(observe(kube, storages, served.study(), then, image=RUNNER_IMAGE), then, image=RUNNER_IMAGE)
    finally:
        storages.close()


class TestBackoffLimit:
    @pytest.mark.parametrize("trials", [0, 1])
    def test_pods_that_fail_in_a_row_fail_the_study_and_others_their_job_alone(self, served: Team, trials: int) -> None:
        served.apply(study())
        before = uid(served)
        for number in range(BACKOFF_LIMIT + 1):
            pod = eventually(lambda: live_pod(served), "a pod")
            if trials and number == BACKOFF_LIMIT // 2:
                served.complete(0.5)
                eventually(lambda: served.status().get("progress") == "1/10", "the trial")
            # Long ago: the Job controller waits for no back-off then.
            terminated = {"exitCode": 1, "message": f"crash {number}", "finishedAt": "2026-01-01T00:00:00Z"}
            container = {"name": "worker", "image": RUNNER_IMAGE, "imageID": "", "ready": False, "restartCount": 0}
            status = {"phase": "Failed", "containerStatuses": [{**container, "state": {"terminated": terminated}}]}
            served.set_pod(pod, status)
        if trials:
            eventually(lambda: uid(served) != before, "another Job")
            assert served.job()["metadata"]["annotations"]["hpstudy.io/attempt"] == "1"
            served.until("Failed", "False")
            served.run_pods()
            served.until("Running", "True")
        else:
            failed = served.until("Failed", "True", "WorkerGroupFailed")
            assert "backoff limit" in failed["message"]
            assert uid(served) == before
            ended = served.status()["completionTime"]
            served.edit({"ttlSecondsAfterFinished": 86400, "deletionPolicy": "Delete"})
            served.until("Failed", "True", "WorkerGroupFailed")
            assert (uid(served), served.status()["completionTime"]) == (before, ended)
            served.edit({"suspend": True})
            served.until("Failed", "False")
            served.edit({"suspend": False})
            eventually(lambda: uid(served) != before, "another attempt")


class TestPodsThatAreNeitherThereNorGone:
    def test_a_pod_that_does_not_become_ready_is_a_stall(self, served: Team) -> None:
        served.apply(study())
        (pod,) = served.pods()
        since = (datetime.now(UTC) - LONG).strftime("%Y-%m-%dT%H:%M:%SZ")
        reason = {"waiting": {"reason": "ContainerCreating"}}
        container = {"name": "worker", "image": RUNNER_IMAGE, "imageID": "", "ready": False, "restartCount": 0}
        conditions = [
            {"type": kind, "status": status, "lastTransitionTime": since}
            for kind, status in (("PodScheduled", "True"), ("Ready", "False"))
        ]
        status = {"phase": "Pending", "conditions": conditions}
        served.set_pod(pod, {**status, "containerStatuses": [{**container, "state": reason}]})
        stalled = served.until("Stalled", "True", "PodsNotReady")
        name = pod["metadata"]["name"]
        assert f"pod {name} has been starting since {since}" in stalled["message"]
        assert f"kubectl -n {served.namespace} describe pod {name} tells why" in stalled["message"]
        served.stays_quiet()
        served.run_pods()
        served.until("Stalled", "False", "Progressing")

    def test_so_is_one_that_does_not_end_also_when_its_job_is_gone(
        self, served: Team, kube: Kube, tenants: Tenants
    ) -> None:
        served.apply(study())
        served.run_pods()
        served.until("Running", "True")
        (pod,) = served.pods()
        name = pod["metadata"]["name"]
        # As the pod of a node that is gone, of which nobody says that it has ended.
        served.api.patch("pods", served.namespace, name, {"metadata": {"finalizers": ["test.hpstudy.io/node"]}})
        served.edit({"suspend": True})
        served.until_names("jobs")
        served.edit({"suspend": False})
        waiting = served.until("Running", "False", "WaitingForWorkers")
        assert "the pods that ran before still end" in waiting["message"]
        assert served.condition("Stalled")["status"] == "False", "not yet"
        later = decided_later(served, kube, tenants)
        assert condition(later, "Stalled") == ("True", "PodsNotReady")
        assert f"pod {name} has been ending since" in message(later, "Stalled")
        served.api.patch("pods", served.namespace, name, {"metadata": {"finalizers": None}})
        served.job()


class TestRefused:
    def test_a_quota_holds_the_groups_up_for_which_there_is_no_room(self, served: Team) -> None:
        served.kubectl("create", "quota", "jobs", "--hard=count/jobs.batch=2")
        served.kubectl("wait", "quota/jobs", "--for=jsonpath={.status.used}", "--timeout=60s")
        served.apply(study(parallelism=4))
        served.until_names("jobs", "reviews-0", "reviews-1")
        stalled = served.until("Stalled", "True", "QuotaExceeded")
        assert "Job 'reviews-2' is refused: jobs.batch \"reviews-2\" is forbidden" in stalled["message"]
        assert "exceeded quota: jobs" in stalled["message"]
        assert ", and 1 more; it is tried again" in stalled["message"]
        served.until("Accepted", "True", "Accepted")
        served.run_pods("reviews-0")
        served.until("Running", "True")
        assert served.condition("Stalled")["reason"] == "QuotaExceeded"
        assert served.status()["startTime"]
        served.kubectl("patch", "quota", "jobs", "--patch", '{"spec": {"hard": {"count/jobs.batch": "4"}}}')
        for index in (2, 3):
            served.poke()
            served.job(f"reviews-{index}")
        served.until("Stalled", "False")

    def test_what_does_not_need_a_refused_object_is_made_all_the_same(self, team: Team, kube: Kube) -> None:
        def made(kind: str, name: str, **metadata: object) -> Resource:
            found = {
                "apiVersion": "v1",
                "kind": kind,
                "metadata": {"name": name, "namespace": team.namespace, **metadata},
            }
            if kind == "Service":
                return {**found, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}
            pod = {"restartPolicy": "Never", "containers": [{"name": "worker", "image": "x"}]}
            return {**found, "apiVersion": "batch/v1", "spec": {"template": {"spec": pod}}}

        bad = {"labels": {"a": "not a label!"}}
        objects = (made("Service", "s-0", **bad), made("Job", "s-0"), made("Job", "s-1", **bad), made("Job", "s-2"))
        refused = apply_children(kube, Decision({}, apply=objects))
        assert [(error.kind, error.name, error.status) for error in refused] == [
            ("Service", "s-0", 422),
            ("Job", "s-1", 422),
        ]
        assert team.names("jobs") == ["s-2"], "s-0 would have no names for its pods"
