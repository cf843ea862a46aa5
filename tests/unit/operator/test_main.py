"""What the operator tells kopf and the kubelet."""

import asyncio
from unittest.mock import create_autospec

import pytest

from hpstudy.api.names import LABEL_STUDY
from hpstudy_operator import main
from hpstudy_operator.audit import MAX_MISSES
from hpstudy_operator.kube import Kube, Resource, UnavailableError
from hpstudy_operator.main import Operator, kopf_settings
from hpstudy_operator.observe import Key
from hpstudy_operator.settings import Settings
from tests.unit.operator.objects import study


@pytest.fixture
def operator() -> Operator:
    settings = Settings(database_url="postgresql://admin@db/hpstudy", runner_image="runner", health_port=1)
    kube = create_autospec(Kube, instance=True)
    kube.list_metadata.return_value = []
    return Operator(kube, settings)


def has(operator: Operator, kind: str, *resources: Resource) -> None:
    """The API server lists these of the kind."""
    lists = {kind: list(resources)}
    operator._kube.list_metadata.side_effect = lambda kind, _="": lists.get(kind, [])  # type: ignore[attr-defined]


def audit(operator: Operator, times: int = 1) -> Operator:
    async def scenario() -> None:
        for _ in range(times):
            await operator._audit_once()

    asyncio.run(scenario())
    return operator


def sick(operator: Operator) -> str:
    async def ask() -> str:
        return operator._sick()

    return asyncio.run(ask())


def test_an_operator_at_rest_is_healthy(operator: Operator) -> None:
    assert sick(operator) == ""


@pytest.mark.parametrize("kind", ["HPStudy", "Job", "Pod"])
def test_a_watch_that_is_deaf_is_told_and_names_stay_in_the_log(
    operator: Operator, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    resource = study()
    resource["metadata"]["labels"] = {LABEL_STUDY: "reviews"}
    has(operator, kind, resource)
    audit(operator, MAX_MISSES - 1)
    assert sick(operator) == ""
    audit(operator)
    assert sick(operator) == f"the watch does not report what happens to objects of kind {kind}"
    assert "team/reviews" in caplog.text


def test_a_study_that_waits_for_too_long_is_told(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "STUCK_SECONDS", 0.01)

    async def ask() -> str:
        operator._queue.add(Key("team", "reviews"))
        await asyncio.sleep(0.02)
        return operator._sick()

    assert "has been waiting" in asyncio.run(ask())


def test_an_operator_is_ready_when_it_has_heard_of_all_that_is_listed(operator: Operator) -> None:
    has(operator, "HPStudy", study())
    assert audit(operator)._unready()
    operator._watches.hear("HPStudy", None, study())
    assert not audit(operator)._unready()
    has(operator, "HPStudy", study(generation=2))
    assert not audit(operator)._unready()  # what is missed later is not about the start


def test_a_change_that_a_watch_missed_is_queued_by_the_replica_that_leads(operator: Operator) -> None:
    pod = {"metadata": {"name": "p", "namespace": "team", "uid": "1", "labels": {LABEL_STUDY: "images"}}}
    has(operator, "Pod", pod)
    audit(operator)
    assert len(operator._queue) == 0
    operator._is_leading = True
    audit(operator)
    assert list(operator._queue._waiting) == [Key("team", "images")]


@pytest.mark.parametrize("error", [UnavailableError("away"), RuntimeError("a bug")])
def test_an_audit_that_fails_does_not_end_the_audits(
    operator: Operator, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "START_SECONDS", 0.001)
    calls = operator._kube.list_metadata
    calls.side_effect = error  # type: ignore[attr-defined]

    async def watch() -> None:
        audits = asyncio.create_task(operator._audit_for_ever())
        while calls.call_count < 3:  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
        audits.cancel()

    asyncio.run(asyncio.wait_for(watch(), 10))
    assert sick(operator) == ""


def test_kopf_writes_nothing_and_selects_on_the_server() -> None:
    settings = kopf_settings()
    assert not settings.posting.enabled
    assert sorted(settings.watching.label_selectors.values()) == ["hpstudy.io/study"] * 2


def test_kopf_does_not_hold_an_event_back_while_others_rest() -> None:
    """With a limit on its workers, each of which rests after its event, a thousand studies would take a minute."""
    settings = kopf_settings()
    assert settings.queueing.worker_limit is not None
    assert 1000 / settings.queueing.worker_limit * settings.queueing.idle_timeout < 2
