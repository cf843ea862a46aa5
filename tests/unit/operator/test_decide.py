"""What the operator does about a study, case by case."""

from dataclasses import replace
from datetime import timedelta

import pytest

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.status import BestTrial, WarmStartCounts
from hpstudy.storage.reading import Stop
from hpstudy_operator.decide import PENDING_SECONDS, POLL_SECONDS, REFUSED_SECONDS, RESYNC_SECONDS, RUNNING_SECONDS
from hpstudy_operator.kube import RefusedError
from hpstudy_operator.observe import LINGER, Snapshot
from hpstudy_operator.storages import StorageView
from tests.unit.operator.objects import (
    EARLIER,
    NOW,
    SECRET,
    applied,
    condition,
    decided,
    deleted,
    job,
    message,
    observed,
    over,
    ready_pod,
    stored,
    study,
)


def refused(kind: str, status: int, words: str) -> RefusedError:
    """An object that the API server does not take."""
    return RefusedError({"kind": kind, "metadata": {"name": "reviews-0"}}, status, words)


class TestStart:
    def test_a_new_study_gets_its_config_and_for_each_group_a_service_and_a_job(self) -> None:
        resource = study(parallelism=2)
        decision = decided(replace(observed(resource), children={}))
        assert applied(decision) == [
            ("ConfigMap", "reviews-study"),
            ("Service", "reviews-0"),
            ("Job", "reviews-0"),
            ("Service", "reviews-1"),
            ("Job", "reviews-1"),
        ]
        assert condition(decision, "Accepted") == ("True", reasons.ACCEPTED)
        assert condition(decision, "StorageReady") == ("True", reasons.STORAGE_READY)
        assert condition(decision, "Running") == ("False", reasons.WAITING_FOR_WORKERS)
        assert decision.status["startTime"] == "2026-03-01T12:00:00Z"
        assert decision.status["workers"] == {"desired": 2, "ready": 0}

    def test_nothing_is_made_for_a_study_that_is_invalid(self) -> None:
        error = InvalidStudyError(reasons.UNKNOWN_SAMPLER, "unknown sampler 'Tpe'")
        decision = decided(Snapshot(study(), invalid=error))
        assert not decision.apply
        assert condition(decision, "Accepted") == ("False", reasons.UNKNOWN_SAMPLER)
        assert condition(decision, "Running") == ("False", reasons.NOT_STARTED)
        assert message(decision, "Accepted") == "unknown sampler 'Tpe'"
        assert "startTime" not in decision.status

    @pytest.mark.parametrize("reason", [reasons.SECRET_NOT_FOUND, reasons.STORAGE_UNREACHABLE])
    def test_nothing_is_made_before_the_storage_is_there_and_it_is_asked_again(self, reason: str) -> None:
        decision = decided(observed(study(), storage=StorageView(SECRET, reason, "why")))
        assert not decision.apply
        assert condition(decision, "Accepted") == ("True", reasons.ACCEPTED)
        assert condition(decision, "StorageReady") == ("False", reason)
        assert decision.requeue == POLL_SECONDS

    def test_a_spec_that_the_stored_trials_do_not_fit_is_not_accepted(self) -> None:
        error = InvalidStudyError(reasons.SPEC_CHANGED, "searchSpace changed")
        decision = decided(observed(study(), storage=replace(stored(), snapshot=None, invalid=error)))
        assert condition(decision, "Accepted") == ("False", reasons.SPEC_CHANGED)
        assert not decision.apply

    def test_what_the_api_server_refuses_is_told_and_tried_again(self) -> None:
        decision = decided(observed(study()), refused=[refused("Job", 422, "spec.template is invalid")])
        assert condition(decision, "Accepted") == ("False", reasons.INVALID_TEMPLATE)
        told = "Job 'reviews-0' is refused: spec.template is invalid; correct workers.template"
        assert message(decision, "Accepted") == told
        assert not decision.apply
        assert decision.requeue < RESYNC_SECONDS

    @pytest.mark.parametrize(
        ("kind", "status", "words", "reason"),
        [
            ("Job", 403, "forbidden: exceeded quota: jobs, requested: count/jobs.batch=1", reasons.QUOTA_EXCEEDED),
            ("Job", 403, "admission webhook denied the request: no GPUs on Sundays", reasons.REFUSED),
            ("ConfigMap", 403, "is forbidden: exceeded quota: configmaps", reasons.QUOTA_EXCEEDED),
            ("Service", 400, "a policy wants a label", reasons.REFUSED),
        ],
    )
    def test_what_it_refuses_for_another_reason_than_the_template_holds_the_study_up(
        self, kind: str, status: int, words: str, reason: str
    ) -> None:
        resource = study(parallelism=2)
        made = job(resource)
        snapshot = observed(resource, made, pods=(ready_pod(made),))
        decision = decided(snapshot, refused=[refused(kind, status, words), refused("Job", 403, "later")])
        assert condition(decision, "Accepted") == ("True", reasons.ACCEPTED)
        assert condition(decision, "Running")[0] == "True"
        assert condition(decision, "Stalled") == ("True", reason)
        told = f"{kind} 'reviews-0' is refused: {words}, and 1 more; it is tried again"
        assert message(decision, "Stalled") == told
        assert decision.requeue == REFUSED_SECONDS

    def test_a_study_has_not_started_while_all_its_jobs_are_refused(self) -> None:
        decision = decided(observed(study()), refused=[refused("Job", 403, "exceeded quota: jobs")])
        assert "startTime" not in decision.status
        assert condition(decision, "Running") == ("False", reasons.NOT_STARTED)

    def test_a_policy_may_change_without_an_event(self) -> None:
        error = InvalidStudyError(reasons.REFUSED, "the Job of a worker group is refused: no GPUs on Sundays")
        decision = decided(Snapshot(study(), invalid=error))
        assert condition(decision, "Accepted") == ("False", reasons.REFUSED)
        assert decision.requeue == REFUSED_SECONDS

    def test_a_corrected_spec_is_accepted_again(self) -> None:
        refused = decided(Snapshot(study(), invalid=InvalidStudyError(reasons.INVALID_OPTION, "no")))
        decision = decided(observed(study(generation=2, status=dict(refused.status))))
        assert condition(decision, "Accepted") == ("True", reasons.ACCEPTED)
        assert ("Job", "reviews-0") in applied(decision)


