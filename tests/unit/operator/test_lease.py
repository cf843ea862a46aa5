"""The rules of the Lease, with clocks that tests move and a server that keeps one object."""

import asyncio
from copy import deepcopy
from typing import Any

import pytest

from hpstudy_operator import lease as module
from hpstudy_operator.kube import UnavailableError
from hpstudy_operator.lease import LEASE_SECONDS, RENEW_SECONDS, Election, Lease
from hpstudy_operator.settings import LeaseName


class Server:
    """Keeps one object, with resource versions, as the API server does. It may be away."""

    def __init__(self) -> None:
        self.object: dict[str, Any] | None = None
        self.away = False
        self.before_write: Any = lambda: None

    def get(self, *_: str) -> dict[str, Any] | None:
        self._ask()
        return deepcopy(self.object)

    def create(self, resource: dict[str, Any]) -> dict[str, Any] | None:
        self._ask()
        return None if self.object else self._store(resource, 1)

    def replace(self, resource: dict[str, Any]) -> dict[str, Any] | None:
        self._ask()
        self.before_write()
        assert self.object is not None
        version = self.object["metadata"]["resourceVersion"]
        return self._store(resource, version + 1) if resource["metadata"]["resourceVersion"] == version else None

    def _store(self, resource: dict[str, Any], version: int) -> dict[str, Any]:
        self.object = deepcopy(resource)
        self.object["metadata"]["resourceVersion"] = version
        return deepcopy(self.object)

    def _ask(self) -> None:
        if self.away:
            raise UnavailableError("away")

    @property
    def spec(self) -> dict[str, Any]:
        assert self.object is not None
        spec: dict[str, Any] = self.object["spec"]
        return spec


class Clock:
    """Seconds since this clock's own beginning."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def candidate(server: Any, holder: str, clock: Clock) -> Lease:
    return Lease(server, LeaseName("system", "hpstudy", holder), clock)


@pytest.fixture
def server() -> Server:
    return Server()


def pair(server: Server) -> tuple[Lease, Clock, Lease, Clock]:
    """Two candidates whose clocks have nothing to do with each other; the first has the Lease."""
    one, two = Clock(1_000_000.0), Clock(5.0)
    first, second = candidate(server, "one", one), candidate(server, "two", two)
    assert first.attempt()
    assert not second.attempt()
    return first, one, second, two


def test_the_first_takes_it_and_nobody_else_while_it_renews(server: Server) -> None:
    first, one, second, two = pair(server)
    for _ in range(100):
        one.now, two.now = one.now + RENEW_SECONDS - 1, two.now + RENEW_SECONDS - 1
        assert first.attempt()
        assert first.is_held()
        assert not second.attempt()
        assert not second.is_held()
    assert server.spec["holderIdentity"] == "one"
    assert server.spec["leaseTransitions"] == 0


def test_a_holder_that_is_not_heard_of_is_followed_after_the_time_by_the_candidates_clock(server: Server) -> None:
    first, one, second, two = pair(server)
    two.now += LEASE_SECONDS - 0.1
    assert not second.attempt()
    two.now += 0.2
    assert second.attempt()
    assert second.is_held()
    assert server.spec["leaseTransitions"] == 1
    one.now += 1.0
    assert not first.attempt()  # it sees whose it is, however young its own renewal
    assert not first.is_held()


def test_the_holder_stops_well_before_another_may_follow(server: Server) -> None:
    first, one, _, _ = pair(server)
    one.now += RENEW_SECONDS - 0.1
    assert first.is_held()
    one.now += 0.2
    assert not first.is_held()
    assert RENEW_SECONDS < LEASE_SECONDS


def test_a_renewal_counts_from_when_it_was_sent(server: Server) -> None:
    first, one, _, _ = pair(server)

    def take_long() -> None:
        one.now += RENEW_SECONDS - 1

    server.before_write = take_long
    assert first.attempt()
    one.now += 2
    assert not first.is_held()


def test_of_two_who_follow_at_once_one_wins(server: Server) -> None:
    _, _, second, two = pair(server)
    third = candidate(server, "three", two)
    assert not third.attempt()
    two.now += LEASE_SECONDS + 1

    def third_is_faster() -> None:
        server.before_write = lambda: None
        assert third.attempt()

    server.before_write = third_is_faster
    assert not second.attempt()
    assert not second.is_held()
    assert third.is_held()


def test_a_lease_that_is_given_back_is_taken_at_once_and_not_given_back_by_others(server: Server) -> None:
    first, _, second, _ = pair(server)
    second.release()
    assert first.attempt()
    first.release()
    assert not first.is_held()
    assert second.attempt()
    assert second.is_held()
    first.release()
    assert server.spec["holderIdentity"] == "two"


def test_a_container_that_starts_again_goes_on_at_once(server: Server) -> None:
    pair(server)
    again = candidate(server, "one", Clock(0.0))
    assert again.attempt()
    assert server.spec["leaseTransitions"] == 0


def test_a_lease_that_the_chart_made_or_somebody_deleted_is_filled_in(server: Server) -> None:
    server.object = {"kind": "Lease", "metadata": {"name": "hpstudy", "resourceVersion": 7}}
    first = candidate(server, "one", Clock(0.0))
    assert first.attempt()
    server.object = None
    assert first.attempt()
    assert server.spec["holderIdentity"] == "one"


def test_an_election_survives_a_short_outage_and_ends_with_a_long_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    clock = Clock(0.0)
    first = candidate(server, "one", clock)

    async def scenario() -> None:
        server.away = True
        election = Election(first)
        winning = asyncio.create_task(election.win())
        await asyncio.sleep(0.05)
        assert not winning.done()
        server.away = False
        await winning
        losing = asyncio.create_task(election.lose())
        for away in (False, True, False, True):
            server.away = away
            for _ in range(2):
                clock.now += RENEW_SECONDS / 4
                await asyncio.sleep(0.01)
                while not away and first._renewed != clock.now:
                    await asyncio.sleep(0.001)
            assert not losing.done()
        clock.now += RENEW_SECONDS / 2
        await losing

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_an_election_is_lost_while_a_renewal_hangs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    clock = Clock(0.0)
    first = candidate(server, "one", clock)

    async def scenario() -> None:
        election, loop = Election(first), asyncio.get_running_loop()
        await election.win()
        answered = asyncio.Event()
        server.before_write = lambda: asyncio.run_coroutine_threadsafe(answered.wait(), loop).result(30)
        losing = asyncio.create_task(election.lose())
        await asyncio.sleep(0.05)
        clock.now += RENEW_SECONDS
        await losing
        answered.set()

    asyncio.run(asyncio.wait_for(scenario(), 30))
