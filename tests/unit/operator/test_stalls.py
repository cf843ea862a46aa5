"""What the operator says of a study whose workers cannot start, or do not get on."""

from typing import Any

import pytest

from hpstudy.api import reasons
from hpstudy_operator.decide import PENDING_SECONDS, Decision
from tests.unit.operator.objects import (
    applied,
    at,
    condition,
    decided,
    deleted,
    ended_pod,
    job,
    message,
    observed,
    pod,
    ready_pod,
    stored,
    study,
    waiting_pod,
)

PULL = 'rpc error: code = NotFound desc = failed to pull "runner:none"'


@pytest.mark.parametrize(
    ("waiting", "detail", "reason"),
    [
        ("ErrImagePull", PULL, reasons.IMAGE_PULL_FAILED),
        ("ImagePullBackOff", f'Back-off pulling image "runner:none": ErrImagePull: {PULL}', reasons.IMAGE_PULL_FAILED),
        ("InvalidImageName", "couldn't parse image name", reasons.IMAGE_PULL_FAILED),
        ("CreateContainerConfigError", 'secret "storage" not found', reasons.CONTAINER_FAILED),
        ("CrashLoopBackOff", "back-off 5m0s restarting failed container", reasons.CONTAINER_FAILED),
    ],
)
def test_a_pod_that_cannot_start_stalls_the_study_in_the_kubelets_words(waiting: str, detail: str, reason: str) -> None:
    resource = study()
    made = job(resource)
    decision = decided(observed(resource, made, pods=(waiting_pod(made, waiting, detail),)))
    assert condition(decision, "Stalled") == ("True", reason)
    assert detail.rpartition("ErrImagePull: ")[2] in message(decision, "Stalled")
    assert "workers.template" in message(decision, "Stalled")
    assert (applied(decision), deleted(decision)) == ([], [])


def test_an_image_that_cannot_be_pulled_is_one_message_however_the_kubelet_says_it() -> None:
    resource = study()
    made = job(resource)
    texts = {
        message(decided(observed(resource, made, pods=(waiting_pod(made, *said),))), "Stalled")
        for said in [
            ("ErrImagePull", PULL),
            ("ImagePullBackOff", f'Back-off pulling image "runner:none": ErrImagePull: {PULL}'),
        ]
    }
    assert len(texts) == 1


def scheduling(text: str) -> dict[str, Any]:
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}