class TestRunning:
    def test_nothing_is_applied_when_everything_is_as_it_should_be(self) -> None:
        resource = study()
        made = job(resource)
        decision = decided(observed(resource, made, pods=(ready_pod(made),), storage=stored(running=1)))
        assert (applied(decision), deleted(decision)) == ([], [])
        assert condition(decision, "Running") == ("True", reasons.TRIALS_RUNNING)
        assert decision.status["workers"] == {"desired": 1, "ready": 1}
        assert decision.requeue == RUNNING_SECONDS, "its trials tell by themselves"

    def test_pods_that_wait_are_looked_at_in_case_they_wait_for_too_long(self) -> None:
        resource = study()
        made = job(resource)
        assert decided(observed(resource, made)).requeue == PENDING_SECONDS
        assert decided(observed(resource)).requeue == POLL_SECONDS, "what was just made"

    def test_the_same_observation_gives_the_same_status_later(self) -> None:
        resource = study()
        made = job(resource)
        first = decided(observed(resource, made, pods=(ready_pod(made),), storage=stored(complete=3)))
        again = study(status=dict(first.status))
        second = decided(observed(again, made, pods=(ready_pod(made),), storage=stored(complete=3)))
        assert second.status == first.status

    def test_a_group_of_two_nodes_is_ready_when_both_are(self) -> None:
        resource = study(workers={"nodes": 2})
        made = job(resource)
        half = decided(observed(resource, made, pods=(ready_pod(made),)))
        whole = decided(observed(resource, made, pods=(ready_pod(made), ready_pod(made, 1))))
        assert half.status["workers"]["ready"] == 0
        assert whole.status["workers"]["ready"] == 1

    @pytest.mark.parametrize("lost", ["Service", "ConfigMap", "Job"])
    def test_what_somebody_deleted_is_made_again(self, lost: str) -> None:
        resource = study()
        snapshot = observed(resource, job(resource))
        children = {key: child for key, child in snapshot.children.items() if key[0] != lost}
        groups = () if lost == "Job" else snapshot.groups
        decision = decided(replace(snapshot, children=children, groups=groups))
        assert [kind for kind, _ in applied(decision)] == [lost]

    def test_what_somebody_changed_is_mended_and_what_they_added_stays(self) -> None:
        resource = study()
        snapshot = observed(resource, job(resource))
        service = snapshot.children["Service", "reviews-0"]
        service["metadata"]["labels"]["team"] = "nlp"
        assert applied(decided(snapshot)) == []
        service["spec"]["ports"].append({"name": "more", "port": 1})
        assert applied(decided(snapshot)) == [("Service", "reviews-0")]

    def test_a_raised_budget_reaches_the_config_but_not_the_running_job(self) -> None:
        old = observed(study(), job(study()))
        new = study(generation=2, budget={"maxTrials": 99})
        decision = decided(replace(observed(new), groups=old.groups, children=old.children))
        assert applied(decision) == [("ConfigMap", "reviews-study")]
        assert decision.status["progress"] == "0/99"

    def test_fewer_groups_remove_the_last_ones(self) -> None:
        resource = study(parallelism=1)
        decision = decided(observed(resource, job(resource, 0), job(resource, 1)))
        assert sorted(deleted(decision)) == [("Job", "reviews-1"), ("Service", "reviews-1")]

    def test_a_group_waits_for_the_pods_of_the_job_before_it(self) -> None:
        resource = study()
        decision = decided(observed(resource, leftovers=(ready_pod(job(resource)),)))
        assert ("Job", "reviews-0") not in applied(decision)

    def test_a_job_that_is_going_is_not_made_again_yet(self) -> None:
        resource = study()
        going = job(resource, condition="Complete", deletionTimestamp="2026-03-01T12:00:00Z")
        decision = decided(observed(resource, going))
        assert (applied(decision), deleted(decision)) == ([], [])

    def test_an_object_of_somebody_else_is_never_touched(self) -> None:
        resource = study()
        foreign = job(resource, ownerReferences=[{"uid": "an-earlier-study"}])
        decision = decided(observed(resource, children={("Job", "reviews-0"): foreign}))
        assert (applied(decision), deleted(decision)) == ([], [])
        assert condition(decision, "Stalled") == ("True", reasons.NAME_TAKEN)

    def test_a_database_that_is_away_takes_nothing_from_the_status(self) -> None:
        resource = study()
        made = job(resource)
        before = decided(observed(resource, made, pods=(ready_pod(made),), storage=stored(complete=4)))
        away = StorageView(SECRET, reasons.STORAGE_UNREACHABLE, "connection refused")
        again = study(status=dict(before.status))
        after = decided(observed(again, made, pods=(ready_pod(made),), storage=away))
        assert (applied(after), deleted(after)) == ([], [])
        assert after.status["trials"]["complete"] == 4
        assert condition(after, "Running") == ("True", reasons.TRIALS_RUNNING)
        assert condition(after, "StorageReady") == ("False", reasons.STORAGE_UNREACHABLE)


