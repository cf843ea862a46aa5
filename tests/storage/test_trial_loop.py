"""A worker group's part in a study, on real SQLite and PostgreSQL."""

import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.errors import StorageUnreachableError
from hpstudy.storage.locks import SessionLocks
from hpstudy.storage.opening import open_storage, open_study
from hpstudy.storage.reading import read_snapshot
from hpstudy.storage.settings import record_settings
from hpstudy.storage.urls import parse_url
from hpstudy.trials import explaining, ownership
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.storage.stored import trials_of
from tests.support.builders import spec
from tests.support.postgres import Postgres
from tests.support.trials import complete, take

NAME = "study"


def test_a_full_budget_waits_for_the_running_trial_and_takes_its_place_when_it_fails(storage_url: str) -> None:
    study = spec(budget={"maxTrials": 1, "maxFailedTrials": 1})
    with TrialLoop(study, storage_url, NAME, 0) as first, TrialLoop(study, storage_url, NAME, 1) as second:
        running = take(first)
        assert second.next() == Verdict(Next.WAIT)
        first.tell(running, Outcome(failure=Failure.ERROR, message="boom"))
        second.tell(take(second), complete())
        ended = first.next()
        assert isinstance(ended, Verdict)
        assert ended.next is Next.SUCCEEDED


def test_too_many_failures_end_the_study_with_the_last_error(storage_url: str) -> None:
    with TrialLoop(spec(budget={"maxFailedTrials": 0}), storage_url, NAME) as loop:
        loop.tell(take(loop), Outcome(failure=Failure.ERROR, message="ValueError: boom"))
        ended = loop.next()
    assert isinstance(ended, Verdict)
    assert ended.next is Next.FAILED
    assert "trial 0, error: ValueError: boom" in ended.message


def test_a_dead_group_s_trial_is_failed_and_its_parameters_run_again(storage_url: str) -> None:
    with TrialLoop(spec(), storage_url, NAME, 0) as loop, TrialLoop(spec(), storage_url, NAME, 1) as other:
        lost, running = take(loop), take(other)
        loop._locks.close()  # as the end of its process does
        with TrialLoop(spec(), storage_url, NAME, 0) as successor:
            again = take(successor)
            assert again.parameters == lost.parameters
            assert (lost.continues, again.continues) == (None, lost.number)
            trials = trials_of(storage_url)
            assert trials[lost.number].state is TrialState.FAIL
            assert trials[lost.number].user_attrs[attributes.FAILURE] == "lost"
            assert trials[running.number].state is TrialState.RUNNING, "another group's trial is not ours to end"


def test_a_trial_that_died_before_its_group_was_recorded_is_failed_too(storage_url: str) -> None:
    with TrialLoop(spec(), storage_url, NAME) as loop:
        orphan = loop.study.ask()
        loop._locks.close()
        with TrialLoop(spec(), storage_url, NAME):
            assert trials_of(storage_url)[orphan.number].state is TrialState.FAIL


def test_a_preempted_trial_costs_no_budget(storage_url: str) -> None:
    study = spec(budget={"maxTrials": 1, "maxFailedTrials": 0})
    with TrialLoop(study, storage_url, NAME) as loop:
        preempted = take(loop)
        loop.tell(preempted, Outcome(failure=Failure.PREEMPTED, message="told to stop"))
        again = take(loop)
        assert again.parameters == preempted.parameters
        loop.tell(again, complete())
        ended = loop.next()
        assert isinstance(ended, Verdict)
        assert ended.next is Next.SUCCEEDED


def test_a_trial_is_told_once(storage_url: str) -> None:
    with TrialLoop(spec(), storage_url, NAME) as loop:
        trial = take(loop)
        loop.tell(trial, complete(1.0))
        loop.tell(trial, complete(2.0))
    assert [stored.values for stored in trials_of(storage_url)] == [[1.0]]