class TestStalled:
    def test_a_pod_that_fits_no_node(self) -> None:
        resource = study()
        made = job(resource)
        nowhere = pod(made, phase="Pending", conditions=[scheduling("0/3 nodes: Insufficient nvidia.com/gpu")])
        decision = decided(observed(resource, made, pods=(nowhere,)))
        assert condition(decision, "Stalled") == ("True", reasons.UNSCHEDULABLE)
        assert "Insufficient nvidia.com/gpu" in message(decision, "Stalled")

    def test_a_worker_that_keeps_ending(self) -> None:
        resource = study()
        made = job(resource)
        decision = decided(observed(resource, made, pods=(ended_pod(made, 1, "Segmentation fault"),)))
        assert condition(decision, "Stalled") == ("True", reasons.CONTAINER_FAILED)
        assert "Segmentation fault" in message(decision, "Stalled")

    def test_workers_that_are_killed_before_any_trial_fail_the_study_in_the_end(self) -> None:
        resource = study()
        made = job(resource)

        def after(kills: int, **trials: int) -> Decision:
            pods = tuple(ended_pod(made, 137, reason="OOMKilled") for _ in range(kills))
            return decided(observed(resource, made, pods=pods, storage=stored(**trials)))

        assert condition(after(10), "Stalled") == ("True", reasons.CONTAINER_FAILED)
        assert condition(after(11), "Failed") == ("True", reasons.WORKER_GROUP_FAILED)
        assert "11 of its pods were killed" in message(after(11), "Failed")
        assert "OOMKilled" in message(after(11), "Failed")
        assert condition(after(11, failed=1), "Failed")[0] == "False", "maxFailedTrials is the limit of trials"

    def test_a_preempted_worker_is_no_trouble(self) -> None:
        resource = study()
        made = job(resource)
        evicted = ended_pod(made, 143)
        evicted["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
        assert condition(decided(observed(resource, made, pods=(evicted,))), "Stalled")[0] == "False"

    def test_a_job_that_gets_no_pods(self) -> None:
        resource = study()
        young = decided(observed(resource, job(resource, age=10)))
        old = decided(observed(resource, job(resource, age=120)))
        assert condition(young, "Stalled")[0] == "False"
        assert condition(old, "Stalled") == ("True", reasons.PODS_MISSING)

    @pytest.mark.parametrize(
        ("conditions", "deletion", "words"),
        [
            # A volume that is not there: the kubelet says that it has begun, and no more.
            ({"PodScheduled": ("True", 7), "Ready": ("False", 7)}, None, f"starting since {at(7)} on node n1;"),
            ({"PodScheduled": ("True", 5), "Ready": ("False", 5)}, None, ""),
            ({"PodScheduled": ("True", 7)}, None, f"starting since {at(7)} on node n1;"),
            ({"PodScheduled": ("True", 5)}, None, ""),
            # It ran for a day, and the node is lost.
            ({"PodScheduled": ("True", 1440), "Ready": ("False", 5)}, None, ""),
            ({"PodScheduled": ("True", 1440), "Ready": ("False", 12)}, 7, f"ending since {at(7)} on node n1;"),
            ({"PodScheduled": ("True", 1440), "Ready": ("True", 1440)}, 7, f"ending since {at(7)} on node n1;"),
            ({"PodScheduled": ("True", 1440), "Ready": ("True", 1440)}, 5, ""),
            ({"PodScheduled": ("True", 1440), "Ready": ("True", 1440)}, -30, ""),  # a long grace period
            ({"PodScheduled": ("True", 1440), "Ready": ("True", 1440)}, None, ""),
            ({"PodScheduled": ("False", 1440)}, None, ""),  # it is gated, and waits for its queue
            ({}, None, ""),
        ],
    )
    @pytest.mark.parametrize("of", ["its Job", "a Job that is gone", "one that has ended", "two nodes, one ready"])
    def test_a_pod_that_neither_starts_nor_ends(
        self, conditions: dict[str, tuple[str, float]], deletion: float | None, words: str, of: str
    ) -> None:
        resource = study(workers={"nodes": 2 if of.startswith("two") else 1})
        made = job(resource)
        held = pod(
            made,
            phase="Running",
            node=1,
            conditions=[
                {"type": kind, "status": status, "lastTransitionTime": at(since)}
                for kind, (status, since) in conditions.items()
            ],
        )
        held["spec"] = {**held["spec"], "nodeName": "n1"}
        if deletion is not None:
            held["metadata"]["deletionTimestamp"] = at(deletion)
        seen = {
            "its Job": observed(resource, made, pods=(held,)),
            "a Job that is gone": observed(resource, leftovers=(held,)),
            "one that has ended": observed(
                resource, job(resource, condition="Complete"), pods=(held,), storage=stored(complete=1)
            ),
            "two nodes, one ready": observed(resource, made, pods=(ready_pod(made), held)),
        }[of]
        decision = decided(seen)
        assert condition(decision, "Stalled") == (
            ("True", reasons.PODS_NOT_READY) if words else ("False", reasons.PROGRESSING)
        )
        if words:
            told = message(decision, "Stalled")
            assert told == f"pod reviews-0-1-x has been {words} kubectl -n team describe pod reviews-0-1-x tells why"
        else:
            assert decision.requeue <= PENDING_SECONDS or decision.status["workers"]["ready"], "it looks again in time"

    def test_pods_that_have_ended_hold_nothing_up(self) -> None:
        resource = study()
        made = job(resource)
        left = pod(made, phase="Succeeded", conditions=[{"type": "PodScheduled", "status": "True"}])
        left["metadata"]["deletionTimestamp"] = at(60)
        assert condition(decided(observed(resource, made, pods=(left,))), "Stalled")[0] == "False"

    def test_a_job_that_waits_for_admission_is_no_trouble(self) -> None:
        resource = study()
        made = job(resource, age=3600)
        made["spec"]["suspend"] = True
        decision = decided(observed(resource, made))
        assert condition(decision, "Stalled")[0] == "False"
        assert "suspended" in message(decision, "Running")

    def test_a_corrected_template_replaces_a_job_that_cannot_start(self) -> None:
        stuck = job(study())
        resource = study(generation=2, workers={"template": {"spec": {"containers": [{"image": "right:1"}]}}})
        decision = decided(observed(resource, stuck, pods=(waiting_pod(stuck, "ErrImagePull", PULL),)))
        assert deleted(decision) == [("Job", "reviews-0")]
        assert applied(decision) == [("Job", "reviews-0")]

    def test_but_not_one_that_runs(self) -> None:
        resource = study(generation=2)
        made = job(study())
        decision = decided(observed(resource, made, pods=(ready_pod(made),)))
        assert (applied(decision), deleted(decision)) == ([], [])
