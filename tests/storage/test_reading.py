"""What the operator reads of a study, and how little of it."""

from datetime import datetime, timedelta
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sqlalchemy import event, text

from hpstudy.storage import attributes
from hpstudy.storage.bell import CHANNEL, hang, read_pulses
from hpstudy.storage.opening import open_storage, open_study
from hpstudy.storage.reading import begun_trials, longest_trial, read_snapshot
from tests.support.builders import spec
from tests.support.postgres import Postgres

NAME = "study"
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-6, 1e-2, log=True),
    "layers": IntDistribution(1, 12),
    "optimiser": CategoricalDistribution(["adamw", "sgd", None, 3]),
}
TWO = [{"metric": "f1", "direction": "maximize"}, {"metric": "size", "direction": "minimize"}]


def run_trials(study: optuna.Study, values: list[Any], **attrs: Any) -> None:
    study.sampler = optuna.samplers.RandomSampler(seed=len(study.trials))
    for value in values:
        trial = study.ask(DISTRIBUTIONS)
        for key, attribute in attrs.items():
            trial.set_user_attr(f"hpstudy:{key}", attribute)
        study.tell(trial, value)


def test_the_best_trials_are_optunas_own(storage_url: str) -> None:
    storage = open_storage(storage_url)
    study = open_study(storage, NAME, spec())
    run_trials(study, [3.0, 1.0, 2.0], group=1)
    best = read_snapshot(storage, NAME, spec()).best
    for shown, stored in zip(best, sorted(study.trials, key=lambda trial: trial.value or 0), strict=True):
        assert shown.number == stored.number
        assert shown.values == {"loss": stored.value}
        assert shown.hyperparameters == stored.params
        assert shown.worker == "1"
        assert stored.duration is not None
        assert shown.duration == pytest.approx(stored.duration.total_seconds(), abs=1e-3)
    storage.engine.dispose()


def test_an_infinite_value_is_nobodys_best(storage_url: str) -> None:
    storage = open_storage(storage_url)
    study = open_study(storage, NAME, spec(objectives=TWO))
    run_trials(study, [(0.5, 1.0), (float("inf"), 1.0), (0.4, float("-inf"))])
    snapshot = read_snapshot(storage, NAME, spec(objectives=TWO))
    assert [trial.number for trial in snapshot.best] == [0]
    assert (snapshot.front_size, snapshot.counts.complete) == (1, 3)
    storage.engine.dispose()


@pytest.mark.parametrize("objectives", [None, TWO], ids=["one objective", "two"])
def test_values_are_read_again_only_when_another_trial_has_completed(storage_url: str, objectives: Any) -> None:
    fields = {"objectives": objectives} if objectives else {}
    value = (0.5, 1.0) if objectives else 0.5
    storage = open_storage(storage_url)
    study = open_study(storage, NAME, spec(**fields))
    run_trials(study, [value])
    asked: list[str] = []
    event.listen(storage.engine, "before_cursor_execute", lambda *call: asked.append(call[2]))

    def look(known: Any) -> Any:
        asked.clear()
        return read_snapshot(storage, NAME, spec(**fields), known)

    first = look(None)
    assert any("trial_values" in query for query in asked)
    study.ask(DISTRIBUTIONS)
    second = look(first)
    assert not any("trial_values" in query or "trial_params" in query for query in asked)
    assert (second.best, second.front_size, second.counts.running) == (first.best, first.front_size, 1)
    run_trials(study, [value])
    third = look(second)
    assert third == read_snapshot(storage, NAME, spec(**fields))
    assert len(third.best) == 2
    storage.engine.dispose()


