"""What the operator does about a study that is suspended, or changed while it runs."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.status import CONDITION_TYPES
from hpstudy_operator.conditions import timestamp
from hpstudy_operator.decide import POLL_SECONDS, RESYNC_SECONDS
from hpstudy_operator.observe import QUIET, Snapshot
from hpstudy_operator.storages import StorageView
from tests.unit.operator.objects import (
    NOW,
    SECRET,
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
)

NEW_IMAGE: dict[str, Any] = {"workers": {"template": {"spec": {"containers": [{"name": "worker", "image": "new:1"}]}}}}


class TestSuspend:
    def test_the_jobs_go_and_the_message_says_that_pods_still_end(self) -> None:
        resource = study(generation=2, suspend=True, parallelism=2)
        jobs = job(resource, 0), job(resource, 1)
        pods = tuple(ready_pod(made) for made in jobs)
        decision = decided(observed(resource, *jobs, pods=pods, storage=stored(complete=1, running=2)))
        assert deleted(decision) == [("Job", "reviews-0"), ("Job", "reviews-1")]
        assert applied(decision) == []
        assert condition(decision, "Running") == ("False", reasons.SUSPENDED)
        assert "2 of its pods still end" in message(decision, "Running")
        assert condition(decision, "Suspended") == ("True", reasons.SUSPENDED)
        assert decision.status["workers"] == {"desired": 0, "ready": 2}
        assert decision.requeue == POLL_SECONDS

    @pytest.mark.parametrize(
        ("minutes", "storage", "words"),
        [
            ([5], stored(complete=1, running=1), ""),
            ([7], stored(complete=1, running=1), "pod lost-0 has been ending since 2026-03-01T11:53:00Z on node n1; "),
            # What is else the matter holds up nothing that is suspended.
            ([7], StorageView(SECRET, reasons.STORAGE_UNREACHABLE, "why"), "pod lost-0 has been ending since "),
            ([7, 8], stored(running=1), "describe pod lost-0 tells why; so it is with lost-1"),
            ([7] * 5 + [5], stored(running=1), "tells why; so it is with lost-1, lost-2, lost-3 and 1 more"),
        ],
    )
    def test_pods_that_do_not_end_are_named(self, minutes: list[float], storage: StorageView, words: str) -> None:
        resource = study(generation=2, suspend=True)
        lost = [ready_pod(job(resource)) for _ in minutes]
        for number, (left, ago) in enumerate(zip(lost, minutes, strict=True)):
            left["spec"] = {**left["spec"], "nodeName": "n1"}
            left["metadata"] |= {"name": f"lost-{number}", "deletionTimestamp": timestamp(NOW - timedelta(minutes=ago))}
        decision = decided(observed(resource, leftovers=tuple(lost), storage=storage))
        assert condition(decision, "Suspended")[0] == "True"
        expected = ("True", reasons.PODS_NOT_READY) if words else ("False", reasons.SUSPENDED)
        assert condition(decision, "Stalled") == expected
        assert words in message(decision, "Stalled")
        assert decision.requeue == POLL_SECONDS, "nobody tells when it has been too long"

    def test_a_pod_that_has_not_begun_to_end_is_no_stall(self) -> None:
        resource = study(generation=2, suspend=True)
        made = job(resource)
        unready = {"type": "Ready", "status": "False", "lastTransitionTime": timestamp(NOW - timedelta(hours=1))}
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": unready["lastTransitionTime"]}
        starting = pod(made, conditions=[scheduled, unready])
        assert condition(decided(observed(resource, made, pods=(starting,))), "Stalled")[0] == "False"

    def test_at_rest_it_costs_nothing_and_is_neither_over_nor_stalled(self) -> None:
        resource = study(suspend=True, status={"startTime": "2026-03-01T09:00:00Z"})
        decision = decided(observed(resource, storage=stored(complete=1, waiting=1)))
        assert (applied(decision), deleted(decision)) == ([], [])
        assert message(decision, "Running") == "the study is suspended"
        for kind in ("Stalled", "Succeeded", "Failed"):
            assert condition(decision, kind)[0] == "False"
        assert decision.status["startTime"] == "2026-03-01T09:00:00Z"
        assert decision.requeue == RESYNC_SECONDS

    def test_a_study_that_is_made_suspended_is_accepted_and_starts_nothing(self) -> None:
        decision = decided(replace(observed(study(suspend=True)), children={}))
        assert applied(decision) == []
        assert condition(decision, "Accepted") == ("True", reasons.ACCEPTED)
        assert condition(decision, "StorageReady") == ("True", reasons.STORAGE_READY)
        assert "startTime" not in decision.status

    @pytest.mark.parametrize(
        "trouble",
        [
            {"storage": StorageView(SECRET, reasons.STORAGE_UNREACHABLE, "connection refused")},
            {"study": None, "invalid": InvalidStudyError(reasons.UNKNOWN_SAMPLER, "unknown sampler")},
        ],
    )
    def test_nothing_keeps_it_from_being_suspended(self, trouble: dict[str, Any]) -> None:
        resource = study(suspend=True)
        decision = decided(replace(observed(resource, job(resource)), **trouble))
        assert deleted(decision) == [("Job", "reviews-0")]
        assert condition(decision, "Suspended")[0] == "True"

    def test_it_goes_on_where_its_groups_were(self) -> None:
        before = decided(observed(study(suspend=True))).status
        decision = decided(observed(study(generation=2, status=dict(before)), storage=stored(waiting=1, preempted=1)))
        assert ("Job", "reviews-0") in applied(decision)
        assert condition(decision, "Suspended") == ("False", reasons.NOT_SUSPENDED)
        assert condition(decision, "Running") == ("False", reasons.WAITING_FOR_WORKERS)

    def test_but_not_before_the_pods_that_ran_have_ended(self) -> None:
        resource = study(generation=2)
        decision = decided(observed(resource, leftovers=(ready_pod(job(resource)),)))
        assert ("Job", "reviews-0") not in applied(decision)
        assert "still end" in message(decision, "Running")

    def test_a_study_that_is_over_stays_so(self) -> None:
        done = over(study(), "Succeeded", reasons.MAX_TRIALS_REACHED, completed=NOW)
        resource = study(generation=2, suspend=True, status=done["status"])
        decision = decided(observed(resource, storage=stored(complete=10)))
        assert condition(decision, "Succeeded")[0] == "True"
        assert condition(decision, "Suspended") == ("False", reasons.FINISHED)


class TestFewerGroups:
    def test_one_that_trains_ends_its_trial_first(self) -> None:
        resource = study(generation=2)
        jobs = job(resource, 0), job(resource, 1), job(resource, 2)
        pods = tuple(ready_pod(made) for made in jobs)
        decision = decided(observed(resource, *jobs, pods=pods, storage=stored(running=2, training=(0, 1))))
        assert sorted(deleted(decision)) == [("Job", "reviews-2"), ("Service", "reviews-2")], "2 has none"
        assert message(decision, "Running") == "3 of 3 worker groups ready; 1 end their trials and leave"
        assert decision.status["workers"]["desired"] == 1

    @pytest.mark.parametrize("phase", ["Pending", "Failed"])
    def test_one_whose_pods_are_gone_trains_nothing(self, phase: str) -> None:
        resource = study()
        jobs = job(resource, 0), job(resource, 1)
        pods = (pod(jobs[1], phase=phase),)
        decision = decided(observed(resource, *jobs, pods=pods, storage=stored(running=1, training=(1,))))
        assert sorted(deleted(decision)) == [("Job", "reviews-1"), ("Service", "reviews-1")]

    def test_one_that_left_is_removed(self) -> None:
        resource = study()
        jobs = job(resource, 0), job(resource, 1, condition="Complete")
        decision = decided(observed(resource, *jobs, pods=(ready_pod(jobs[0]), ended_pod(jobs[1], 0))))
        assert sorted(deleted(decision)) == [("Job", "reviews-1"), ("Service", "reviews-1")]

    def test_one_that_left_is_started_again_when_it_is_wanted_after_all(self) -> None:
        resource = study(generation=3, parallelism=2)
        jobs = job(resource, 0), job(resource, 1, condition="Complete")
        decision = decided(observed(resource, *jobs, pods=(ready_pod(jobs[0]),)))
        assert (deleted(decision), applied(decision)) == ([("Job", "reviews-1")], [("Job", "reviews-1")])


class TestNewTemplate:
    def test_a_group_that_trains_is_left_to_end_its_trial(self) -> None:
        old = job(study())
        resource = study(generation=2, **NEW_IMAGE)
        decision = decided(observed(resource, old, pods=(ready_pod(old),), storage=stored(running=1, training=(0,))))
        assert (applied(decision), deleted(decision)) == ([], [])
        assert "1 end their trials and start again as the study is now" in message(decision, "Running")

    def test_one_that_left_is_made_anew_and_its_end_was_not_early(self) -> None:
        old = job(study(), condition="Complete", attempt=3)
        resource = study(generation=2, **NEW_IMAGE)
        decision = decided(observed(resource, old, pods=(ended_pod(old, 0),)))
        assert (deleted(decision), applied(decision)) == ([("Job", "reviews-0")], [("Job", "reviews-0")])
        (made,) = decision.apply
        assert made["metadata"]["annotations"]["hpstudy.io/attempt"] == "0"
        assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "new:1"
        assert (
            made["metadata"]["annotations"]["hpstudy.io/revision"]
            != old["metadata"]["annotations"]["hpstudy.io/revision"]
        )
        assert condition(decision, "Failed")[0] == "False"

    def test_one_between_two_trials_goes_and_the_next_waits_for_its_pods(self) -> None:
        old = job(study())
        resource = study(generation=2, **NEW_IMAGE)
        decision = decided(observed(resource, old, pods=(ready_pod(old),)))
        assert (deleted(decision), applied(decision)) == ([("Job", "reviews-0")], [])

    @pytest.mark.parametrize(
        "spec", [{"budget": {"maxTrials": 99}}, {"retries": {"oom": 3}}, {"parallelism": 1, "suspend": False}]
    )
    def test_what_makes_no_other_pods_restarts_nothing(self, spec: dict[str, Any]) -> None:
        old = job(study())
        decision = decided(observed(study(generation=2, **spec), old, pods=(ready_pod(old),)))
        assert ("Job", "reviews-0") not in [*applied(decision), *deleted(decision)]

    def test_a_job_of_an_operator_that_wrote_no_revision_is_left_alone(self) -> None:
        resource = study()
        old = job(resource)
        del old["metadata"]["annotations"]["hpstudy.io/revision"]
        decision = decided(observed(resource, old, pods=(ready_pod(old),)))
        assert (applied(decision), deleted(decision)) == ([], [])


def at_work(minutes: float, ready: float = 1000, **trials: int) -> dict[str, Any]:
    """The status of a study in which no trial has moved for so long."""
    ago = {name: timestamp(NOW - timedelta(minutes=each)) for name, each in (("moved", minutes), ("ready", ready))}
    counts = stored(**trials).snapshot
    assert counts is not None
    running = {"type": "Running", "status": "True", "reason": reasons.TRIALS_RUNNING, "message": ""}
    return {
        "conditions": [{**running, "lastTransitionTime": ago["ready"]}],
        "trials": counts.counts.model_dump(),
        "lastTrialTime": ago["moved"],
    }


class TestQuiet:
    @pytest.mark.parametrize(
        ("minutes", "ready", "longest", "spec", "reason"),
        [
            (20, 1000, 60, {}, reasons.PROGRESSING),
            (40, 1000, 60, {}, reasons.TRIALS_OVERDUE),
            (40, 10, 60, {}, reasons.PROGRESSING),  # the workers have only come back
            (100, 1000, 3600, {}, reasons.PROGRESSING),
            (301, 1000, 3600, {}, reasons.TRIALS_OVERDUE),
            (600, 1000, None, {}, reasons.PROGRESSING),  # the first trials, of which nobody knows how long they take
            (600, 1000, None, {"trialTimeout": "1h"}, reasons.TRIALS_OVERDUE),
            (65, 1000, 60, {"trialTimeout": "1h"}, reasons.PROGRESSING),
        ],
    )
    def test_trials_that_take_many_times_as_long_as_any_before_are_a_stall(
        self, minutes: float, ready: float, longest: float | None, spec: dict[str, Any], reason: str
    ) -> None:
        resource = study(status=at_work(minutes, ready, complete=2, running=1), **spec)
        made = job(resource)
        view = stored(complete=2, running=1, longest=longest, training=(0,))
        decision = decided(observed(resource, made, pods=(ready_pod(made),), storage=view))
        assert condition(decision, "Stalled")[1] == reason
        assert (reason == reasons.PROGRESSING) or "kubectl -n team logs -l hpstudy.io/study=reviews" in message(
            decision, "Stalled"
        )

    @pytest.mark.parametrize(("minutes", "stalled"), [(29, "False"), (31, "True")])
    def test_so_are_workers_that_are_ready_and_ask_for_nothing(self, minutes: float, stalled: str) -> None:
        status = at_work(1000, minutes)
        status.pop("lastTrialTime")
        resource = study(status=status)
        made = job(resource)
        decision = decided(observed(resource, made, pods=(ready_pod(made),)))
        assert condition(decision, "Stalled")[0] == stalled
        assert (stalled == "False") or condition(decision, "Stalled")[1] == reasons.NO_TRIAL_STARTED

    def test_a_movement_ends_it(self) -> None:
        resource = study(status=at_work(1000, complete=2, running=1))
        made = job(resource)
        decision = decided(observed(resource, made, pods=(ready_pod(made),), storage=stored(complete=3, longest=1)))
        assert condition(decision, "Stalled")[0] == "False"
        assert decision.status["lastTrialTime"] == timestamp(NOW)

    def test_the_time_of_the_last_movement_stays_while_nothing_moves(self) -> None:
        status = at_work(10, complete=2)
        resource = study(status=status)
        assert (
            decided(observed(resource, storage=stored(complete=2))).status["lastTrialTime"] == status["lastTrialTime"]
        )
        assert "lastTrialTime" not in decided(observed(study())).status, "none ever has"

    @pytest.mark.parametrize(("seconds", "stalled"), [(30, "False"), (90, "True")])
    def test_a_storage_that_is_away_for_a_while_is_a_stall_in_its_own_words(self, seconds: float, stalled: str) -> None:
        since = timestamp(NOW - timedelta(seconds=seconds))
        away = {"type": "StorageReady", "status": "False", "reason": "x", "message": "", "lastTransitionTime": since}
        view = StorageView(SECRET, reasons.STORAGE_UNREACHABLE, "connection refused; it is tried again")
        decision = decided(observed(study(status={"conditions": [away]}), storage=view))
        assert condition(decision, "Stalled")[0] == stalled
        assert (stalled == "False") or message(decision, "Stalled") == "connection refused; it is tried again"


def test_workers_that_are_killed_again_and_again_between_trials_fail_the_study() -> None:
    resource = study(status=at_work(QUIET.total_seconds() / 60, complete=3))
    made = job(resource)
    pods = tuple(ended_pod(made, 137, reason="OOMKilled") for _ in range(11))
    decision = decided(observed(resource, made, pods=pods, storage=stored(complete=3)))
    assert condition(decision, "Failed") == ("True", reasons.WORKER_GROUP_FAILED)
    assert "11 of its pods were killed" in message(decision, "Failed")
    progressed = decided(observed(resource, made, pods=pods, storage=stored(complete=4)))
    assert condition(progressed, "Failed")[0] == "False", "those were before the last trial"


@pytest.mark.parametrize("spec", [{}, {"suspend": True}])
def test_every_condition_is_there_and_about_this_very_spec(spec: dict[str, Any]) -> None:
    resource = study(generation=7, **spec)
    made = job(resource)
    for decision in (
        decided(observed(resource, made, pods=(ready_pod(made),))),
        decided(observed(resource, storage=stored(complete=10))),
        decided(observed(resource, storage=StorageView(SECRET, reasons.STORAGE_UNREACHABLE, "why"))),
        decided(Snapshot(resource, invalid=InvalidStudyError(reasons.INVALID_OPTION, "no"))),
    ):
        found = {c["type"]: c["observedGeneration"] for c in decision.status["conditions"]}
        assert found == dict.fromkeys(CONDITION_TYPES, 7)