def test_the_pruner_sees_the_other_trials(storage_url: str) -> None:
    study = spec(pruner={"name": "MedianPruner", "options": {"n_startup_trials": 1, "n_warmup_steps": 0}})
    with TrialLoop(study, storage_url, NAME) as loop:
        good = take(loop)
        assert not loop.report(good, 1, {"loss": 1.0})
        loop.tell(good, complete(1.0))
        bad = take(loop)
        assert loop.report(bad, 1, {"loss": 5.0})
        loop.tell(bad, Outcome(pruned=True))
    pruned = trials_of(storage_url)[1]
    assert (pruned.state, pruned.value) == (TrialState.PRUNED, 5.0)


def test_a_successor_waits_until_its_predecessor_is_gone(storage_url: str) -> None:
    entered = threading.Event()

    def succeed() -> None:
        with TrialLoop(spec(), storage_url, NAME):
            entered.set()

    with TrialLoop(spec(), storage_url, NAME):
        successor = threading.Thread(target=succeed)
        successor.start()
        assert not entered.wait(1.5)
    assert entered.wait(10)
    successor.join()


def test_another_search_space_is_refused(storage_url: str) -> None:
    with TrialLoop(spec(), storage_url, NAME) as loop:
        take(loop)
    other = spec(searchSpace={"parameters": {"y": {"type": "float", "low": 0, "high": 1}}})
    with pytest.raises(InvalidStudyError, match="searchSpace changed"), TrialLoop(other, storage_url, NAME):
        pass


def test_what_a_trial_is_may_be_corrected_until_there_are_results(storage_url: str) -> None:
    form = {"task": "text-classification", "model": {"config": {"model_type": "bert"}}, "dataset": {"csv": "a.csv"}}

    def with_epochs(epochs: int) -> StudySpec:
        objectives = [{"metric": "f1", "direction": "maximize"}]
        return spec(trial={"transformers": {**form, "arguments": {"num_train_epochs": epochs}}}, objectives=objectives)

    storage = open_storage(storage_url)
    open_study(storage, NAME, with_epochs(1)).ask()
    open_study(storage, NAME, with_epochs(2)).tell(0, 0.5)
    open_study(storage, NAME, with_epochs(2))
    with pytest.raises(InvalidStudyError, match="trial changed, and study 'study' has results of the old one"):
        open_study(storage, NAME, with_epochs(3))
    storage.engine.dispose()


def broken_gamma(trials: int) -> int:
    raise ValueError(trials)


def test_a_sampler_that_cannot_serve_the_study_is_refused(tmp_path: Path) -> None:
    options = {"n_startup_trials": 0, "gamma": f"{__name__}:broken_gamma"}
    study = spec(sampler={"name": "TPESampler", "options": options})
    with (
        TrialLoop(study, f"sqlite:///{tmp_path / 's.db'}", NAME) as loop,
        pytest.raises(InvalidStudyError, match="the sampler cannot propose a trial"),
    ):
        loop.next()


def broken_space(trial: optuna.Trial) -> dict[str, float]:
    raise KeyError("width")


def test_a_space_function_that_raises_fails_its_trials_and_in_the_end_the_study(tmp_path: Path) -> None:
    study = spec(searchSpace={"python": f"{__name__}:broken_space"}, budget={"maxFailedTrials": 1})
    with TrialLoop(study, f"sqlite:///{tmp_path / 's.db'}", NAME) as loop:
        assert [loop.next(), loop.next()] == [Verdict(Next.WAIT, after=0)] * 2, "the caller may have had enough"
        ended = loop.next()
    assert isinstance(ended, Verdict)
    assert ended.next is Next.FAILED
    assert "no hyperparameters: KeyError: 'width'" in ended.message


def interrupted_space(trial: optuna.Trial) -> dict[str, float]:
    raise KeyboardInterrupt


def invalid_space(trial: optuna.Trial) -> dict[str, float]:
    raise InvalidStudyError("InvalidSpace", "x: low is above high")


