"""A study's way through the operator: a real API server and Job controller, a real PostgreSQL, and the operator as a
process with the chart's rights. The test is user, worker and kubelet."""

import json

import pytest
from optuna.trial import TrialState

from tests.api.harness import RUNNER_IMAGE, Team, eventually, study

TWO = [{"metric": "f1", "direction": "maximize"}, {"metric": "ms", "direction": "minimize"}]


def test_a_study_runs_and_succeeds(served: Team) -> None:
    served.apply(study(parallelism=2, workers={"nodes": 2}))
    served.until("Running", "False", "WaitingForWorkers")
    served.until_names("jobs", "reviews-0", "reviews-1")
    served.until_names("services", "reviews-0", "reviews-1")
    assert "reviews-study" in served.names("configmaps")
    assert served.status()["startTime"]

    served.run_pods("reviews-0", count=2)
    served.until("Running", "True", "TrialsRunning")
    assert served.status()["workers"] == {"desired": 2, "ready": 1}

    served.complete(0.5, 0.75, 0.25)
    served.poke()
    served.kubectl("wait", "hps/reviews", "--for=jsonpath={.status.progress}=3/10", "--timeout=20s")
    status = served.status()
    assert status["best"] == "0.75"
    assert [trial["values"]["eval_f1"] for trial in status["bestTrials"]] == [0.75, 0.5, 0.25]
    assert status["bestTrials"][0]["worker"] == "0"
    assert 0.001 <= status["bestTrials"][0]["hyperparameters"]["lr"] <= 0.1

    served.complete(*[0.1] * 7)
    served.poke()
    served.kubectl("wait", "hps/reviews", "--for=condition=Succeeded", "--timeout=20s")
    status = served.status()
    assert served.condition("Succeeded")["reason"] == "MaxTrialsReached"
    assert served.condition("Failed")["status"] == served.condition("Running")["status"] == "False"
    assert status["completionTime"]
    assert status["workers"] == {"desired": 0, "ready": 0}


def test_what_is_made_is_the_studys_own_and_says_who_made_it(served: Team) -> None:
    served.apply(study())
    served.until("Running", "False", "WaitingForWorkers")
    uid = served.study()["metadata"]["uid"]
    for kind, name in (("jobs", "reviews-0"), ("services", "reviews-0"), ("configmaps", "reviews-study")):
        metadata = served.kubectl("get", kind, name, "-o", "json", "--show-managed-fields")
        made = json.loads(metadata)["metadata"]
        assert made["ownerReferences"][0]["uid"] == uid
        assert made["ownerReferences"][0]["controller"] is True
        assert ("hpstudy-operator", "Apply") in {(m["manager"], m["operation"]) for m in made["managedFields"]}
    status = [m for m in served.study()["metadata"]["managedFields"] if m.get("subresource") == "status"]
    assert [(m["manager"], m["operation"]) for m in status] == [("hpstudy-operator", "Apply")]
    assert "finalizers" not in served.study()["metadata"]
    assert served.study()["metadata"].get("annotations", {}) == {}


def test_the_job_controller_takes_the_job_and_the_worker_finds_its_study(served: Team) -> None:
    served.apply(study(workers={"nodes": 2}))
    pods = served.pods("reviews-0", count=2)
    assert sorted(pod["spec"]["hostname"] for pod in pods) == ["reviews-0-0", "reviews-0-1"]
    assert {pod["spec"]["subdomain"] for pod in pods} == {"reviews-0"}
    container = pods[0]["spec"]["containers"][0]
    assert container["image"] == RUNNER_IMAGE
    assert "JOB_COMPLETION_INDEX" in {variable["name"] for variable in container["env"]}
    config = served.api.find("configmaps", served.namespace, "reviews-study")
    assert config is not None
    assert json.loads(config["data"]["study.json"])["metadata"]["uid"] == served.study()["metadata"]["uid"]


def test_pods_meet_the_restricted_standard_where_it_is_enforced(served: Team) -> None:
    served.kubectl("label", "namespace", served.namespace, "pod-security.kubernetes.io/enforce=restricted")
    served.apply(study())
    assert len(served.pods()) == 1