class TestProgress:
    def test_one_objective_shows_its_best_value(self) -> None:
        best = (BestTrial(number=2, values={"eval_f1": 0.912345}, hyperparameters={"lr": 0.01, "optim": None}),)
        decision = decided(observed(study(), storage=stored(complete=2, pruned=1, failed=1, best=best)))
        assert decision.status["progress"] == "3/10"
        assert decision.status["best"] == "0.9123"
        assert decision.status["bestTrials"] == [
            {"number": 2, "values": {"eval_f1": 0.912345}, "hyperparameters": {"lr": 0.01, "optim": None}}
        ]
        assert "paretoFrontSize" not in decision.status

    def test_several_objectives_show_the_size_of_the_front(self) -> None:
        best = (BestTrial(number=2, values={"eval_f1": 0.9}, hyperparameters={}),)
        decision = decided(observed(study(), storage=stored(complete=5, best=best, front=3)))
        assert decision.status["best"] == "3 on the front"
        assert decision.status["paretoFrontSize"] == 3

    def test_the_sampler_that_was_chosen_is_shown_with_the_reason(self) -> None:
        chosen = "GPSampler: 20 trials of 3 flat parameters"
        assert decided(observed(study(), storage=stored(complete=5, sampler=chosen))).status["sampler"] == chosen

    def test_the_hypervolume_and_what_was_taken_from_other_studies_are_shown(self) -> None:
        taken = WarmStartCounts(trials=7, values_left_out=2, trials_left_out=1)
        decision = decided(observed(study(), storage=stored(complete=5, front=0, hypervolume=0.25, warm_start=taken)))
        assert decision.status["hypervolume"] == 0.25
        assert decision.status["warmStart"] == {"trials": 7, "valuesLeftOut": 2, "trialsLeftOut": 1}
        later = decided(observed(study(status=dict(decision.status)), storage=stored(complete=5, front=0)))
        assert "hypervolume" not in later.status, "a front that grew too large has none"

    def test_a_study_whose_trials_are_all_beyond_its_constraints_says_so(self) -> None:
        resource = study(constraints=[{"metric": "eval_loss", "max": 1}])
        assert decided(observed(resource, storage=stored(complete=5))).status["best"] == "none within the constraints"
        assert "best" not in decided(observed(resource, storage=stored(running=1))).status

    def test_a_front_that_became_a_single_objective_is_dropped(self) -> None:
        resource = study(status={"paretoFrontSize": 3, "best": "3 on the front"})
        decision = decided(observed(resource))
        assert "paretoFrontSize" not in decision.status
        assert "best" not in decision.status


