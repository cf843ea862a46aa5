"""What the operator does about a study whose workers fail."""

import json
from typing import Any

import pytest

from hpstudy.api import reasons
from hpstudy.api.status import StudyStatus, TrialCounts
from hpstudy_operator.decide import Decision
from hpstudy_operator.kills import MAX_KILLS, MAX_RECORDS
from hpstudy_operator.plan import MAX_ATTEMPTS, MAX_ENDED_PODS
from tests.unit.operator.objects import (
    EARLIER,
    applied,
    at,
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
        old = job(study(), condition="Failed")
        decision = decided(observed(resource, old, pods=(ended_pod(old, 2, VERDICT),)))
        assert deleted(decision) == [("Job", "reviews-0")]
        assert ("Job", "reviews-0") in applied(decision)
        assert condition(decision, "Failed") == ("False", reasons.NOT_FAILED)

    @pytest.mark.parametrize(
        ("spec", "again"),
        [
            ({"ttlSecondsAfterFinished": 60}, False),
            ({"deletionPolicy": "Delete"}, False),
            ({"onSuccess": {"template": {"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}}}}, False),
            ({"budget": {"maxTrials": 11, "maxFailedTrials": 3}}, True),
            ({"retries": {"lost": 5}}, True),
        ],
    )
    def test_what_workers_know_nothing_of_does_not_start_them_again(self, spec: dict[str, Any], again: bool) -> None:
        failed = over(study(), "Failed", reasons.WORKER_GROUP_FAILED, completed=EARLIER)
        resource = study(generation=2, status=failed["status"], **spec)
        old = job(study(), condition="Failed")
        decision = decided(observed(resource, old, pods=(ended_pod(old, 1, "Segmentation fault"),)))
        assert (("Job", "reviews-0") in applied(decision)) is again
        assert condition(decision, "Failed")[0] == str(not again)
        assert decision.status.get("completionTime") == (None if again else failed["status"]["completionTime"])

    def test_a_study_that_failed_is_tried_again_when_it_was_suspended_meanwhile(self) -> None:
        old = job(study(), condition="Failed")
        pods = (ended_pod(old, 1, "Segmentation fault"),)
        failed = over(study(), "Failed", reasons.WORKER_GROUP_FAILED, completed=EARLIER)
        held = decided(observed(study(generation=2, suspend=True, status=failed["status"]), old, pods=pods))
        decision = decided(observed(study(generation=3, status=dict(held.status)), old, pods=pods))
        assert (deleted(decision), applied(decision)) == ([("Job", "reviews-0")], [("Job", "reviews-0")])
        assert condition(decision, "Failed")[0] == "False"

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


def worn_out(made: dict[str, Any], *minutes: float) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """A Job that gave up, and its pods, which failed so many minutes ago."""
    given_up = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "the limit"}
    made["status"]["conditions"] = [given_up]
    return made, tuple(ended_pod(made, 1, "Segmentation fault", finishedAt=at(ago)) for ago in minutes)


WEEK = 7 * 24 * 60
EVERY_WEEK = tuple(WEEK * weeks for weeks in range(10, -1, -1))
IN_A_ROW = tuple(range(50, -1, -5))


class TestGroupsThatGiveUp:
    @pytest.mark.parametrize(
        ("minutes", "moved", "attempt", "then"),
        [
            (EVERY_WEEK, 20, 0, 0),
            (EVERY_WEEK, 20, MAX_ATTEMPTS, 0),  # after months of work it is no attempt that failed
            (EVERY_WEEK, WEEK * 10 + 1, 0, None),  # no trial has moved since the first of them
            (IN_A_ROW, 20, 0, 1),  # other groups may have trained
            (IN_A_ROW, 20, MAX_ATTEMPTS - 1, MAX_ATTEMPTS),
            (IN_A_ROW, 20, MAX_ATTEMPTS, None),
            (IN_A_ROW, 51, 0, None),
            (IN_A_ROW, None, 0, None),
        ],
    )
    def test_one_whose_failures_are_not_in_a_row_is_made_anew(
        self, minutes: tuple[float, ...], moved: float | None, attempt: int, then: int | None
    ) -> None:
        status = {} if moved is None else {"lastTrialTime": at(moved), "trials": TrialCounts().model_dump()}
        resource = study(parallelism=2, status=status)
        old, pods = worn_out(job(resource, age=60 * (minutes[0] + 5), attempt=attempt), *minutes)
        other = job(resource, 1)
        decision = decided(observed(resource, old, other, pods=(*pods, ready_pod(other))))
        assert (condition(decision, "Failed")[0] == "True") is (then is None)
        if then is None:
            assert message(decision, "Failed").startswith("worker group 0 failed: the limit; pod reviews-0-0-x,")
            assert deleted(decision) == [("Job", "reviews-1")]
        else:
            assert (deleted(decision), applied(decision)) == ([("Job", "reviews-0")], [("Job", "reviews-0")])
            assert decision.apply[0]["metadata"]["annotations"]["hpstudy.io/attempt"] == str(then)

    def test_only_the_failures_that_the_job_counts_say_when_they_began(self) -> None:
        resource = study(status={"lastTrialTime": at(60), "trials": TrialCounts().model_dump()})
        old, pods = worn_out(job(resource, age=60 * WEEK), *IN_A_ROW)
        killed, told = (ended_pod(old, code, finishedAt=at(WEEK / 2)) for code in (137, 143))
        evicted = ended_pod(old, 1, finishedAt=at(WEEK / 2))
        evicted["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
        decision = decided(observed(resource, old, pods=(killed, told, evicted, *pods)))
        assert condition(decision, "Failed")[0] == "True"
        refused = pod(old, phase="Failed", reason="UnexpectedAdmissionError", startTime=at(61))
        decision = decided(observed(resource, old, pods=(refused, *pods)))
        assert condition(decision, "Failed")[0] == "False", "it began before the last trial"

    def test_a_verdict_and_another_end_of_the_job_are_final(self) -> None:
        resource = study(status={"lastTrialTime": at(1), "trials": TrialCounts().model_dump()})
        old, pods = worn_out(job(resource), *IN_A_ROW)
        decision = decided(observed(resource, old, pods=(*pods, ended_pod(old, 2, VERDICT))))
        assert condition(decision, "Failed") == ("True", "ImportFailed")
        old["status"]["conditions"][0]["reason"] = "PodFailurePolicy"
        assert condition(decided(observed(resource, old, pods=pods)), "Failed")[0] == "True"

    def test_the_next_job_waits_for_pods_that_still_run(self) -> None:
        resource = study(workers={"nodes": 2}, status={"lastTrialTime": at(20), "trials": TrialCounts().model_dump()})
        old, pods = worn_out(job(resource), *IN_A_ROW)
        decision = decided(observed(resource, old, pods=(*pods, pod(old, node=1))))
        assert (applied(decision), deleted(decision)) == ([], [])
        assert condition(decision, "Failed")[0] == "False"


class TestAGroupThatIsKilledWhileOthersTrain:
    """Group 1 has just ended a trial; the pods of group 0 were killed, one a minute, the last a minute ago."""

    def judged(self, kills: int, begun: int, **before: Any) -> Decision:
        status = {"lastTrialTime": at(0), "trials": TrialCounts(complete=3, total=3).model_dump(), **before}
        resource = study(parallelism=2, status=status)
        jobs = job(resource, 0, age=90 * 60), job(resource, 1)
        killed = tuple(ended_pod(jobs[0], 137, reason="OOMKilled", finishedAt=at(ago + 1)) for ago in range(kills))
        pods = (*killed, ready_pod(jobs[0]), ready_pod(jobs[1]))
        return decided(observed(resource, *jobs, pods=pods, storage=stored(begun={0: begun, 1: 4}, complete=4)))

    @pytest.mark.parametrize(
        ("kills", "since", "begun", "stalled", "failed"),
        [
            (10, 60, 0, "False", "False"),
            (11, 60, 0, "True", "False"),
            (30, 5.5, 0, "False", "False"),  # five of them since its last trial
            (30, 11.5, 0, "True", "False"),
            (30, 60, 1, "False", "False"),  # it has just begun another
            (MAX_KILLS, 60, 0, "True", "False"),
            (MAX_KILLS + 1, 60, 0, "False", "True"),
        ],
    )
    def test_only_its_own_trials_speak_for_it(
        self, kills: int, since: float, begun: int, stalled: str, failed: str
    ) -> None:
        decision = self.judged(kills, begun, killedGroups=[{"group": 0, "trials": 0, "since": at(since)}])
        assert (condition(decision, "Stalled")[0], condition(decision, "Failed")[0]) == (stalled, failed)
        if "True" in (stalled, failed):
            kind, what = ("Stalled", "begins no trial") if stalled == "True" else ("Failed", "failed")
            told = f"worker group 0 {what}: {min(kills, int(since))} of its pods were killed; pod reviews-0"
            assert message(decision, kind).startswith(told)
        if failed == "False":
            assert deleted(decision) == []

    def test_since_when_it_begins_none_is_in_the_status(self) -> None:
        first = self.judged(3, 2).status["killedGroups"]
        assert first == [{"group": 0, "trials": 2, "since": at(0)}], "nothing is known of it before the last trial"
        known = [{"group": 0, "trials": 2, "since": at(9)}]
        assert self.judged(3, 2, killedGroups=known).status["killedGroups"] == known
        assert self.judged(3, 3, killedGroups=known).status["killedGroups"] == [
            {"group": 0, "trials": 3, "since": at(0)}
        ]
        assert "killedGroups" not in self.judged(0, 3, killedGroups=known).status
        StudyStatus.model_validate({"killedGroups": first})

    def test_a_template_that_is_corrected_replaces_it(self) -> None:
        moved = {"lastTrialTime": at(0), "trials": TrialCounts(complete=3, total=3).model_dump()}
        since = {"killedGroups": [{"group": 0, "trials": 0, "since": at(60)}]}
        resource = study(generation=2, workers={"processesPerNode": 2}, status={**moved, **since})
        old = job(study())
        killed = tuple(ended_pod(old, 137, finishedAt=at(1)) for _ in range(11))
        decision = decided(observed(resource, old, pods=killed, storage=stored(complete=4)))
        assert (deleted(decision), applied(decision)[-1]) == ([("Job", "reviews-0")], ("Job", "reviews-0"))

    def test_a_pod_of_which_nobody_knows_when_it_ended(self) -> None:
        """Its container was gone when its node came back: ContainerStatusUnknown."""
        moved = {"lastTrialTime": at(0), "trials": TrialCounts(complete=3, total=3).model_dump()}
        resource = study(status={**moved, "killedGroups": [{"group": 0, "trials": 3, "since": at(60)}]})
        made = job(resource)
        unknown = ended_pod(made, 137, "new", reason="ContainerStatusUnknown", startedAt=None, finishedAt=None)
        for pods in ((unknown, ended_pod(made, 1, "old", finishedAt=at(1))), (unknown,)):
            decision = decided(observed(resource, made, pods=pods, storage=stored(complete=3)))
            assert condition(decision, "Failed")[0] == "False"
            assert pods[-1]["status"]["containerStatuses"][0]["state"]["terminated"]["message"] in message(
                decision, "Stalled"
            )

    def test_the_status_stays_small(self) -> None:
        resource = study(parallelism=100)
        jobs = [job(resource, index) for index in range(100)]
        decision = decided(observed(resource, *jobs, pods=tuple(ended_pod(made, 137) for made in jobs)))
        assert len(decision.status["killedGroups"]) == MAX_RECORDS


class TestPodsThatPileUp:
    """Those that a Job has replaced: each pass reads them, and they go with the Job alone."""

    @pytest.mark.parametrize(
        ("codes", "training", "runs", "anew"),
        [
            ([137] * (MAX_ENDED_PODS + 1), (), True, True),
            ([137, 143, 1] * MAX_ENDED_PODS, (), True, True),
            ([137] * MAX_ENDED_PODS, (), True, False),
            ([137] * (MAX_ENDED_PODS + 1), (0,), True, False),  # it ends its trial first
            ([137] * (MAX_ENDED_PODS + 1), (0,), False, True),  # the last one's trial, which its successor takes over
            ([137] * (MAX_ENDED_PODS + 1), (1,), True, True),
        ],
    )
    def test_a_job_with_many_of_them_is_made_anew_between_two_trials(
        self, codes: list[int], training: tuple[int, ...], runs: bool, anew: bool
    ) -> None:
        moved = {"lastTrialTime": at(0), "trials": TrialCounts(running=len(training), total=len(training)).model_dump()}
        resource = study(status=moved)
        made = job(resource, attempt=2)
        ended = tuple(ended_pod(made, code) for code in codes)
        live = (ready_pod(made),) if runs else ()
        storage = stored(training=training, running=len(training))
        decision = decided(observed(resource, made, pods=(*ended, *live), storage=storage))
        assert deleted(decision) == ([("Job", "reviews-0")] if anew else [])
        # The next Job waits for the pods of this one.
        assert applied(decision) == ([("Job", "reviews-0")] if anew and not runs else [])
        if decision.apply:
            assert decision.apply[0]["metadata"]["annotations"]["hpstudy.io/attempt"] == "2", "no new attempts for it"


def test_of_several_pods_that_failed_the_last_ones_words_are_told() -> None:
    resource = study()
    made = job(resource)
    pods = tuple(ended_pod(made, 1, words, finishedAt=at(ago)) for words, ago in (("new", 1), ("old", 5)))
    for listed in (pods, pods[::-1]):
        assert "new" in message(decided(observed(resource, made, pods=listed)), "Stalled")