def test_a_commands_pod_has_the_users_image_as_a_sidecar_of_the_worker(served: Team) -> None:
    """The API server takes it, also under the restricted standard; a template that names nothing there is refused."""
    served.kubectl("label", "namespace", served.namespace, "pod-security.kubernetes.io/enforce=restricted")
    program = {"name": "worker", "image": "julia:1", "resources": {"limits": {"cpu": "2", "nvidia.com/gpu": "1"}}}
    template = {"spec": {"containers": [program], "securityContext": {"runAsUser": 1000}}}
    fields = {"workers": {"template": template}}
    served.apply(study(trial={"command": {"argv": ["run", "--lr={{ lr }}"]}}, **fields))
    (pod,) = served.pods()
    assert [(each["name"], each["image"]) for each in pod["spec"]["containers"]] == [("hpstudy", RUNNER_IMAGE)]
    agent, sidecar = pod["spec"]["initContainers"]
    assert (agent["image"], sidecar["image"], sidecar["restartPolicy"]) == (RUNNER_IMAGE, "julia:1", "Always")
    assert sidecar["resources"]["limits"] == program["resources"]["limits"]
    served.stays_quiet()
    served.apply(study("typo", trial={"command": {"argv": ["run", "--lr={{ rl }}"]}}, **fields))
    found = served.until("Accepted", "False", "InvalidCommand", name="typo")
    assert (
        "trial.command.argv[1]: 'rl' is no hyperparameter of the search space; there are lr, trial.number"
        in found["message"]
    )


def test_two_objectives_have_a_pareto_front(served: Team) -> None:
    served.apply(study(objectives=TWO))
    served.until("StorageReady", "True")
    served.complete([0.9, 30.0], [0.8, 10.0], [0.7, 20.0], [0.95, 50.0])  # type: ignore[arg-type]
    served.poke()
    served.kubectl("wait", "hps/reviews", "--for=jsonpath={.status.paretoFrontSize}=3", "--timeout=20s")
    status = served.status()
    assert status["best"] == "3 on the front"
    assert [trial["values"] for trial in status["bestTrials"]] == [
        {"f1": 0.95, "ms": 50},
        {"f1": 0.9, "ms": 30},
        {"f1": 0.8, "ms": 10},
    ]


def test_mixed_choices_come_back_from_the_storage_as_they_were_written(served: Team) -> None:
    choices = [2, "a", None, True, 0.5]
    space = {"parameters": {"x": {"type": "categorical", "choices": choices}}}
    served.apply(study(searchSpace=space))
    served.until("StorageReady", "True")
    with served.trials() as trials:
        for index in range(len(choices)):
            trials.enqueue_trial({"x": choices[index]})
            trial = trials.ask()
            trial.suggest_categorical("x", choices)
            trials.tell(trial, float(index))
    served.poke()
    served.kubectl("wait", "hps/reviews", "--for=jsonpath={.status.progress}=5/10", "--timeout=20s")
    best = [trial["hyperparameters"]["x"] for trial in served.status()["bestTrials"]]
    assert best == list(reversed(choices))
    assert [type(value) for value in best] == [type(value) for value in reversed(choices)]


def test_too_many_failed_trials_fail_the_study_with_the_last_error(served: Team) -> None:
    served.apply(study(budget={"maxTrials": 10, "maxFailedTrials": 1}))
    served.until("StorageReady", "True")
    with served.trials() as trials:
        for number in range(2):
            trial = trials.ask()
            trial.set_user_attr("hpstudy:failure", "error")
            trial.set_user_attr("hpstudy:message", f"ValueError: number {number}")
            trials.tell(trial, state=TrialState.FAIL)
    served.poke()
    failed = served.until("Failed", "True", "MaxFailedTrialsExceeded")
    assert "trial 1, error: ValueError: number 1" in failed["message"]
    assert served.condition("Succeeded")["status"] == "False"


