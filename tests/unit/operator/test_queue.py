"""The queue of studies."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from hpstudy_operator import queue
from hpstudy_operator.queue import KeyedQueue

_PATIENCE = 5.0  # seconds, for what takes milliseconds


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), _PATIENCE))


def test_a_key_that_waits_is_in_the_queue_once() -> None:
    async def scenario() -> None:
        done: list[str] = []

        async def work(key: str) -> None:
            done.append(key)

        queue_ = KeyedQueue(work, workers=1)
        for _ in range(100):
            queue_.add("a")
        queue_.add("b")
        assert len(queue_) == 2
        queue_.start()
        while len(done) < 2:
            await asyncio.sleep(0)
        await queue_.stop(_PATIENCE)
        assert done == ["a", "b"]

    run(scenario)


def test_a_key_is_never_worked_on_twice_at_once_and_once_more_after_a_change() -> None:
    async def scenario() -> None:
        gate, started, runs, most = asyncio.Event(), asyncio.Event(), [0], [0]
        now = [0]

        async def work(key: str) -> None:
            runs[0] += 1
            now[0] += 1
            most[0] = max(most[0], now[0])
            started.set()
            await gate.wait()
            now[0] -= 1

        queue_ = KeyedQueue(work, workers=4)
        queue_.start()
        queue_.add("a")
        await started.wait()
        queue_.add("a")
        queue_.add("a")
        gate.set()
        while runs[0] < 2:
            await asyncio.sleep(0)
        await queue_.stop(_PATIENCE)
        assert (runs[0], most[0]) == (2, 1)

    run(scenario)


def test_no_more_keys_than_workers_are_worked_on() -> None:
    async def scenario() -> None:
        gate, now, most = asyncio.Event(), [0], [0]

        async def work(key: int) -> None:
            now[0] += 1
            most[0] = max(most[0], now[0])
            await gate.wait()
            now[0] -= 1

        queue_ = KeyedQueue(work, workers=3)
        queue_.start()
        for key in range(20):
            queue_.add(key)
        await asyncio.sleep(0.01)
        gate.set()
        while len(queue_):
            await asyncio.sleep(0)
        await queue_.stop(_PATIENCE)
        assert most[0] == 3

    run(scenario)


def test_a_key_comes_back_after_the_delay_that_it_asked_for_or_earlier_when_added() -> None:
    async def scenario() -> None:
        runs: list[str] = []

        async def work(key: str) -> float:
            runs.append(key)
            return 0.01 if key == "soon" else 3600.0

        queue_ = KeyedQueue(work, workers=1)
        queue_.start()
        queue_.add("soon")
        queue_.add("late")
        while runs.count("soon") < 3:
            await asyncio.sleep(0.005)
        assert runs.count("late") == 1
        queue_.add("late")
        while runs.count("late") < 2:
            await asyncio.sleep(0)
        await queue_.stop(_PATIENCE)

    run(scenario)


def test_a_look_that_was_asked_for_is_not_put_off_by_a_later_one() -> None:
    async def scenario() -> None:
        runs: list[float] = []
        begun = asyncio.Event()

        async def work(key: str) -> float:
            runs.append(asyncio.get_running_loop().time())
            begun.set()
            await asyncio.sleep(0.01)
            return 3600.0

        queue_ = KeyedQueue(work, workers=1)
        queue_.start()
        queue_.add("a")
        await begun.wait()
        queue_.add_after("a", 0.02)  # while it is worked on, whose own delay is longer
        while len(runs) < 2:
            await asyncio.sleep(0.005)
        queue_.add_after("a", 0.05)
        queue_.add_after("a", 3600.0)
        while len(runs) < 3:
            await asyncio.sleep(0.005)

    run(scenario)


def test_a_key_that_fails_is_tried_again_and_does_not_end_the_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queue, "FIRST_RETRY", 0.001)

    async def scenario() -> None:
        runs: list[str] = []

        async def work(key: str) -> None:
            runs.append(key)
            if len(runs) < 4:
                raise RuntimeError("database on fire")

        queue_ = KeyedQueue(work, workers=1)
        queue_.start()
        queue_.add("a")
        while len(runs) < 4:
            await asyncio.sleep(0.001)
        await queue_.stop(_PATIENCE)

    with caplog.at_level(logging.ERROR):
        run(scenario)
    assert [record.args[1] for record in caplog.records if record.args] == [0.001, 0.002, 0.004]


def test_stopping_waits_for_what_is_being_worked_on() -> None:
    async def scenario() -> None:
        finished: list[str] = []
        started = asyncio.Event()

        async def work(key: str) -> None:
            started.set()
            await asyncio.sleep(0.05)
            finished.append(key)

        queue_ = KeyedQueue(work, workers=1)
        queue_.start()
        queue_.add("a")
        queue_.add("b")
        await started.wait()
        await queue_.stop(_PATIENCE)
        assert finished == ["a"]

    run(scenario)


def test_the_oldest_key_tells_how_long_it_has_been_there() -> None:
    async def scenario() -> None:
        async def work(key: str) -> None:
            await asyncio.sleep(_PATIENCE)

        queue_ = KeyedQueue(work, workers=1)
        assert queue_.oldest() == 0
        queue_.add("a")
        await asyncio.sleep(0.02)
        assert queue_.oldest() >= 0.02

    run(scenario)


def test_a_stop_waits_for_what_is_under_way_but_not_for_ever() -> None:
    async def scenario() -> None:
        hangs, ends = asyncio.Event(), asyncio.Event()

        async def work(key: str) -> None:
            await {"hangs": hangs, "ends": ends}[key].wait()

        for key, has_finished in (("ends", True), ("hangs", False)):
            queue_ = KeyedQueue(work, workers=1)
            queue_.start()
            queue_.add(key)
            await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.02, ends.set)
            assert await queue_.stop(_PATIENCE / 2 if has_finished else 0.1) is has_finished
            queue_.add("more")
            queue_.add_after("more", 0)
            await asyncio.sleep(0.01)
            assert len(queue_) == 0

    run(scenario)


def test_what_is_logged_of_a_key_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async def work(_: str) -> None:
            raise ValueError("no")

        @contextmanager
        def about(key: str) -> Iterator[None]:
            caplog.handler.setFormatter(logging.Formatter(f"{key}: %(message)s"))
            yield
            caplog.handler.setFormatter(None)

        queue_ = KeyedQueue(work, workers=1, about=about)
        queue_.start()
        queue_.add("reviews")
        while not caplog.records:
            await asyncio.sleep(0)
        await queue_.stop(_PATIENCE)
        assert "reviews: reviews failed, again in 1 s: no" in caplog.text

    run(scenario)


class TestCalmKeys:
    def test_what_happened_passes_keys_whose_turn_has_only_come_round(self) -> None:
        async def scenario() -> None:
            done: list[str] = []

            async def work(key: str) -> None:
                done.append(key)

            queue_ = KeyedQueue(work, workers=1)
            for key in ("a", "b", "c"):
                queue_.add(key, calm=True)
            queue_.add("changed")
            queue_.add("c")
            queue_.add_after("b", 0)  # a trial of it ended
            await asyncio.sleep(0.01)
            assert len(queue_) == 4
            queue_.start()
            while len(done) < 4:
                await asyncio.sleep(0)
            queue_.add("c")
            while len(done) < 5:
                await asyncio.sleep(0)
            await queue_.stop(_PATIENCE)
            assert done == ["changed", "c", "b", "a", "c"]

        run(scenario)

    def test_they_are_not_passed_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(queue, "YIELD_SECONDS", 0.02)

        async def scenario() -> None:
            done: list[str] = []

            async def work(key: str) -> None:
                done.append(key)
                queue_.add("busy" if key == "busier" else "busier")
                await asyncio.sleep(0.001)

            queue_ = KeyedQueue(work, workers=1)
            queue_.add("calm", calm=True)
            queue_.add("busy")
            queue_.start()
            while "calm" not in done:
                await asyncio.sleep(0)
            await queue_.stop(_PATIENCE)

        run(scenario)

    @pytest.mark.parametrize("again", ["added", "added_after"])
    def test_a_look_that_was_planned_for_what_happened_stays_urgent(self, again: str) -> None:
        """All keys are added when a watch begins anew, and come round in the meantime."""

        async def scenario() -> None:
            done: list[str] = []

            async def work(key: str) -> None:
                done.append(key)

            queue_ = KeyedQueue(work, workers=1)
            queue_.add_after("changed", 10)
            queue_.add("calm", calm=True)
            if again == "added":
                queue_.add("changed", calm=True)
            else:
                queue_.add_after("changed", 0, calm=True)
                await asyncio.sleep(0.01)
            assert len(queue_) == 2
            queue_.start()
            while len(done) < 2:
                await asyncio.sleep(0)
            await queue_.stop(_PATIENCE)
            assert done == ["changed", "calm"]

        run(scenario)

    def test_a_key_that_comes_round_is_calm_and_one_that_failed_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(queue, "FIRST_RETRY", 0.01)

        async def scenario() -> None:
            done: list[str] = []

            async def work(key: str) -> float | None:
                done.append(key)
                if key == "blocker":
                    await asyncio.sleep(0.03)  # the others come due meanwhile
                if done.count(key) == 1:
                    if key == "fails":
                        raise RuntimeError("for once")
                    return 0.01 if key == "round" else None
                return None

            queue_ = KeyedQueue(work, workers=1, expected=(RuntimeError,))
            for key in ("round", "fails", "blocker"):
                queue_.add(key)
            queue_.start()
            while len(done) < 5:
                await asyncio.sleep(0)
            await queue_.stop(_PATIENCE)
            assert done == ["round", "fails", "blocker", "fails", "round"]

        run(scenario)
