"""What the operator tells the workers of the ends of their pods: a real API server and Job controller, a real
PostgreSQL, and the worker's own loop. The test is the kubelet."""

from datetime import UTC, datetime
from typing import Any

import pytest

from hpstudy.api.load import parse_study
from hpstudy.api.names import stored_study_name
from hpstudy.storage import attributes
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from hpstudy_operator.plan import MAX_ENDED_PODS
from tests.api.client import Resource
from tests.api.harness import Team, container, eventually, study
from tests.support.trials import take

MEMORY = {"template": {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"memory": "64Mi"}}}]}}}
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "make room"}


def worker(served: Team) -> TrialLoop:
    """As the driver in pod 0 opens it."""
    made = parse_study({**served.study(), "status": {}})
    return TrialLoop(made.spec, served.secret(), stored_study_name(made.metadata))


def end_pod(served: Team, code: int, reason: str, *conditions: Resource) -> str:
    """As the kubelet: the only pod of the group ended, now; returns its uid."""
    (pod,) = served.pods()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = container(pod, {"terminated": {"exitCode": code, "reason": reason, "finishedAt": now}})
    stamped = [{**condition, "lastTransitionTime": now} for condition in conditions]
    served.set_pod(pod, {"phase": "Failed", "conditions": stamped, "containerStatuses": [status]})
    return str(pod["metadata"]["uid"])


def recorded(served: Team) -> dict[str, Any]:
    with served.trials() as trials:
        found: dict[str, Any] = trials.user_attrs.get(f"{attributes.ENDED_PREFIX}0", {})
        return found


@pytest.mark.parametrize(
    ("code", "reason", "conditions", "failure", "words"),
    [
        (137, "OOMKilled", (), "oom", "needed more memory than its limit of 64Mi"),
        (143, "Error", (DISRUPTED,), "preempted", "make room"),
    ],
)
def test_a_killed_pod_s_trial_ends_with_the_class_that_the_operator_saw(
    served: Team, code: int, reason: str, conditions: tuple[Resource, ...], failure: str, words: str
) -> None:
    served.apply(study(workers=MEMORY, retries={"oom": 1}))
    served.run_pods()
    served.until("Running", "True")
    with worker(served) as loop:
        first = take(loop)
        loop._locks.close()  # as the end of its process does
        uid = end_pod(served, code, reason, *conditions)
        eventually(lambda: recorded(served).get("uid") == uid, "the record of the end")
        with worker(served) as successor:
            again = take(successor)
            assert (again.parameters, again.continues) == (first.parameters, first.number)
            served.poke()
            count = "retried" if failure == "oom" else "preempted"
            served.kubectl("wait", "hps/reviews", f"--for=jsonpath={{.status.trials.{count}}}=1", "--timeout=60s")
            assert served.status()["trials"]["failed"] == 0
    with served.trials() as trials:
        ended = trials.trials[first.number].user_attrs
        assert ended[attributes.FAILURE] == failure
        assert words in ended[attributes.MESSAGE]
    assert_told_once(served)
    # Three trials of the group whose pod was killed. One that was told to stop was not.
    killed = [(each["group"], each["trials"]) for each in served.status().get("killedGroups", [])]
    assert killed == ([(0, 3)] if failure == "oom" else [])
    # The Job makes another pod, and nothing is counted against it.
    (replacement,) = [pod for pod in eventually(lambda: two_pods(served), "a replacement") if phase(pod) != "Failed"]
    assert replacement["metadata"]["uid"] != uid
    assert served.job()["status"].get("failed", 0) == 0
    assert served.condition("Failed")["status"] == "False"


def assert_told_once(served: Team) -> None:
    """Further passes write nothing about an end that was told."""
    with served.trials() as trials:
        trials.set_user_attr(f"{attributes.ENDED_PREFIX}0", {"by": "the test"})
    served.complete(0.5)
    served.poke()
    served.kubectl("wait", "hps/reviews", "--for=jsonpath={.status.trials.complete}=1", "--timeout=60s")
    assert recorded(served) == {"by": "the test"}


def two_pods(served: Team) -> list[Resource] | None:
    found = served.api.list("pods", served.namespace)
    return found if len(found) == 2 else None


def phase(pod: Resource) -> str:
    return str(pod["status"]["phase"])


def test_a_job_whose_ended_pods_pile_up_is_made_anew_once_its_trial_has_ended(served: Team) -> None:
    served.apply(study())
    served.run_pods()
    served.until("Running", "True")
    (live,), before = served.pods(), served.job()["metadata"]["uid"]
    with worker(served) as loop:
        trial = take(loop)
        served.poke()
        served.kubectl("wait", "hps/reviews", "--for=jsonpath={.status.trials.running}=1", "--timeout=60s")
        for number in range(MAX_ENDED_PODS + 1):
            leave_pod(served, live, f"reviews-0-0-old{number}")
        served.stays_quiet()
        assert len(served.api.list("pods", served.namespace)) == MAX_ENDED_PODS + 2
        assert served.job()["metadata"]["uid"] == before
        loop.tell(trial, Outcome(values=(0.5,)))
    served.poke()
    eventually(lambda: renewed(served, before), "another Job")
    served.run_pods()
    served.until("Running", "True")
    eventually(lambda: len(served.api.list("pods", served.namespace)) == 1, "the pods of the first Job to go")
    assert served.condition("Failed")["status"] == "False"


def renewed(served: Team, before: str) -> bool:
    return bool(served.job()["metadata"]["uid"] != before)


def leave_pod(served: Team, like: Resource, name: str) -> None:
    """A pod of the same Job that told its worker to stop, long ago."""
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": like["spec"]}
    assert served.api.create("pods", served.namespace, made) == ""
    terminated = {"exitCode": 143, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}
    status = container(made, {"terminated": terminated})
    served.set_pod(made, {"phase": "Failed", "containerStatuses": [status]})
    # Now that it has ended: the Job controller removes a second pod of an index that has not.
    kept = {key: like["metadata"][key] for key in ("labels", "annotations", "ownerReferences")}
    served.api.patch("pods", served.namespace, name, {"metadata": kept})


def test_retries_may_change_while_the_study_runs_and_the_last_error_ends_it(served: Team) -> None:
    served.apply(study(budget={"maxTrials": 10, "maxFailedTrials": 0}))
    served.run_pods()
    served.until("Running", "True")
    with worker(served) as loop:
        first = take(loop)
        served.edit({"retries": {"oom": 1}})
        served.until("Accepted", "True")
        loop.tell(first, Outcome(failure=attributes.Failure.OOM, message="CUDA out of memory"))
        again = take(loop)
        assert again.parameters == first.parameters
        loop.tell(again, Outcome(failure=attributes.Failure.OOM, message="CUDA out of memory"))
    served.poke()
    failed = served.until("Failed", "True", "MaxFailedTrialsExceeded")
    assert "trial 1, oom: CUDA out of memory; given up after 2 runs" in failed["message"]
    events = served.kubectl("get", "events", "-o", "jsonpath={.items[*].message}")
    assert "trial 1, oom: CUDA out of memory; given up after 2 runs" in events
    assert served.status()["trials"] == {
        **dict.fromkeys(("waiting", "running", "complete", "pruned", "preempted"), 0),
        "total": 2,
        "failed": 1,
        "retried": 1,
    }
