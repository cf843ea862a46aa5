"""What the operator does about a study whose workers fail or cannot start."""

import json
from typing import Any

import pytest

from hpstudy.api import reasons
from hpstudy_operator.decide import Decision
from hpstudy_operator.plan import MAX_ATTEMPTS
from tests.unit.operator.objects import (
    EARLIER,
    applied,
    condition,
    decided,
    deleted,
    ended_pod,
    job,
    message,
    observed,
    over,
    pod,
    ready_pod,
    stored,
    study,
    waiting_pod,
)

VERDICT = json.dumps({"reason": "ImportFailed", "message": "train:objective: there is no module 'train'"})


class TestWorkersThatFail:
    def test_an_invalid_study_fails_with_the_workers_own_words_and_the_other_groups_stop(self) -> None:
        resource = study(parallelism=2)
        jobs = job(resource, 0), job(resource, 1)
        decision = decided(observed(resource, *jobs, pods=(ended_pod(jobs[1], 2, VERDICT),)))
        assert condition(decision, "Failed") == ("True", "ImportFailed")
        assert message(decision, "Failed") == "train:objective: there is no module 'train'"
        assert deleted(decision) == [("Job", "reviews-0")]

    def test_exit_code_2_without_a_verdict_is_a_failed_group(self) -> None:
        resource = study()
        made = job(resource, condition="Failed", message="exit code 2")
        decision = decided(observed(resource, made, pods=(ended_pod(made, 2, "usage: hpstudy"),)))
        assert condition(decision, "Failed") == ("True", reasons.WORKER_GROUP_FAILED)
        assert "ended with code 2: usage: hpstudy" in message(decision, "Failed")

    def test_a_reason_that_is_no_word_is_not_passed_on(self) -> None:
        resource = study()
        made = job(resource)
        verdict = json.dumps({"reason": "not a word!", "message": "m"})
        decision = decided(observed(resource, made, pods=(ended_pod(made, 2, verdict),)))
        assert condition(decision, "Failed") == ("True", reasons.WORKER_GROUP_FAILED)

    def test_exit_code_2_of_a_sidecar_says_nothing_about_the_study(self) -> None:
        resource = study()
        made = job(resource)
        sidecar = {"name": "proxy", "state": {"terminated": {"exitCode": 2, "finishedAt": "2026-03-01T11:00:00Z"}}}
        decision = decided(observed(resource, made, pods=(pod(made, containerStatuses=[sidecar]),)))
        assert condition(decision, "Failed")[0] == "False"

    def test_a_job_that_gave_up_fails_the_study_with_the_last_words(self) -> None:
        resource = study()
        made = job(resource, condition="Failed", message="Job has reached the specified backoff limit")
        killed = ended_pod(made, 137, "last line of the log", reason="OOMKilled")
        decision = decided(observed(resource, made, pods=(killed,)))
        assert condition(decision, "Failed") == ("True", reasons.WORKER_GROUP_FAILED)
        assert "backoff limit" in message(decision, "Failed")
        assert "137 (OOMKilled): last line of the log" in message(decision, "Failed")

    def test_a_failed_study_that_was_corrected_starts_again(self) -> None:
        failed = over(study(), "Failed", "ImportFailed", completed=EARLIER)
        resource = study(generation=2, trial={"function": "right:objective"}, status=failed["status"])
        old = job(resource, condition="Failed", generation=1)
        decision = decided(observed(resource, old, pods=(ended_pod(old, 2, VERDICT),)))
        assert deleted(decision) == [("Job", "reviews-0")]
        assert ("Job", "reviews-0") in applied(decision)
        assert condition(decision, "Failed") == ("False", reasons.NOT_FAILED)

    def test_a_group_that_ended_early_is_started_again_a_few_times(self) -> None:
        resource = study()
        decision = decided(observed(resource, job(resource, condition="Complete", attempt=1)))
        assert deleted(decision) == [("Job", "reviews-0")]
        assert decision.apply[0]["metadata"]["annotations"]["hpstudy.io/attempt"] == "2"

    def test_and_then_the_study_fails(self) -> None:
        resource = study()
        decision = decided(observed(resource, job(resource, condition="Complete", attempt=MAX_ATTEMPTS)))
        assert condition(decision, "Failed") == ("True", reasons.ENDED_EARLY)
        assert not decision.apply

    def test_a_group_that_ended_is_not_started_while_others_train_the_last_trials(self) -> None:
        resource = study(parallelism=2)
        jobs = job(resource, 0, condition="Complete"), job(resource, 1)
        decision = decided(observed(resource, *jobs, storage=stored(complete=9, running=1)))
        assert (applied(decision), deleted(decision)) == ([], [])

    def test_but_it_is_when_nobody_trains_them(self) -> None:
        resource = study()
        made = job(resource, condition="Complete")
        decision = decided(observed(resource, made, storage=stored(complete=9, running=1)))
        assert applied(decision) == [("Job", "reviews-0")]


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
        made = job(resource, generation=1)
        decision = decided(observed(resource, made, pods=(ready_pod(made),)))
        assert (applied(decision), deleted(decision)) == ([], [])