@pytest.mark.parametrize(
    ("space", "failure", "message"),
    [
        (interrupted_space, Failure.PREEMPTED, "the worker was told to stop"),
        (invalid_space, Failure.ERROR, "no hyperparameters: InvalidStudyError: x: low is above high"),
    ],
)
def test_what_ends_the_worker_while_a_space_function_runs_leaves_no_trial_running(
    url: str, space: Any, failure: Failure, message: str
) -> None:
    study = spec(searchSpace={"python": f"{__name__}:{space.__name__}"})
    with TrialLoop(study, url, NAME) as loop, pytest.raises((KeyboardInterrupt, InvalidStudyError)):
        loop.next()
    (trial,) = trials_of(url)
    assert trial.state is TrialState.FAIL
    assert (trial.user_attrs[attributes.FAILURE], trial.user_attrs[attributes.MESSAGE]) == (failure, message)


def test_an_error_that_is_not_of_a_proposal_is_raised(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an evaluator of stopWhen, which is asked before a trial is made."""
    study = spec(searchSpace={"python": f"{__name__}:broken_space"})
    with TrialLoop(study, url, NAME) as loop:
        monkeypatch.setattr(loop._enough, "look", broken_gamma)
        with pytest.raises(TypeError):
            loop.next()
    assert trials_of(url) == []


def test_a_study_that_was_refused_can_be_entered_again_once_it_is_mended(storage_url: str) -> None:
    """In the same process, as from a notebook: what the refused one held is let go."""
    missing = spec(sampler={"name": "TPESample"})
    with pytest.raises(InvalidStudyError, match="TPESample"), TrialLoop(missing, storage_url, NAME):
        pass
    take_in_time(spec(), storage_url)
    other = spec(searchSpace={"parameters": {"y": {"type": "float", "low": 0, "high": 1}}})
    refused = TrialLoop(other, storage_url, NAME)
    with pytest.raises(InvalidStudyError, match="searchSpace changed"):
        refused.settle()
    take_in_time(spec(), storage_url)


def take_in_time(study: StudySpec, url: str) -> None:
    def enter() -> None:
        with TrialLoop(study, url, NAME) as loop:
            take(loop)

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for the group's lock"


def test_a_starting_group_leaves_alone_what_another_is_making(
    storage_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not wait either for the operator's word on how that one ended."""
    never = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: pytest.fail("it waits for a word"))
    monkeypatch.setattr(explaining, "time", never)
    with TrialLoop(spec(parallelism=2), storage_url, NAME, 0) as loop:
        record_settings(loop.study, spec(parallelism=2))
        with loop._locks.holding(loop._locks.budget):
            made = loop.study.ask()
            starting = threading.Thread(target=lambda: TrialLoop(spec(), storage_url, NAME, 1).settle())
            starting.start()
            starting.join(1.5)
            assert starting.is_alive(), "the other group has the budget's lock"
            made.set_user_attr(attributes.GROUP, 0)
        starting.join(30)
        assert not starting.is_alive()
    assert "runs no more" not in caplog.text
    assert trials_of(storage_url)[made.number].state is TrialState.RUNNING


def test_a_group_whose_turn_does_not_come_asks_again_soon(storage_url: str) -> None:
    """Its driver hears meanwhile what its own trials say."""
    with TrialLoop(spec(), storage_url, NAME, 0) as loop, SessionLocks(parsed(storage_url)) as other:
        other.acquire(loop._locks.budget)
        begun = time.monotonic()
        answer = loop.next()
        assert time.monotonic() - begun < 2, "another group's sampler may take longer"
        assert isinstance(answer, Verdict)
        assert answer.next is Next.WAIT
        assert answer.after < 0.2
        other.release(loop._locks.budget)
        take(loop)


def parsed(url: str) -> str:
    return parse_url(url).render_as_string(hide_password=False)