class TestEnd:
    def test_a_study_that_reached_enough_succeeds_with_the_reason_when_its_last_trial_has_ended(self) -> None:
        resource = study()
        made = job(resource)
        stop = Stop(reasons.STOP_CONDITION_MET, "enough after 7 complete trials: stopWhen")
        early = decided(
            observed(resource, made, pods=(ready_pod(made),), storage=stored(complete=7, running=1, stop=stop))
        )
        assert condition(early, "Succeeded") == ("False", reasons.NOT_FINISHED)
        done = decided(observed(resource, made, pods=(ready_pod(made),), storage=stored(complete=8, stop=stop)))
        assert condition(done, "Succeeded") == ("True", reasons.STOP_CONDITION_MET)
        assert message(done, "Succeeded") == stop.message

    def test_the_budget_used_up_is_success(self) -> None:
        resource = study()
        made = job(resource, condition="Complete")
        decision = decided(observed(resource, made, storage=stored(complete=8, pruned=2)))
        assert condition(decision, "Succeeded") == ("True", reasons.MAX_TRIALS_REACHED)
        assert condition(decision, "Failed") == ("False", reasons.NOT_FAILED)
        assert condition(decision, "Running") == ("False", reasons.FINISHED)
        assert decision.status["completionTime"] == "2026-03-01T12:00:00Z"
        assert deleted(decision) == []

    def test_too_many_failed_trials_are_failure_with_the_last_error(self) -> None:
        resource = study()
        decision = decided(observed(resource, job(resource), storage=stored(complete=1, failed=4)))
        assert condition(decision, "Failed") == ("True", reasons.MAX_FAILED_TRIALS_EXCEEDED)
        assert condition(decision, "Succeeded")[0] == "False"
        assert "out of luck" in message(decision, "Failed")

    def test_a_trial_that_still_runs_is_waited_for(self) -> None:
        resource = study()
        decision = decided(observed(resource, job(resource), storage=stored(complete=10, running=1)))
        assert condition(decision, "Succeeded")[0] == "False"
        assert decision.requeue == POLL_SECONDS

    def test_a_trial_that_nobody_runs_any_more_is_not(self) -> None:
        resource = study()
        made = job(resource, condition="Complete")
        decision = decided(observed(resource, made, storage=stored(complete=10, running=1)))
        assert condition(decision, "Succeeded")[0] == "True"

    def test_workers_get_a_while_to_end_by_themselves(self) -> None:
        resource = over(study(), "Succeeded", reasons.MAX_TRIALS_REACHED, completed=EARLIER)
        decision = decided(observed(resource, job(resource), storage=stored(complete=10)))
        assert deleted(decision) == []
        assert decision.requeue == POLL_SECONDS

    def test_workers_that_do_not_end_are_removed_and_ended_ones_kept(self) -> None:
        resource = over(study(), "Succeeded", reasons.MAX_TRIALS_REACHED, completed=NOW - LINGER * 2)
        jobs = job(resource, 0), job(resource, 1, condition="Complete")
        decision = decided(observed(resource, *jobs))
        assert deleted(decision) == [("Job", "reviews-0")]

    def test_a_settled_study_needs_nothing(self) -> None:
        resource = over(study(), "Failed", reasons.WORKER_GROUP_FAILED, completed=NOW - LINGER - timedelta(seconds=1))
        decision = decided(Snapshot(resource))
        assert (applied(decision), deleted(decision)) == ([], [])
        assert decision.status == resource["status"]
        assert decision.requeue == RESYNC_SECONDS

    def test_the_end_is_not_taken_back_while_the_spec_stays(self) -> None:
        resource = over(study(), "Failed", reasons.WORKER_GROUP_FAILED, completed=EARLIER)
        decision = decided(observed(resource, storage=stored(complete=1)))
        assert condition(decision, "Failed") == ("True", reasons.WORKER_GROUP_FAILED)
        assert not decision.apply
        assert decision.status["trials"]["complete"] == 1

    def test_a_raised_budget_continues_a_study_that_succeeded(self) -> None:
        done = over(study(), "Succeeded", reasons.MAX_TRIALS_REACHED, completed=NOW - LINGER * 2)
        resource = study(generation=2, budget={"maxTrials": 20}, status=done["status"])
        old = job(study(), condition="Complete", attempt=3)
        decision = decided(observed(resource, old, storage=stored(complete=10)))
        assert deleted(decision) == [("Job", "reviews-0")]
        assert applied(decision) == [("Job", "reviews-0")]
        assert decision.apply[0]["metadata"]["annotations"]["hpstudy.io/attempt"] == "0", "it did not end early"
        assert condition(decision, "Succeeded")[0] == "False"
        assert "completionTime" not in decision.status
        assert decision.status["startTime"] == done["status"]["startTime"]

    def test_another_edit_of_a_study_that_succeeded_changes_nothing_but_the_generation(self) -> None:
        done = over(study(), "Succeeded", reasons.MAX_TRIALS_REACHED, completed=NOW - LINGER * 2)
        resource = study(generation=2, parallelism=3, status=done["status"])
        decision = decided(observed(resource, storage=stored(complete=10)))
        assert not decision.apply
        assert condition(decision, "Succeeded")[0] == "True"
        assert decision.status["observedGeneration"] == 2
        assert decision.status["completionTime"] == done["status"]["completionTime"]