def test_a_pulse_changes_with_every_move_of_a_trial_and_with_nothing_else(storage_url: str) -> None:
    storage = open_storage(storage_url)
    study = open_study(storage, NAME, spec())
    open_study(storage, "other", spec())

    def pulses() -> dict[str, tuple[int, int, int]]:
        with storage.engine.connect() as connection:
            return read_pulses(connection, [NAME, "other", "unknown"])

    assert pulses() == {NAME: (0, 0, 0), "other": (0, 0, 0)}
    study.enqueue_trial({"lr": 1e-3})
    assert pulses()[NAME] == (1, 0, 0)
    trial = study.ask(DISTRIBUTIONS)
    assert pulses()[NAME] == (1, 1, 0)
    trial.report(0.5, 1)
    trial.set_user_attr("mine", 1)
    assert pulses()[NAME] == (1, 1, 0)
    study.tell(trial, 0.5)
    assert pulses() == {NAME: (1, 1, 1), "other": (0, 0, 0)}
    storage.engine.dispose()


def test_the_longest_trial_is_one_that_ran_here_to_its_end(storage_url: str) -> None:
    storage = open_storage(storage_url)
    study = open_study(storage, NAME, spec())
    start = datetime(2026, 3, 1, 12)

    def longest() -> float | None:
        with storage.engine.connect() as connection:
            return longest_trial(connection, NAME)

    def add(state: TrialState, seconds: float, **attrs: Any) -> None:
        trial = optuna.trial.create_trial(
            state=state, value=1.0 if state == TrialState.COMPLETE else None, user_attrs=attrs
        )
        trial.datetime_start = start
        trial.datetime_complete = start + timedelta(seconds=seconds)
        study.add_trial(trial)

    assert longest() is None
    add(TrialState.FAIL, 900)
    add(TrialState.COMPLETE, 800, **{attributes.TAKEN_FROM: ["another", 3]})
    study.ask(DISTRIBUTIONS)
    assert longest() is None
    add(TrialState.COMPLETE, 7.5)
    add(TrialState.PRUNED, 9)
    add(TrialState.COMPLETE, 8)
    assert longest() == 9
    storage.engine.dispose()


def test_each_group_s_own_trials_are_counted(storage_url: str) -> None:
    storage = open_storage(storage_url)
    study = open_study(storage, NAME, spec())

    def begun() -> dict[int, int]:
        with storage.engine.connect() as connection:
            return begun_trials(connection, NAME)

    assert begun() == {}
    for group in (0, 11, 0):
        study.ask(DISTRIBUTIONS).set_user_attr(attributes.GROUP, group)
    study.tell(0, state=TrialState.FAIL)
    study.ask(DISTRIBUTIONS)  # nobody's yet
    taken = {attributes.GROUP: 0, attributes.TAKEN_FROM: ["another", 3]}
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs=taken))
    assert begun() == {0: 2, 11: 1}
    storage.engine.dispose()


def test_the_bell_rings_once_for_each_move_of_a_study_with_a_word(database: Postgres) -> None:
    storage = open_storage(database.create_database("bell"))
    with storage.engine.connect() as connection:
        assert hang(connection)
        assert hang(connection), "again, with nothing to do"
        assert connection.scalar(text("select count(*) from pg_trigger where tgname = 'hpstudy_moved'")) == 1
    study = open_study(storage, NAME, spec())
    silent = open_study(storage, "silent", spec())
    study.set_user_attr(attributes.BELL, "word")
    listener = storage.engine.raw_connection()
    listener.cursor().execute(f"listen {CHANNEL}")
    listener.commit()

    def told() -> list[str]:
        listener.cursor().execute("select 1")  # before the answer to a transaction, the server tells what it has heard
        listener.commit()
        notifies = listener.driver_connection.notifies  # type: ignore[union-attr]
        words = [notification.payload for notification in notifies]
        notifies.clear()
        return words

    trial = study.ask(DISTRIBUTIONS)
    assert told() == ["word"]
    trial.report(0.5, 1)
    trial.set_user_attr("mine", 1)
    assert told() == []
    study.tell(trial, 0.5)
    assert told() == ["word"]
    run_trials(silent, [0.5])
    assert told() == []
    listener.close()
    storage.engine.dispose()


def test_a_database_that_cannot_tell_says_so(tmp_path: Any) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    with storage.engine.connect() as connection:
        assert not hang(connection)
    storage.engine.dispose()
