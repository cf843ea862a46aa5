"""What others take from a study: the ConfigMap with the best trial, and the Job of onSuccess under a real Job
controller. The test is the kubelet."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from optuna.trial import TrialState

from hpstudy_operator.apply import apply_status
from hpstudy_operator.conditions import State, merge, timestamp
from hpstudy_operator.decide import Decision
from hpstudy_operator.kube import Kube
from hpstudy_operator.observe import Snapshot
from tests.api.client import Resource
from tests.api.harness import Operator, Team, eventually, study

ARGUMENTS = ["--lr={{ lr }}", "--trial={{ trial.number }}"]


def on_success(**container: Any) -> Resource:
    fields = {"name": "final", "image": "final:1", "args": ARGUMENTS, **container}
    return {"template": {"spec": {"backoffLimit": 0, "template": {"spec": {"containers": [fields]}}}}}


def best(served: Team, name: str = "reviews-best") -> Resource | None:
    found = served.api.find("configmaps", served.namespace, name)
    return None if found is None else found["data"]


def record(served: Team) -> Resource:
    found: Resource = served.status().get("onSuccess", {})
    return found


def until_state(served: Team, state: str) -> Resource:
    return eventually(lambda: record(served) if record(served).get("state") == state else None, state)


def succeed(served: Team, *values: float) -> None:
    served.until("StorageReady", "True")
    served.complete(*values)
    served.poke()
    served.until("Succeeded", "True")


class TestBest:
    def test_the_best_trial_is_in_a_config_map_that_follows_it_and_goes_with_the_study(self, served: Team) -> None:
        served.apply(study())
        served.until("StorageReady", "True")
        assert best(served) is None
        served.complete(0.5)
        served.poke()
        first = eventually(lambda: best(served), "the ConfigMap")
        described = json.loads(first["best.json"])
        assert (described["number"], described["values"]) == (0, {"eval_f1": 0.5})
        lr = described["hyperparameters"]["lr"]
        assert json.loads(first["hyperparameters.json"]) == {"lr": lr}
        assert first["hyperparameters.env"] == f"HPSTUDY_PARAM_LR={lr}\n"
        assert first["HPSTUDY_PARAM_LR"] == str(lr)
        served.complete(0.4)
        served.poke()
        eventually(lambda: served.status()["progress"] == "2/10", "the other trial")
        served.stays_quiet()

        served.complete(0.75)
        served.poke()
        eventually(lambda: json.loads((best(served) or first)["best.json"])["number"] == 2, "the better trial")
        served.kubectl.delete("configmap", "reviews-best")
        served.poke()
        eventually(lambda: best(served), "the ConfigMap, again")
        served.kubectl.delete("hps", "reviews")
        eventually(lambda: best(served) is None, "no ConfigMap")

    def test_one_of_somebody_elses_is_named_and_left_alone(self, served: Team) -> None:
        served.kubectl("create", "configmap", "reviews-best", "--from-literal=mine=yes")
        served.apply(study())
        stalled = served.until("Stalled", "True", "NameTaken")
        assert "ConfigMap 'reviews-best'" in stalled["message"]
        served.complete(0.5)
        served.poke()
        eventually(lambda: served.status().get("best") == "0.5", "the best value")
        assert best(served) == {"mine": "yes"}

    def test_several_objectives_have_their_front_and_by_weights_a_best_one(self, served: Team) -> None:
        two = [{"metric": "f1", "direction": "maximize"}, {"metric": "ms", "direction": "minimize"}]
        served.apply(
            study(objectives=two), study("weighed", objectives=two, scalarize={"weights": {"f1": 100, "ms": 1}})
        )
        for name in ("reviews", "weighed"):
            served.until("StorageReady", "True", name=name)
            served.complete([0.9, 30.0], [0.8, 10.0], [0.7, 20.0], [0.95, 50.0], name=name)  # type: ignore[arg-type]
            served.poke(name)

        def front() -> list[int]:
            found = best(served) or {"front.json": "[]"}
            assert set(found) == {"front.json"}
            return [trial["number"] for trial in json.loads(found["front.json"])]

        # The status follows while the trials end.
        eventually(lambda: front() == [3, 0, 1], "the front")
        first = {"best.json": '{"number": null}'}
        eventually(lambda: json.loads((best(served, "weighed-best") or first)["best.json"])["number"] == 1, "the best")


class TestOnSuccess:
    def test_the_job_gets_the_best_hyperparameters_and_its_end_is_in_the_status(self, served: Team) -> None:
        served.kubectl("label", "namespace", served.namespace, "pod-security.kubernetes.io/enforce=restricted")
        served.apply(study(budget={"maxTrials": 2}, onSuccess=on_success()))
        served.run_pods()
        assert served.names("jobs") == ["reviews-0"], "it is only tried out"
        succeed(served, 0.5, 0.75)
        (pod,) = served.pods("reviews-final")
        lr = served.status()["bestTrials"][0]["hyperparameters"]["lr"]
        (container,) = pod["spec"]["containers"]
        assert container["args"] == [f"--lr={lr}", "--trial=1"]
        assert "hpstudy.io/study" not in pod["metadata"]["labels"]
        pending = eventually(lambda: record(served) if "startTime" in record(served) else None, "its start")
        assert (pending["job"], pending["trial"], pending["state"]) == ("reviews-final", 1, "Pending")

        served.hold_pods("ErrImagePull", "no such image", "reviews-final")
        served.poke()
        waiting = eventually(lambda: record(served).get("message"), "what it waits for")
        assert "no such image; correct the image" in waiting
        assert waiting.endswith("in onSuccess.template")
        assert record(served)["waitingSince"] >= pending["startTime"]
        served.run_pods("reviews-final")
        assert not {"message", "waitingSince"} & until_state(served, "Running").keys()
        assert served.status()["workers"]["ready"] == 0
        # Hours later, when nobody looks at the study any more.
        long_ago = {"status": {"completionTime": "2026-01-01T00:00:00Z"}}
        served.api.patch("hpstudies", served.namespace, "reviews", long_ago)
        served.stays_quiet()
        served.end_pods(0, job="reviews-final")
        ended = until_state(served, "Succeeded")
        assert ended["completionTime"] >= ended["startTime"]
        served.stays_quiet()
        reasons = [e["reason"] for e in served.api.list("events", served.namespace) if "OnSuccess" in e["reason"]]
        assert sorted(reasons) == ["OnSuccessJobCreated", "OnSuccessJobSucceeded", "OnSuccessJobWaiting"]

    def test_without_a_best_trial_the_study_has_succeeded_and_the_job_is_not_made(self, served: Team) -> None:
        served.apply(study(budget={"maxTrials": 2}, onSuccess=on_success()))
        served.until("StorageReady", "True")
        with served.trials() as trials:
            for _ in range(2):
                trials.tell(trials.ask(), state=TrialState.PRUNED)
        served.poke()
        served.until("Succeeded", "True")
        failed = until_state(served, "Failed")
        assert "there is no best one" in failed["message"]
        assert "trial" not in failed
        served.stays_quiet()
        assert served.names("jobs") == ["reviews-0"]

    def test_a_status_that_is_refused_in_part_still_says_where_the_study_stands(
        self, team: Team, operator: Operator, kube: Kube, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        succeeded = merge([], [State("Succeeded", "True", "MaxTrialsReached", "10 of 10 trials")], 1, now)
        status = {"conditions": succeeded, "completionTime": timestamp(now), "progress": 10}
        decision = Decision({**status, "onSuccess": {"state": "Unheard"}})
        operator.stop()
        try:
            team.apply(study())
            for _ in range(2):
                assert apply_status(kube, Snapshot(team.study()), decision)
                found = team.status()
                assert {key: found[key] for key in ("conditions", "completionTime")}.items() <= status.items()
                assert not {"progress", "onSuccess"} & found.keys()
        finally:
            operator.start()
        assert "is refused" in caplog.text
        assert len(team.api.list("events", team.namespace)) == 1

    def test_its_failure_is_told_and_the_study_has_succeeded_all_the_same(self, served: Team) -> None:
        served.apply(study(budget={"maxTrials": 1}, onSuccess=on_success()))
        succeed(served, 0.5)
        served.end_pods(3, "ValueError: no such data", job="reviews-final")
        failed = until_state(served, "Failed")
        assert "container final ended with code 3: ValueError: no such data" in failed["message"]
        served.until("Succeeded", "True")
        assert served.condition("Failed")["status"] == "False"
        served.stays_quiet()

        served.edit({"onSuccess": on_success(args=["--data=right"])})
        eventually(lambda: served.pods("reviews-final")[0]["spec"]["containers"][0]["args"] == ["--data=right"], "anew")
        served.end_pods(0, job="reviews-final")
        assert "message" not in until_state(served, "Succeeded")

    def test_another_best_trial_gets_a_job_of_its_own_and_the_same_one_does_not(self, served: Team) -> None:
        served.apply(study(budget={"maxTrials": 1}, onSuccess=on_success()))
        succeed(served, 0.5)
        first = served.job("reviews-final")["metadata"]["uid"]
        served.end_pods(0, job="reviews-final")
        until_state(served, "Succeeded")
        served.edit({"budget": {"maxTrials": 2}})
        succeed(served, 0.4)
        served.stays_quiet()
        assert served.job("reviews-final")["metadata"]["uid"] == first
        served.edit({"budget": {"maxTrials": 3}})
        succeed(served, 0.6)
        eventually(lambda: served.job("reviews-final")["metadata"]["uid"] != first, "another Job")
        (pod,) = served.pods("reviews-final")
        assert pod["spec"]["containers"][0]["args"][1] == "--trial=2"

    def test_a_job_that_is_deleted_before_its_end_has_failed(self, served: Team) -> None:
        served.apply(study(budget={"maxTrials": 1}, onSuccess=on_success()))
        succeed(served, 0.5)
        eventually(lambda: "startTime" in record(served), "its start")
        served.kubectl.delete("job", "reviews-final")
        assert until_state(served, "Failed")["message"] == "the Job was deleted before it ended"
        assert "reviews-final" not in served.names("jobs")

    def test_somebody_elses_job_is_waited_for(self, served: Team) -> None:
        other = {"containers": [{"name": "other", "image": "other:1"}], "restartPolicy": "Never"}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "reviews-final"}}
        served.apply({**job, "spec": {"template": {"spec": other}}})
        served.apply(study(budget={"maxTrials": 1}, onSuccess=on_success()))
        succeed(served, 0.5)
        eventually(lambda: "belongs to something else" in record(served).get("message", ""), "the reason")
        served.kubectl.delete("job", "reviews-final")
        served.poke()
        served.end_pods(0, job="reviews-final")
        until_state(served, "Succeeded")

    @pytest.mark.parametrize(
        ("template", "words"),
        [
            (on_success(args=["{{ rl }}"]), "containers[0].args[0]: 'rl' is no hyperparameter"),
            (on_success(args=["{{ trial.checkpoint }}"]), "add checkpoints: {keep: best}"),
            (on_success(arguments=[]), 'unknown field "spec.template.spec.containers[0].arguments"'),
            (on_success(name="No_Label"), "spec.template.spec.containers[0].name"),
            (
                {"template": {"spec": {"ttlSecondsAfterFinished": 60, **on_success()["template"]["spec"]}}},
                "goes with it",
            ),
            ({"template": {"spec": {"containers": []}}}, "onSuccess.template must be the template of a Job"),
        ],
    )
    def test_what_cannot_be_made_is_refused_before_anything_runs(
        self, served: Team, template: Resource, words: str
    ) -> None:
        served.apply(study(onSuccess=template))
        assert words in served.until("Accepted", "False")["message"]
        assert served.names("jobs") == []
        served.apply(study(onSuccess=on_success()))
        served.until("Accepted", "True")
        served.job()

    def test_a_front_has_no_best_trial(self, served: Team) -> None:
        two = [{"metric": "f1", "direction": "maximize"}, {"metric": "ms", "direction": "minimize"}]
        manifest = study(objectives=two, onSuccess=on_success())
        refused = served.api.create("hpstudies", served.namespace, manifest)
        assert "onSuccess needs exactly one objective, or scalarize" in refused
