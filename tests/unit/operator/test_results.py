"""What a study leaves for others: the ConfigMap with its best trial, and the Job of onSuccess, case by case."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hpstudy.api import reasons
from hpstudy.api.names import LABEL_FINAL, LABEL_STUDY
from hpstudy.api.status import BestTrial
from hpstudy.api.success import OnSuccessStatus
from hpstudy_operator.conditions import timestamp
from hpstudy_operator.decide import Decision
from hpstudy_operator.final_job import build_final_job
from hpstudy_operator.groups import Group
from hpstudy_operator.observe import LINGER, Snapshot, is_settled
from hpstudy_operator.results import HELD_SECONDS, LOOK_SECONDS, final_changes
from tests.unit.operator.objects import (
    EARLIER,
    IMAGE,
    NOW,
    condition,
    decided,
    deleted,
    job,
    observed,
    over,
    pod,
    ready_pod,
    stored,
    study,
    waiting_pod,
)

FINAL: dict[str, Any] = {"spec": {"template": {"spec": {"containers": [{"name": "final", "args": ["{{ lr }}"]}]}}}}
BEST = BestTrial(number=4, values={"eval_f1": 0.9}, hyperparameters={"lr": 0.01})
DONE = stored(complete=10, best=(BEST,))
QUEUE = "kueue.x-k8s.io/queue-name"
REGISTRY: dict[str, Any] = {"imagePullSecrets": [{"name": "registry"}]}
LONG_AGO = NOW - LINGER - timedelta(seconds=1)


def succeeded(record: dict[str, Any] | None = None, generation: int = 1, **spec: Any) -> dict[str, Any]:
    fields = {"onSuccess": {"template": FINAL}, **spec}
    made = over(study(generation, **fields), "Succeeded", reasons.MAX_TRIALS_REACHED, completed=EARLIER)
    if record is not None:
        made["status"]["onSuccess"] = record
    return made


def pending(**more: Any) -> dict[str, Any]:
    return {"job": "reviews-final", "trial": 4, "state": "Pending", "observedGeneration": 1, **more}


def final(resource: dict[str, Any], generation: int = 1, **status: Any) -> dict[str, Any]:
    made = build_final_job(resource, {"lr": "0.01"}, image=IMAGE)
    made["metadata"] |= {"uid": "final", "creationTimestamp": "2026-03-01T11:59:58Z"}
    made["metadata"]["annotations"]["hpstudy.io/generation"] = str(generation)
    made["status"] = status
    return made


def seen(resource: dict[str, Any], made: dict[str, Any] | None = None, *pods: dict[str, Any], **more: Any) -> Snapshot:
    snapshot = observed(resource, storage=more.pop("storage", DONE), **more)
    return snapshot if made is None else replace(snapshot, final=Group(-1, made, pods))


def results(decision: Decision) -> list[tuple[str, str]]:
    return [(result["kind"], result["metadata"]["name"]) for result in decision.results]


class TestBest:
    def test_it_is_applied_when_it_says_something_new_and_not_again(self) -> None:
        resource = study()
        first = decided(observed(resource, job(resource), storage=stored(complete=1, best=(BEST,))))
        assert results(first) == [("ConfigMap", "reviews-best")]
        there = {("ConfigMap", "reviews-best"): first.results[0]}
        again = decided(observed(resource, job(resource), storage=stored(complete=2, best=(BEST,)), children=there))
        assert results(again) == []
        other = replace(stored(complete=2), snapshot=None)
        assert results(decided(observed(resource, job(resource), storage=other, children=there))) == []

    def test_what_the_best_trial_no_longer_has_goes(self) -> None:
        resource = study()
        first = decided(observed(resource, storage=stored(complete=1, best=(BEST,)))).results[0]
        more = {**first, "data": {**first["data"], "HPSTUDY_PARAM_MOMENTUM": "0.9"}}
        there = {("ConfigMap", "reviews-best"): more}
        assert results(decided(observed(resource, storage=stored(complete=1, best=(BEST,)), children=there)))

    def test_the_last_trial_may_be_the_best(self) -> None:
        resource = study()
        decision = decided(observed(resource, job(resource), storage=DONE))
        assert condition(decision, "Succeeded")[0] == "True"
        assert results(decision) == [("ConfigMap", "reviews-best")]


class TestTheJob:
    def test_it_is_written_down_before_it_is_made(self) -> None:
        first = decided(seen(succeeded()))
        assert first.status["onSuccess"] == pending()
        assert ("Job", "reviews-final") not in results(first)
        second = decided(seen(succeeded(pending())))
        assert ("Job", "reviews-final") in results(second)
        assert second.results[-1]["spec"]["template"]["spec"]["containers"][0]["args"] == ["0.01"]

    def test_no_study_that_goes_on_or_failed_gets_one(self) -> None:
        going = study(onSuccess={"template": FINAL})
        assert "onSuccess" not in decided(observed(going, storage=stored(complete=3, best=(BEST,)))).status
        failed = over(going, "Failed", reasons.MAX_FAILED_TRIALS_EXCEEDED, completed=EARLIER)
        assert "onSuccess" not in decided(seen(failed)).status

    def test_without_a_best_trial_there_is_nothing_to_make(self) -> None:
        record = decided(seen(succeeded(), storage=stored(pruned=10))).status["onSuccess"]
        assert (record["state"], "within the constraints" in record["message"]) == ("Failed", True)
        assert "trial" not in record
        assert OnSuccessStatus.model_validate(record).trial is None

    def test_what_the_best_trial_lacks_is_told(self) -> None:
        template = {"spec": {"template": {"spec": {"containers": [{"name": "final", "image": "a:{{ momentum }}"}]}}}}
        space = {"python": "m:f"}
        decision = decided(seen(succeeded(pending(), onSuccess={"template": template}, searchSpace=space)))
        record = decision.status["onSuccess"]
        assert record["state"] == "Failed"
        assert "containers[0].image: the best trial has no momentum" in record["message"]
        assert ("Job", "reviews-final") not in results(decision)

    def test_it_waits_for_its_pod_and_says_why(self) -> None:
        resource = succeeded(pending())
        made = final(resource, active=1)
        decision = decided(seen(resource, made, waiting_pod(made, "ErrImagePull", "no such image")))
        record = decision.status["onSuccess"]
        assert (record["state"], record["startTime"]) == ("Pending", "2026-03-01T11:59:58Z")
        assert record["message"].endswith("correct the image or the imagePullSecrets in onSuccess.template")
        assert decision.requeue <= LOOK_SECONDS
        held = final(resource)
        held["spec"]["suspend"] = True
        assert "admitted" in decided(seen(resource, held)).status["onSuccess"]["message"]

    def test_since_when_it_waits_for_its_first_pod_is_written_down_until_that_starts(self) -> None:
        resource = succeeded(pending(startTime="2026-03-01T11:59:58Z"))
        made = final(resource, active=1)

        def record(made: dict[str, Any], *pods: dict[str, Any], **before: Any) -> dict[str, Any]:
            resource["status"]["onSuccess"] = pending(startTime="2026-03-01T11:59:58Z", **before)
            found: dict[str, Any] = decided(seen(resource, made, *pods)).status["onSuccess"]
            return found

        waiting = waiting_pod(made, "ErrImagePull", "no such image")
        assert record(made, waiting)["waitingSince"] == timestamp(NOW)
        assert record(made, waiting, waitingSince="2026-03-01T11:00:00Z")["waitingSince"] == "2026-03-01T11:00:00Z"
        # It runs, and its probe does not say yet that it is ready.
        assert "waitingSince" not in record(made, pod(made), waitingSince="2026-03-01T11:00:00Z")
        assert "waitingSince" not in record(final(resource, ready=1), waitingSince="2026-03-01T11:00:00Z")
        # Its pod was evicted, and the next waits: the first one started.
        assert "waitingSince" not in record(made, waiting, state="Running")
        held = final(resource)
        held["spec"]["suspend"] = True
        assert "waitingSince" not in record(held, waitingSince="2026-03-01T11:00:00Z")
        resource["status"]["onSuccess"] = record(made, waiting)
        OnSuccessStatus.model_validate(resource["status"]["onSuccess"])
        gone = decided(seen(resource)).status["onSuccess"]
        assert (gone["state"], "waitingSince" in gone) == ("Failed", False)

    def test_one_that_gets_no_pod_says_so(self) -> None:
        resource = succeeded(pending(startTime="2026-03-01T11:00:00Z"))
        made = final(resource)
        assert "message" not in decided(seen(resource, made)).status["onSuccess"], "it is two seconds old"
        made["metadata"]["creationTimestamp"] = "2026-03-01T11:00:00Z"
        words = (
            "the cluster makes no pods for Job 'reviews-final'; kubectl -n team describe job reviews-final tells why"
        )
        assert decided(seen(resource, made)).status["onSuccess"]["message"] == words

    def test_one_that_cannot_be_made_is_tried_again_every_minute(self) -> None:
        resource = succeeded(pending(message="the Job is refused: no quota"))
        decision = decided(seen(resource))
        assert ("Job", "reviews-final") in results(decision)
        assert decision.requeue == HELD_SECONDS
        theirs = {("Job", "reviews-final"): {"metadata": {"name": "reviews-final"}}}
        taken = decided(seen(succeeded(pending()), children=theirs))
        assert "belongs to something else" in taken.status["onSuccess"]["message"]
        resource["status"]["onSuccess"] = taken.status["onSuccess"]
        assert decided(seen(resource, children=theirs)).requeue == HELD_SECONDS

    def test_workers_that_hang_do_not_outlive_it_while_it_cannot_be_made(self) -> None:
        resource = succeeded(pending(message="the Job is refused: no quota"))
        worker = job(resource)
        assert deleted(decided(observed(resource, worker, storage=DONE))) == []
        resource["status"]["completionTime"] = LONG_AGO.isoformat()
        assert deleted(decided(observed(resource, worker, storage=DONE))) == [("Job", "reviews-0")]

    def test_its_end_stays_when_it_is_gone(self) -> None:
        ended = pending(state="Succeeded", startTime="2026-03-01T11:59:58Z", completionTime="2026-03-01T11:59:59Z")
        decision = decided(seen(succeeded(ended)))
        assert decision.status["onSuccess"] == ended
        assert ("Job", "reviews-final") not in results(decision)

    def test_a_later_success_with_the_same_best_trial_keeps_it_unless_it_failed(self) -> None:
        ran = pending(state="Succeeded", startTime="2026-03-01T11:59:58Z")
        assert decided(seen(succeeded(ran, generation=2))).status["onSuccess"] == ran
        failed = {**ran, "state": "Failed"}
        resource = succeeded(failed, generation=2)
        again = decided(seen(resource, final(resource)))
        assert again.status["onSuccess"] == pending(observedGeneration=2)
        assert deleted(again) == [("Job", "reviews-final")]

    def test_the_old_one_is_gone_before_the_new_one_is_made(self) -> None:
        resource = succeeded(pending(observedGeneration=2), generation=2)
        decision = decided(seen(resource, final(resource, generation=1, ready=1)))
        assert decision.status["onSuccess"]["state"] == "Pending"
        assert ("Job", "reviews-final") not in results(decision)


class TestLongAfter:
    def test_it_is_followed_and_not_taken_for_a_worker_that_hangs(self) -> None:
        resource = succeeded(pending(startTime="2026-03-01T11:59:58Z"))
        resource["status"]["completionTime"] = LONG_AGO.isoformat()
        assert is_settled(resource, NOW)
        worker = job(resource)
        groups = (Group(0, worker, (ready_pod(worker),)),)
        made = final(resource, conditions=[{"type": "Complete", "status": "True", "lastTransitionTime": "later"}])
        decision = decided(Snapshot(resource, groups=groups, final=Group(-1, made)))
        assert decision.status["onSuccess"]["state"] == "Succeeded"
        assert deleted(decision) == [("Job", "reviews-0")]

    def test_a_study_is_not_left_alone_before_its_job_is_made(self) -> None:
        for record in (None, pending()):
            resource = succeeded(record)
            resource["status"]["completionTime"] = LONG_AGO.isoformat()
            assert not is_settled(resource, NOW)
        failed = succeeded(pending(state="Failed", completionTime="2026-03-01T11:59:59Z"))
        failed["status"]["completionTime"] = LONG_AGO.isoformat()
        assert is_settled(failed, NOW)


class TestThePod:
    def test_it_has_the_workers_image_and_checkpoints_and_is_no_worker(self) -> None:
        volume = {"persistentVolumeClaim": {"claimName": "checkpoints"}}
        workers = {"template": {"spec": {"containers": [{"name": "worker", "image": "mine:1"}]}}}
        resource = study(onSuccess={"template": FINAL}, checkpoints={"volume": volume}, workers=workers)
        resource["metadata"]["labels"] = {QUEUE: "team", "team": "nlp"}
        made = build_final_job(resource, {"lr": "0.01"}, image=IMAGE)
        assert made["metadata"]["labels"][LABEL_STUDY] == "reviews"
        template = made["spec"]["template"]
        assert template["metadata"]["labels"] == {LABEL_FINAL: "reviews"}
        pod, container = template["spec"], template["spec"]["containers"][0]
        assert container["image"] == "mine:1"
        assert {"name": "hpstudy-checkpoints", "mountPath": "/checkpoints"} in container["volumeMounts"]
        assert {"name": "hpstudy-checkpoints", **volume} in pod["volumes"]
        assert (pod["automountServiceAccountToken"], pod["restartPolicy"]) == (False, "Never")
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False

    def test_it_is_queued_as_the_workers_are_but_for_the_size_of_their_gang(self) -> None:
        resource = study(onSuccess={"template": FINAL})
        resource["metadata"] |= {
            "labels": {QUEUE: "team", "kueue.x-k8s.io/priority-class": "high", "team": "nlp"},
            "annotations": {"scheduling.volcano.sh/queue-name": "q", "scheduling.volcano.sh/group-min-member": "4"},
        }
        metadata = build_final_job(resource, {"lr": "0.01"}, image=IMAGE)["metadata"]
        assert metadata["labels"].items() >= {QUEUE: "team", "kueue.x-k8s.io/priority-class": "high"}.items()
        assert "team" not in metadata["labels"]
        assert metadata["annotations"] == {"scheduling.volcano.sh/queue-name": "q", "hpstudy.io/generation": "1"}
        own = {**FINAL, "metadata": {"labels": {QUEUE: "own"}}}
        resource["spec"]["onSuccess"] = {"template": own}
        assert build_final_job(resource, {"lr": "0.01"}, image=IMAGE)["metadata"]["labels"][QUEUE] == "own"

    @pytest.mark.parametrize(
        ("own", "workers", "expected"),
        [
            ({}, {}, {}),
            ({}, REGISTRY | {"serviceAccountName": "w"}, REGISTRY | {"serviceAccountName": "w"}),
            ({}, {"serviceAccount": "w"}, {"serviceAccount": "w"}),
            ({"serviceAccount": "me"}, {"serviceAccountName": "w"}, {"serviceAccount": "me"}),
            ({"serviceAccountName": "me"}, REGISTRY, REGISTRY | {"serviceAccountName": "me"}),
            ({"imagePullSecrets": []}, REGISTRY, {"imagePullSecrets": []}),
        ],
    )
    def test_it_pulls_its_image_and_opens_its_volumes_as_the_workers_do(
        self, own: dict[str, Any], workers: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        template = {"spec": {"template": {"spec": {"containers": [{"name": "final"}], **own}}}}
        resource = study(onSuccess={"template": template}, workers={"template": {"spec": workers}})
        pod = build_final_job(resource, {}, image=IMAGE)["spec"]["template"]["spec"]
        found = {key: pod[key] for key in ("imagePullSecrets", "serviceAccountName", "serviceAccount") if key in pod}
        assert found == expected
        assert pod["automountServiceAccountToken"] is False

    def test_what_the_user_says_of_it_counts(self) -> None:
        pod = {"restartPolicy": "OnFailure", "serviceAccountName": "me", "automountServiceAccountToken": True}
        containers = [{"name": "side", "image": "side:1"}, {"name": "worker", "image": "own:1"}]
        template = {"spec": {"backoffLimit": 2, "template": {"spec": {**pod, "containers": containers}}}}
        made = build_final_job(study(onSuccess={"template": template}), {}, image=IMAGE)
        spec = made["spec"]["template"]["spec"]
        assert made["spec"]["backoffLimit"] == 2
        assert {key: spec[key] for key in pod} == pod
        assert [container["image"] for container in spec["containers"]] == ["side:1", "own:1"]
        assert "volumeMounts" not in spec["containers"][0]


def test_events_tell_each_change_once() -> None:
    made = pending(startTime="2026-03-01T11:59:58Z")
    assert final_changes(None, pending()) == []
    assert [c.state.reason for c in final_changes(pending(), made)] == [reasons.ON_SUCCESS_CREATED]
    (waits,) = final_changes(made, {**made, "message": "no image"})
    assert (waits.state.reason, waits.warning) == (reasons.ON_SUCCESS_WAITING, True)
    assert final_changes({**made, "message": "no image"}, {**made, "message": "no image still"}) == []
    (failed,) = final_changes(made, {**made, "state": "Failed", "message": "why"})
    assert (failed.state.reason, failed.state.message, failed.warning) == (reasons.ON_SUCCESS_FAILED, "why", True)
    (good,) = final_changes({**made, "state": "Running"}, {**made, "state": "Succeeded"})
    assert (good.state.reason, good.warning) == (reasons.ON_SUCCESS_SUCCEEDED, False)