class TestWorkersThatFail:
    def test_an_invalid_study_fails_in_the_workers_words_and_stops_the_other_groups(self, served: Team) -> None:
        served.apply(study(parallelism=2))
        served.run_pods("reviews-1")
        verdict = {"reason": "ImportFailed", "message": "train:objective: there is no module 'train'"}
        served.end_pods(2, json.dumps(verdict), "reviews-0")
        failed = served.until("Failed", "True", "ImportFailed")
        assert failed["message"] == verdict["message"]
        served.until_names("jobs", "reviews-0")

        served.edit({"trial": {"function": "right:objective"}})
        served.until("Failed", "False")
        served.until_names("jobs", "reviews-0", "reviews-1")
        served.run_pods("reviews-0")
        served.until("Running", "True")

    def test_a_job_that_gives_up_fails_the_study(self, served: Team) -> None:
        served.apply(study())
        served.end_pods(1, "Traceback: out of everything")
        stalled = served.until("Stalled", "True", "ContainerFailed")
        assert "Traceback: out of everything" in stalled["message"]

    @pytest.mark.parametrize(
        ("waiting", "detail", "reason"),
        [
            ("ImagePullBackOff", 'Back-off pulling image "runner:test": not found', "ImagePullFailed"),
            ("CreateContainerConfigError", 'secret "hub" not found', "ContainerFailed"),
        ],
    )
    def test_a_worker_that_cannot_start_stalls_the_study_until_it_can(
        self, served: Team, waiting: str, detail: str, reason: str
    ) -> None:
        served.apply(study())
        served.hold_pods(waiting, detail)
        stalled = served.until("Stalled", "True", reason)
        assert "not found" in stalled["message"]
        assert "workers.template" in stalled["message"]
        served.run_pods()
        served.until("Stalled", "False", "Progressing")

    def test_a_corrected_image_replaces_the_job(self, served: Team) -> None:
        served.apply(study())
        first = served.job()["metadata"]["uid"]
        served.hold_pods("ErrImagePull", "no such image")
        served.until("Stalled", "True", "ImagePullFailed")
        template = {"spec": {"containers": [{"name": "worker", "image": "right:1"}]}}
        served.edit({"workers": {"template": template}})
        served.until("Stalled", "False")
        second = served.job()
        assert second["metadata"]["uid"] != first
        assert second["spec"]["template"]["spec"]["containers"][0]["image"] == "right:1"


class TestBadInput:
    @pytest.mark.parametrize(
        ("spec", "reason", "words"),
        [
            ({"sampler": {"name": "TPESampelr"}}, "UnknownSampler", "TPESampelr"),
            ({"sampler": {"name": "TPESampler", "options": {"sed": 1}}}, "InvalidOption", "sed"),
            ({"pruner": {"name": "Hyperband"}}, "UnknownPruner", "HyperbandPruner"),
            (
                {"searchSpace": {"parameters": {"x": {"type": "categorical"}}}},
                "InvalidSpec",
                "categorical parameters need choices",
            ),
            (
                {"searchSpace": {"parameters": {"x": {"type": "categorical", "choices": [1, True]}}}},
                "InvalidSpec",
                "1, 1.0 and true are the same",
            ),
            ({"workers": {"template": {"spec": {"containers": "one"}}}}, "InvalidTemplate", "must be a list"),
            ({"checkpoints": {"keep": "best"}}, "InvalidCheckpoints", "name the place"),
            (
                {"workers": {"template": {"spec": {"containers": [{"name": "No_Label"}]}}}},
                "InvalidTemplate",
                "spec.template.spec.containers[0].name",
            ),
            (
                {"workers": {"template": {"spec": {"container": []}}}},
                "InvalidTemplate",
                "spec.template.spec.container",
            ),
        ],
    )
    def test_what_the_schema_cannot_say_ends_in_a_condition_and_no_pod(
        self, served: Team, spec: dict[str, object], reason: str, words: str
    ) -> None:
        served.apply(study(**spec))
        refused = served.until("Accepted", "False", reason)
        assert words in refused["message"]
        assert served.names("jobs") == []
        served.apply(study(**dict.fromkeys(("sampler", "pruner")), workers={}))
        served.until("Accepted", "True")
        served.job()

    def test_a_missing_secret_is_waited_for(self, served: Team) -> None:
        served.apply(study(storage={"secretRef": {"name": "mine", "key": "dsn"}}))
        missing = served.until("StorageReady", "False", "SecretNotFound")
        assert "'mine'" in missing["message"]
        assert "'dsn'" in missing["message"]
        assert served.condition("Accepted")["status"] == "True"
        assert served.names("jobs") == []

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("postgresql://me:topsecret@127.0.0.1:1/db", "Connection refused"),
            ("mysql://me:topsecret@127.0.0.1:1/db", "Connection refused"),
            ("oracle://me:topsecret@127.0.0.1/db", "must look like postgresql://"),
            ("sqlite:////tmp/study.db", "all pods must reach"),
            ("gibberish", "must look like postgresql://"),
        ],
    )
    def test_a_database_that_does_not_work_is_told_without_its_password(
        self, served: Team, url: str, words: str
    ) -> None:
        served.kubectl("create", "secret", "generic", "mine", f"--from-literal=url={url}")
        served.apply(study(storage={"secretRef": {"name": "mine"}}))
        bad = served.until("StorageReady", "False", "StorageUnreachable")
        assert words in bad["message"]
        assert "topsecret" not in served.kubectl("get", "hps,events,cm", "-o", "yaml")
        assert served.names("jobs") == []


