"""What the end of a pod means for the trial that it was running."""

from datetime import UTC, datetime
from typing import Any

import pytest

from hpstudy_operator.ends import latest_end, pod_end
from tests.unit.operator.objects import ended_pod, job, ready_pod, study

LIMITED = {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"memory": "256Mi"}}}]}}
AT = "2026-03-01T11:59:00Z"


def pod(code: int = 137, *, disruption: str = "", limited: bool = True, uid: str = "1", **ended: Any) -> dict[str, Any]:
    made = ended_pod(job(study(workers={"template": LIMITED if limited else {}})), code, **ended)
    made["metadata"]["uid"] = uid
    if disruption:
        condition = {"type": "DisruptionTarget", "status": "True", "reason": disruption, "lastTransitionTime": AT}
        made["status"]["conditions"] = [{**condition, "message": f"because of {disruption}"}]
    return made


@pytest.mark.parametrize(
    ("ended", "failure", "words"),
    [
        (pod(reason="OOMKilled"), "oom", "needed more memory than its limit of 256Mi"),
        (pod(reason="OOMKilled", limited=False), "oom", "its node had no memory left"),
        (pod(reason="OOMKilled", disruption="TerminationByKubelet"), "oom", "256Mi"),
        (pod(reason="Error", disruption="TerminationByKubelet"), "preempted", "because of TerminationByKubelet"),
        (pod(143, disruption="EvictionByEvictionAPI"), "preempted", "was evicted"),
        (pod(143, disruption="PreemptionByScheduler"), "preempted", "was evicted"),
        (pod(disruption="DeletionByTaintManager"), "lost", "because of DeletionByTaintManager"),
        (pod(disruption="DeletionByPodGC", finishedAt=None), "lost", "because of DeletionByPodGC"),
        (pod(143), "preempted", "pod reviews-0-0-x was told to stop"),
        (pod(reason="Error"), "lost", "container worker ended with code 137"),
        (pod(1, message="Segmentation fault"), "lost", "Segmentation fault"),
    ],
)
def test_the_end_of_a_pod_has_a_class(ended: dict[str, Any], failure: str, words: str) -> None:
    found = pod_end(ended)
    assert found is not None
    assert found.failure == failure
    assert words in found.message
    assert found.at == datetime(2026, 3, 1, 11, 59, tzinfo=UTC)


def test_a_sidecar_that_ran_out_of_memory_is_not_the_trial() -> None:
    made = pod(reason="OOMKilled")
    made["status"]["containerStatuses"][0]["name"] = "sidecar"
    found = pod_end(made)
    assert found is not None
    assert found.failure == "lost"


def test_a_pod_that_runs_or_ended_well_says_nothing() -> None:
    resource = study()
    assert pod_end(ready_pod(job(resource))) is None
    assert pod_end(ended_pod(job(resource), 0)) is None


def test_the_latest_counts() -> None:
    early = pod(1, uid="early", finishedAt="2026-03-01T11:00:00Z")
    late = pod(uid="late", reason="OOMKilled", finishedAt="2026-03-01T11:30:00Z")
    found = latest_end([late, early])
    assert found is not None
    assert found.uid == "late"
    assert latest_end([]) is None
