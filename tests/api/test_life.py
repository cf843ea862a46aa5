"""Studies that are suspended, and changed while they run: a real API server and Job controller, a real PostgreSQL, the
worker's own loop. The test is the kubelet."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from hpstudy.api.load import parse_study
from hpstudy.api.names import REVISION_VARIABLE, stored_study_name
from hpstudy.storage.attributes import Failure
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.api.client import Resource
from tests.api.harness import Operator, Team, eventually, study
from tests.api.policies import forbidden
from tests.support.postgres import Postgres
from tests.support.trials import finish, take

NEW_IMAGE = {"template": {"spec": {"containers": [{"name": "worker", "image": "new:1"}]}}}


@contextmanager
def worker(served: Team, group: int = 0) -> Iterator[TrialLoop]:
    """As the driver in pod 0 of the group that the Job made."""
    container = served.job(f"reviews-{group}")["spec"]["template"]["spec"]["containers"][0]
    (revision,) = [each["value"] for each in container["env"] if each["name"] == REVISION_VARIABLE]
    made = parse_study({**served.study(), "status": {}})
    name = stored_study_name(made.metadata)
    with TrialLoop(made.spec, served.secret(), name, group, revision=revision) as loop:
        yield loop


def until_told_to_leave(loop: TrialLoop) -> str:
    """The settings are written in the pass that sees the change."""
    verdict = eventually(lambda: verdict if (verdict := loop.verdict()).next is Next.LEAVE else None, "told to leave")
    assert isinstance(verdict, Verdict)
    return verdict.message


def running(served: Team, *jobs: str) -> None:
    for job in jobs:
        served.run_pods(job)
        # The Job controller takes a second to count them, which would be taken for a write of the operator's.
        eventually(lambda job=job: served.job(job)["status"].get("ready"), f"a ready pod of {job}")  # type: ignore[misc]
    served.until("Running", "True")


def uid(served: Team, job: str = "reviews-0") -> str:
    return str(served.job(job)["metadata"]["uid"])


def told(served: Team) -> list[str]:
    """Reasons of the events; they are written after the status."""
    return [event["reason"] for event in served.api.list("events", served.namespace)]


def show_running(served: Team, count: int) -> None:
    """Wait until the operator has seen so many trials run."""
    served.poke()
    served.kubectl("wait", "hps/reviews", f"--for=jsonpath={{.status.trials.running}}={count}", "--timeout=60s")


def test_a_suspended_study_gives_everything_back_and_goes_on_with_the_same_trial(served: Team) -> None:
    served.apply(study(retries={"preempted": 0}, budget={"maxTrials": 1, "maxFailedTrials": 0}))
    running(served, "reviews-0")
    with worker(served) as loop:
        trial = take(loop)
        show_running(served, 1)
        served.edit({"suspend": True})
        suspended = served.until("Suspended", "True", "Suspended")
        assert "set spec.suspend to false" in suspended["message"]
        served.until_names("jobs")
        # The pod gets SIGTERM; its driver hands the trial back.
        loop.tell(trial, Outcome(failure=Failure.PREEMPTED, message="the worker was told to stop"))
    served.until_names("pods")
    served.poke()
    served.kubectl("wait", "hps/reviews", "--for=jsonpath={.status.trials.preempted}=1", "--timeout=60s")
    eventually(lambda: served.condition("Running").get("message") == "the study is suspended", "the end of the pods")
    for kind in ("Running", "Stalled", "Succeeded", "Failed"):
        assert served.condition(kind)["status"] == "False"
    assert served.status()["workers"] == {"desired": 0, "ready": 0}
    started = served.status()["startTime"]
    served.stays_quiet()

    served.edit({"suspend": False})
    served.until("Suspended", "False", "NotSuspended")
    running(served, "reviews-0")
    with worker(served) as loop:
        again = take(loop)
        assert (again.parameters, again.continues) == (trial.parameters, trial.number)
        finish(loop, again)
    served.poke()
    served.until("Succeeded", "True")
    assert served.status()["startTime"] == started
    events = told(served)
    assert (events.count("Suspended"), events.count("NotSuspended")) == (1, 1)


def test_a_study_that_is_made_suspended_waits(served: Team) -> None:
    served.apply(study(suspend=True))
    served.until("Suspended", "True")
    served.until("StorageReady", "True")
    assert served.condition("Accepted")["status"] == "True"
    assert served.names("jobs") == []
    served.stays_quiet()
    served.edit({"suspend": False})
    served.job()


def test_a_group_that_is_removed_ends_its_trial_first(served: Team) -> None:
    served.apply(study(parallelism=3))
    running(served, "reviews-0", "reviews-1", "reviews-2")
    with worker(served, 0) as kept, worker(served, 1) as removed:
        take(kept)
        trial = take(removed)
        show_running(served, 2)
        served.edit({"parallelism": 1})
        served.until_names("jobs", "reviews-0", "reviews-1")  # 2 had nothing to do
        assert "1 end their trials and leave" in served.until("Running", "True")["message"]
        assert until_told_to_leave(removed) == "the study has fewer worker groups now"
        served.poke()
        served.stays_quiet()
        finish(removed, trial)
    served.poke()
    served.until_names("jobs", "reviews-0")
    served.until_names("services", "reviews-0")
    served.poke()
    eventually(lambda: served.status()["trials"]["complete"] == 1, "the trial counts")
    assert served.status()["trials"]["preempted"] == 0


def test_a_group_that_is_wanted_after_all_goes_on_or_starts_again(served: Team, operator: Operator) -> None:
    served.apply(study(parallelism=2))
    running(served, "reviews-0", "reviews-1")
    with worker(served, 1) as loop:
        trial = take(loop)
        show_running(served, 1)
        first = uid(served, "reviews-1")
        served.edit({"parallelism": 1})
        until_told_to_leave(loop)
        served.edit({"parallelism": 2})
        eventually(lambda: loop.verdict().next is Next.ASK, "wanted again")
        finish(loop, trial)
        trial = take(loop)
        assert uid(served, "reviews-1") == first
        show_running(served, 1)
        served.edit({"parallelism": 1})
        until_told_to_leave(loop)
        operator.stop()  # it does not see that the group has left before it is wanted again
        try:
            finish(loop, trial)
            served.end_pods(0, job="reviews-1")
            served.edit({"parallelism": 2})
        finally:
            operator.start()
    eventually(lambda: uid(served, "reviews-1") != first, "another Job")
    assert served.condition("Failed")["status"] == "False"


def test_a_new_image_is_for_new_trials(served: Team) -> None:
    served.apply(study(parallelism=2))
    running(served, "reviews-0", "reviews-1")
    first = [uid(served, job) for job in ("reviews-0", "reviews-1")]
    with worker(served, 0) as loop:
        trial = take(loop)
        show_running(served, 1)
        served.edit({"workers": NEW_IMAGE})
        eventually(lambda: uid(served, "reviews-1") != first[1], "the other group, which trained nothing")
        assert until_told_to_leave(loop) == "the study has changed: the group starts again"
        assert uid(served, "reviews-0") == first[0]
        finish(loop, trial)
    # With no trial in hand the group need not have left by itself.
    made = eventually(lambda: None if uid(served) == first[0] else served.job(), "a Job of the new image")
    assert image(made) == image(served.job("reviews-1")) == "new:1"
    assert made["metadata"]["annotations"]["hpstudy.io/attempt"] == "0"
    running(served, "reviews-0")
    with worker(served, 0) as loop:
        take(loop)


def test_a_template_that_the_api_server_refuses_stops_no_group(served: Team) -> None:
    served.apply(study())
    running(served, "reviews-0")
    first = uid(served)
    container = {"name": "worker", "image": "new:1"}
    with worker(served) as loop:
        for memory in ("16GB!", "-1"):
            limits = {"resources": {"limits": {"memory": memory}}}
            served.edit({"workers": {"template": {"spec": {"containers": [{**container, **limits}]}}}})
            refused = served.until("Accepted", "False", "InvalidTemplate")
            assert "the Job of a worker group is refused: " in refused["message"]
            assert refused["message"].endswith("; correct workers.template")
            assert served.until("Running", "True")["message"] == "1 of 1 worker groups ready"
        served.stays_quiet()
        trial = take(loop)
        finish(loop, trial)
        assert loop.verdict().next is Next.ASK, "it was told of nothing"
        assert uid(served) == first
        served.edit({"workers": NEW_IMAGE})
        served.until("Accepted", "True")
        assert until_told_to_leave(loop) == "the study has changed: the group starts again"
    made = eventually(lambda: None if uid(served) == first else served.job(), "a Job of the new image")
    assert image(made) == "new:1"


def forbidden_image(served: Team, image: str) -> AbstractContextManager[None]:
    """What an administrator has against an image in a namespace."""
    images = f"object.spec.template.spec.containers.all(c, c.image != '{image}')"
    probe = ("create", "job", "probe", f"--image={image}")
    return forbidden(served, "CREATE", images, "this image is not for us", *probe)


def test_an_image_that_a_policy_forbids_stops_no_group_and_a_policy_no_other_change(served: Team) -> None:
    old = {"template": {"spec": {"containers": [{"name": "worker", "image": "old:1"}]}}}
    served.apply(study(workers=old))
    running(served, "reviews-0")
    first = uid(served)
    with worker(served) as loop:
        with forbidden_image(served, "new:1"):
            served.edit({"workers": NEW_IMAGE})
            refused = served.until("Accepted", "False", "Refused")
            assert "this image is not for us" in refused["message"]
            served.stays_quiet()
            assert loop.verdict().next is Next.ASK
            assert uid(served) == first
            served.edit({"workers": old})
            served.until("Accepted", "True")
        with forbidden_image(served, "old:1"):
            served.edit({"budget": {"maxTrials": 1}})
            served.until("Accepted", "True")
            finish(loop, take(loop))
    served.poke()
    served.until("Succeeded", "True", "MaxTrialsReached")


def image(job: Resource) -> str:
    return str(job["spec"]["template"]["spec"]["containers"][0]["image"])


@pytest.mark.parametrize(
    "spec", [{"budget": {"maxTrials": 50}}, {"retries": {"oom": 2}}, {"parallelism": 2}, {"budget": {"maxTrials": 3}}]
)
def test_what_workers_take_on_restarts_nothing(served: Team, spec: dict[str, Any]) -> None:
    served.apply(study())
    running(served, "reviews-0")
    before = uid(served)
    with worker(served) as loop:
        served.edit(spec)
        if groups := spec.get("parallelism"):
            running(served, f"reviews-{groups - 1}")
            eventually(lambda: served.status()["workers"] == {"desired": groups, "ready": groups}, "another group")
        served.until("Accepted", "True")
        served.stays_quiet()
        assert uid(served) == before
        assert loop.verdict().next is Next.ASK


def test_a_lowered_budget_is_not_overshot(served: Team) -> None:
    served.apply(study(budget={"maxTrials": 10}))
    running(served, "reviews-0")
    with worker(served) as loop:
        finish(loop, take(loop))
        trial = take(loop)
        served.edit({"budget": {"maxTrials": 2}})
        eventually(lambda: loop.verdict().next is Next.WAIT, "the new budget")
        finish(loop, trial)
        ended = loop.next()
    assert isinstance(ended, Verdict)
    assert ended.next is Next.SUCCEEDED
    served.poke()
    served.until("Succeeded", "True", "MaxTrialsReached")
    assert served.status()["progress"] == "2/2"


def test_a_study_that_succeeded_goes_on_with_a_raised_budget(served: Team) -> None:
    served.apply(study(budget={"maxTrials": 1}))
    running(served, "reviews-0")
    served.complete(0.5)
    served.end_pods(0)
    served.until("Succeeded", "True")
    status, before = served.status(), uid(served)
    served.edit({"budget": {"maxTrials": 2}})
    going = served.until("Succeeded", "False", "NotFinished")
    assert going["lastTransitionTime"] >= status["completionTime"]
    assert "completionTime" not in served.status()
    assert served.status()["startTime"] == status["startTime"]
    eventually(lambda: uid(served) != before, "another Job")
    running(served, "reviews-0")
    served.complete(0.6)
    served.end_pods(0)
    served.until("Succeeded", "True")
    assert served.status()["completionTime"] >= status["completionTime"]
    eventually(lambda: told(served).count("MaxTrialsReached") == 2, "an event for each end")


@pytest.mark.parametrize("own", ["own", "hpstudy-storage"], ids=["the study's", "the namespace's"])
def test_groups_start_again_where_the_secret_names_another_database_and_not_for_another_password(
    served: Team, database: Postgres, own: str
) -> None:
    """Or two places would count the budget."""
    role = f"owner_{served.namespace}"
    database.sql(f"create role \"{role}\" login superuser password 'old'")
    for name in ("one", "two"):
        database.create_database(f"{served.namespace}-{name}")

    def give(name: str, password: str) -> None:
        url = database.url(f"{served.namespace}-{name}", role, password)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": own}, "stringData": {"url": url}}
        served.kubectl.apply(secret)

    give("one", "old")
    served.apply(study(storage={"secretRef": {"name": own}} if own == "own" else None))
    running(served, "reviews-0")
    first = uid(served)

    database.sql(f"alter role \"{role}\" password 'new'")
    give("one", "new")
    served.poke()
    served.stays_quiet()
    assert uid(served) == first

    give("two", "new")
    served.poke()
    eventually(lambda: served.names("jobs") == ["reviews-0"] and uid(served) != first, "another Job")
    running(served, "reviews-0")
    assert database.sql("select count(*) from studies", f"{served.namespace}-two") == "1"
    second = uid(served)
    served.stays_quiet()
    assert uid(served) == second