def test_a_trial_whose_making_an_outage_cut_off_does_not_stay_running(
    storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone of its group: the other that the group has in hand goes on."""
    with TrialLoop(spec(budget={"maxTrials": 2}), storage_url, NAME) as loop:
        in_hand = take(loop)
        suggest, outages = loop._suggest, [StorageUnreachableError("gone")]

        def interrupted(trial: optuna.Trial) -> dict[str, Any]:
            if outages:
                raise outages.pop()
            return suggest(trial)

        monkeypatch.setattr(loop, "_suggest", interrupted)
        loop.tell(take(loop), complete())
        loop.tell(in_hand, complete())
        assert loop.verdict().next is Next.SUCCEEDED
    states = [stored.state for stored in trials_of(storage_url)]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]


def test_an_outage_of_the_database_is_survived(database: Postgres) -> None:
    url = database.create_database("outage")
    with TrialLoop(spec(), url, NAME) as loop:
        trial = take(loop)
        database.stop(signal.SIGINT)  # not as a crash would: without fsync that loses what was committed
        telling = threading.Thread(target=loop.tell, args=(trial, complete()))
        telling.start()
        telling.join(1.5)
        assert telling.is_alive(), "there is nobody to tell"
        database.start()
        telling.join(30)
        assert not telling.is_alive()
        take(loop)
        with TrialLoop(spec(), url, NAME, 1):
            assert not loop._locks.acquire("group:study:1", wait=False), "locks are taken again after an outage"
    assert [stored.state for stored in trials_of(url)] == [TrialState.COMPLETE, TrialState.RUNNING]


def test_a_removed_group_keeps_its_trial_over_a_restart_of_the_database(
    database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database.create_database("restart")
    study = spec(parallelism=3, budget={"maxTrials": 1})
    with TrialLoop(study, url, NAME, 0) as kept, TrialLoop(study, url, NAME, 2) as removed:
        trial = take(removed)
        record_settings(kept.study, spec(parallelism=1, budget={"maxTrials": 1}))
        database.stop(signal.SIGINT)
        removed.keep()  # nothing is due yet
        monkeypatch.setattr(ownership, "KEEP_SECONDS", 0.0)
        removed.keep()  # it is away: a trial goes on without it
        database.start()
        assert kept.next() == Verdict(Next.WAIT), "the other may only not have looked yet"
        removed.keep()
        monkeypatch.setattr(ownership, "_RETURN_SECONDS", 0.0)
        assert kept.next() == Verdict(Next.WAIT), "it is alive, and holds its lock again"
        removed.tell(trial, complete())
        assert kept.verdict().next is Next.SUCCEEDED
    assert [stored.state for stored in trials_of(url)] == [TrialState.COMPLETE]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("oracle://u:secret@h/d", "must look like"),
        ("postgresql//u:secret@h", "must look like"),
        ("hello", "must look like"),
    ],
)
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str, complaint: str) -> None:
    with pytest.raises(InvalidStudyError, match=complaint) as refusal:
        open_storage(url)
    assert "secret" not in str(refusal.value)


def test_a_database_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(StorageUnreachableError, match="Connection refused") as refusal:
        open_storage("postgresql://user:secret@127.0.0.1:1/none")
    assert "secret" not in str(refusal.value)


def test_a_snapshot_has_counts_the_best_and_the_front(storage_url: str) -> None:
    two = [{"metric": "f1", "direction": "maximize"}, {"metric": "size", "direction": "minimize"}]
    study = spec(objectives=two)
    storage = open_storage(storage_url)
    stored = open_study(storage, NAME, study)
    for f1, size in ((0.5, 10), (0.6, 20), (0.4, 30), (0.7, 30)):
        trial = stored.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        stored.tell(trial, (f1, size))
    with TrialLoop(study, storage_url, NAME) as loop:
        loop.tell(take(loop), Outcome(failure=Failure.ERROR, message="boom"))
        loop.tell(take(loop), Outcome(failure=Failure.LOST, message="gone"))
    snapshot = read_snapshot(storage, NAME, study)
    assert (snapshot.counts.complete, snapshot.counts.failed, snapshot.counts.preempted) == (4, 1, 1)
    assert snapshot.counts.retried == 0
    assert (snapshot.counts.waiting, snapshot.counts.total) == (1, 7)
    assert [trial.values for trial in snapshot.best] == [
        {"f1": 0.7, "size": 30},
        {"f1": 0.6, "size": 20},
        {"f1": 0.5, "size": 10},
    ]
    assert snapshot.front_size == 3
    assert snapshot.last_failure == "trial 4, error: boom", "a lost worker is no fault of the trial"
    storage.engine.dispose()