class TestLife:
    def test_a_raised_budget_continues_a_finished_study(self, served: Team) -> None:
        served.apply(study(budget={"maxTrials": 1}))
        served.run_pods()
        served.complete(0.5)
        served.end_pods(0)
        served.until("Succeeded", "True")
        first = served.job()["metadata"]["uid"]

        served.edit({"budget": {"maxTrials": 2}})
        served.until("Succeeded", "False")
        eventually(lambda: served.job()["metadata"]["uid"] != first, "another Job")
        served.run_pods()
        served.complete(0.6)
        served.poke()
        served.until("Succeeded", "True")
        assert served.status()["progress"] == "2/2"

    def test_groups_come_and_go_with_the_parallelism(self, served: Team) -> None:
        served.apply(study(parallelism=3))
        served.until_names("jobs", "reviews-0", "reviews-1", "reviews-2")
        kept = served.job("reviews-0")["metadata"]["uid"]
        served.edit({"parallelism": 1})
        served.until_names("jobs", "reviews-0")
        served.until_names("services", "reviews-0")
        served.edit({"parallelism": 2})
        served.until_names("jobs", "reviews-0", "reviews-1")
        assert served.job("reviews-0")["metadata"]["uid"] == kept

    def test_a_study_that_is_deleted_leaves_nothing(self, served: Team) -> None:
        served.apply(study())
        served.pods()
        served.kubectl.delete("hps", "reviews")
        for kind in ("jobs", "services", "pods", "secrets"):
            served.until_names(kind)
        assert "reviews-study" not in served.names("configmaps")

    def test_a_study_applied_anew_starts_afresh(self, served: Team) -> None:
        served.apply(study(budget={"maxTrials": 1}))
        served.until("StorageReady", "True")
        served.complete(0.5)
        served.poke()
        served.until("Succeeded", "True")
        served.kubectl.delete("hps", "reviews")
        served.apply(study(budget={"maxTrials": 1}))
        served.until("Running", "False", "WaitingForWorkers")
        assert served.status()["progress"] == "0/1"
        uid = served.study()["metadata"]["uid"]
        assert served.job()["metadata"]["ownerReferences"][0]["uid"] == uid

    def test_an_object_of_somebody_elses_is_not_touched(self, served: Team) -> None:
        served.kubectl("create", "configmap", "reviews-study", "--from-literal=mine=yes")
        served.apply(study())
        stalled = served.until("Stalled", "True", "NameTaken")
        assert "'reviews-study'" in stalled["message"]
        found = served.api.find("configmaps", served.namespace, "reviews-study")
        assert found is not None
        assert found["data"] == {"mine": "yes"}
        served.kubectl.delete("configmap", "reviews-study")
        served.until("Stalled", "False")

    def test_events_tell_what_happened_once(self, served: Team) -> None:
        served.apply(study(storage={"secretRef": {"name": "mine"}}))
        served.until("StorageReady", "False")
        for _ in range(3):
            served.poke()
        served.stays_quiet()
        events = [(e["type"], e["reason"]) for e in served.api.list("events", served.namespace)]
        assert sorted(events) == [("Normal", "Accepted"), ("Warning", "SecretNotFound")]
