"""Proposals that are broken off, as when their pod is told to stop: on real SQLite, PostgreSQL and MySQL."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpstudy.storage import attributes
from hpstudy.storage.locks import SessionLocks
from hpstudy.storage.urls import parse_url
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.storage.stored import trials_of
from tests.support.builders import spec
from tests.support.trials import complete, take

PATIENCE = 60.0  # seconds


class Ponderer(optuna.samplers.RandomSampler):
    """Takes its time over every proposal. One that wraps makes an error of its own of what comes up in it."""

    def __init__(self, *, wraps: bool = False) -> None:
        super().__init__(seed=1)
        self.begun = threading.Event()
        self._wraps = wraps

    def before_trial(self, study: Any, trial: Any) -> None:
        try:
            self.ponder()
        except BaseException as error:
            if self._wraps:
                raise ValueError("no proposal") from error
            raise

    def ponder(self) -> None:
        self.begun.set()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            sum(range(1000))
        raise AssertionError("it was not broken off")


@contextmanager
def told_to_stop(loop: TrialLoop, begun: threading.Event) -> Iterator[None]:
    """As the driver's process is, once a proposal has begun."""
    before = signal.signal(signal.SIGUSR1, lambda *_: loop.break_off())
    telling = threading.Thread(target=lambda: begun.wait(PATIENCE) and os.kill(os.getpid(), signal.SIGUSR1))
    telling.start()
    try:
        yield
    finally:
        telling.join()
        signal.signal(signal.SIGUSR1, before)


def ends(url: str) -> list[tuple[TrialState, str | None, bool]]:
    found = trials_of(url)
    return [
        (trial.state, trial.user_attrs.get(attributes.FAILURE), attributes.runs_again(trial.user_attrs))
        for trial in found
    ]


HANDED_BACK = TrialState.FAIL, "preempted", True


@pytest.mark.parametrize("wraps", [False, True])
def test_a_sampler_that_ponders_is_broken_off_and_its_trial_costs_nothing(storage_url: str, wraps: bool) -> None:
    study, sampler = spec(budget={"maxTrials": 1, "maxFailedTrials": 0}), Ponderer(wraps=wraps)
    with ExitStack() as stack:
        loop = stack.enter_context(TrialLoop(study, storage_url, "study", 0, sampler=sampler))
        other = stack.enter_context(TrialLoop(study, storage_url, "study", 1))
        with told_to_stop(loop, sampler.begun):
            assert loop.next() == Verdict(Next.WAIT)
        assert ends(storage_url) == [HANDED_BACK]
        assert loop.next() == Verdict(Next.WAIT), "it makes no more"
        assert ends(storage_url) == [HANDED_BACK]
        other.tell(take(other), complete())
        assert other.next().next is Next.SUCCEEDED  # type: ignore[union-attr]


def test_what_was_queued_is_queued_again(storage_url: str) -> None:
    """As a trial is that runs again: the place where it goes on is not lost."""
    study, sampler = spec(), Ponderer()
    with TrialLoop(study, storage_url, "study") as first:
        preempted = take(first)
        first.tell(preempted, Outcome(failure=attributes.Failure.PREEMPTED, message="drained"))
    with TrialLoop(study, storage_url, "study", sampler=sampler) as loop, told_to_stop(loop, sampler.begun):
        assert loop.next() == Verdict(Next.WAIT)
    with TrialLoop(study, storage_url, "study") as successor:
        again = take(successor)
        assert (again.parameters, again.continues) == (preempted.parameters, preempted.number)
    assert ends(storage_url)[:2] == [HANDED_BACK] * 2


def test_a_function_that_ponders_is_broken_off_without_waiting_for_another_group(storage_url: str) -> None:
    """Which may hold the budget's lock for as long as its own sampler ponders."""
    ponderer = Ponderer()

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        parameters = {"x": trial.suggest_float("x", 0, 1)}
        assert other.acquire(loop._locks.budget, wait=False)
        ponderer.ponder()
        return parameters

    with ExitStack() as stack:
        other = stack.enter_context(SessionLocks(parse_url(storage_url).render_as_string(hide_password=False)))
        sampler = optuna.samplers.RandomSampler()
        loop = stack.enter_context(TrialLoop(spec(), storage_url, "study", suggest=suggest, sampler=sampler))
        with told_to_stop(loop, ponderer.begun):
            assert loop.next() == Verdict(Next.WAIT)
        trial, queued = trials_of(storage_url)
        assert (trial.state, queued.state) == (TrialState.FAIL, TrialState.WAITING)
        assert queued.system_attrs[attributes.FIXED] == trial.params
