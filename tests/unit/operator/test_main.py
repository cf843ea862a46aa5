"""What the operator tells kopf and the kubelet."""

import asyncio
from unittest.mock import create_autospec

import kopf
import pytest

from hpstudy_operator import main
from hpstudy_operator.audit import MAX_MISSES
from hpstudy_operator.kube import Kube, UnavailableError
from hpstudy_operator.main import Operator, kopf_settings
from hpstudy_operator.observe import Key
from hpstudy_operator.settings import Settings
from tests.unit.operator.objects import study


@pytest.fixture
def operator() -> Operator:
    settings = Settings(database_url="postgresql://admin@db/hpstudy", runner_image="runner", health_port=1)
    return Operator(create_autospec(Kube, instance=True), settings)


def probe(operator: Operator) -> str:
    async def ask() -> str:
        return await operator._probe()

    return asyncio.run(ask())


def test_an_operator_at_rest_is_healthy(operator: Operator) -> None:
    assert probe(operator) == "ok"


def test_a_watch_that_is_deaf_is_told(operator: Operator) -> None:
    for _ in range(MAX_MISSES):
        operator._audit.compare([study()])
    with pytest.raises(kopf.PermanentError, match="the watch does not report team/reviews"):
        probe(operator)


def test_a_study_that_waits_for_too_long_is_told(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "STUCK_SECONDS", 0.01)

    async def ask() -> None:
        operator._queue.add(Key("team", "reviews"))
        await asyncio.sleep(0.02)
        await operator._probe()

    with pytest.raises(kopf.PermanentError, match="has been waiting"):
        asyncio.run(ask())


def test_a_change_that_the_watch_missed_is_queued_by_the_audit(operator: Operator) -> None:
    operator._kube.list_metadata.return_value = [study()]  # type: ignore[attr-defined]
    asyncio.run(operator._audit_once())
    assert len(operator._queue) == 1


@pytest.mark.parametrize("error", [UnavailableError("away"), RuntimeError("a bug")])
def test_an_audit_that_fails_does_not_end_the_audits(
    operator: Operator, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "AUDIT_SECONDS", 0.001)
    calls = operator._kube.list_metadata
    calls.side_effect = error  # type: ignore[attr-defined]

    async def watch() -> None:
        audits = asyncio.create_task(operator._audit_for_ever())
        while calls.call_count < 3:  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
        audits.cancel()

    asyncio.run(asyncio.wait_for(watch(), 10))
    assert probe(operator) == "ok"


def test_kopf_writes_nothing_and_selects_on_the_server() -> None:
    settings = kopf_settings()
    assert not settings.posting.enabled
    assert sorted(settings.watching.label_selectors.values()) == ["hpstudy.io/study"] * 2


def test_kopf_does_not_hold_an_event_back_while_others_rest() -> None:
    """With a limit on its workers, each of which rests after its event, a thousand studies would take a minute."""
    settings = kopf_settings()
    assert settings.queueing.worker_limit is not None
    assert 1000 / settings.queueing.worker_limit * settings.queueing.idle_timeout < 2
