"""Classes of failure: which run again, what they count as, and what they leave, on real SQLite and PostgreSQL."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpstudy.api.retries import Retries
from hpstudy.api.status import TrialCounts
from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.ends import PodEnd, record_end
from hpstudy.storage.opening import open_storage, open_study
from hpstudy.storage.settings import record_settings
from hpstudy.trials import explaining
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from hpstudy.trials.retries import has_retry
from tests.storage.stored import NAME, snapshot_of, trials_of
from tests.support.builders import spec
from tests.support.forkserver import PROCESSES
from tests.support.trials import finish, take

ONCE_EACH = {"error": 1, "oom": 1, "metricMissing": 1, "timeout": 1, "preempted": 1, "lost": 1}


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)


def fail(loop: TrialLoop, trial: Assignment, failure: Failure, message: str = "boom") -> None:
    loop.tell(trial, Outcome(failure=failure, message=message))


@pytest.mark.parametrize(
    ("failure", "earlier", "limits", "expected"),
    [
        (Failure.ERROR, [], {}, False),
        (Failure.OOM, [], {}, False),
        (Failure.METRIC_MISSING, [], {}, False),
        (Failure.TIMEOUT, [], {}, False),
        (Failure.PREEMPTED, ["preempted"] * 2, {}, True),
        (Failure.PREEMPTED, ["preempted"] * 3, {}, False),
        (Failure.LOST, ["lost"] * 2, {}, True),
        (Failure.LOST, ["lost"] * 3, {}, False),
        (Failure.LOST, ["preempted"] * 3, {}, True),
        (Failure.LOST, [], {"lost": 0}, False),
        (Failure.METRIC_MISSING, ["error"], {"metricMissing": 1}, True),
        (Failure.METRIC_MISSING, ["error", "metric-missing"], {"metricMissing": 1}, False),
        (Failure.OOM, ["oom"] * 99, {"oom": 100}, True),
    ],
)
def test_each_class_has_a_limit_of_its_own(
    failure: Failure, earlier: Sequence[str], limits: dict[str, int], expected: bool
) -> None:
    assert has_retry(failure, [Failure(name) for name in earlier], Retries.model_validate(limits)) is expected


@pytest.mark.parametrize("failure", [failure for failure in Failure if failure is not Failure.SUSPENDED])
def test_a_class_with_retries_runs_the_same_again_and_then_counts_as_failed(failure: Failure, url: str) -> None:
    study = spec(budget={"maxTrials": 1, "maxFailedTrials": 0}, retries=ONCE_EACH)
    kind = "preempted" if failure in {Failure.PREEMPTED, Failure.LOST} else "retried"
    with TrialLoop(study, url, NAME) as loop:
        first = take(loop)
        fail(loop, first, failure)
        assert snapshot_of(url, study).counts == TrialCounts(total=2, waiting=1, **{kind: 1})
        again = take(loop)
        assert (again.parameters, again.continues) == (first.parameters, first.number)
        fail(loop, again, failure)
        ended = loop.next()
    assert isinstance(ended, Verdict)
    assert ended.next is Next.FAILED
    assert f"trial 1, {failure}: boom; given up after 2 runs" in ended.message
    assert snapshot_of(url, study).counts == TrialCounts(total=2, failed=1, **{kind: 1})
    trials = trials_of(url)
    assert [trial.user_attrs[attributes.FAILURE] for trial in trials] == [failure, failure]
    assert trials[1].user_attrs[attributes.RUNS] == [0]


def test_retries_of_several_classes_add_up_and_the_newest_run_is_continued(storage_url: str) -> None:
    study = spec(budget={"maxTrials": 2, "maxFailedTrials": 0}, retries={"oom": 1, "timeout": 2, "preempted": 1})
    classes = [Failure.TIMEOUT, Failure.PREEMPTED, Failure.OOM, Failure.LOST, Failure.TIMEOUT]
    with TrialLoop(study, storage_url, NAME) as loop:
        first = take(loop)
        fail(loop, first, classes[0])
        for number, failure in enumerate(classes[1:], 1):
            again = take(loop)
            assert (again.number, again.parameters, again.continues) == (number, first.parameters, number - 1)
            fail(loop, again, failure)
        finish(loop, take(loop))
        other = take(loop)
        assert other.parameters != first.parameters
        finish(loop, other)
        ended = loop.next()
    assert isinstance(ended, Verdict)
    assert ended.next is Next.SUCCEEDED
    counts = snapshot_of(storage_url, study).counts
    assert counts == TrialCounts(total=7, complete=2, preempted=2, retried=3)
    assert trials_of(storage_url)[5].user_attrs[attributes.RUNS] == [0, 1, 2, 3, 4]


def a_conditional_space(trial: optuna.Trial) -> dict[str, Any]:
    """Another branch, and other names, for every trial."""
    kind = trial.suggest_categorical("kind", ["linear", "tree", None])
    if kind == "linear":
        return {"kind": kind, "rate": trial.suggest_float("rate", 1e-6, 1e-1, log=True)}
    if kind == "tree":
        depth = trial.suggest_int("depth", 1, 9)
        return {"kind": kind, "leaves": [trial.suggest_int(f"leaves{i}", 1, 9) for i in range(depth)]}
    return {"kind": kind}


CONDITIONAL = {
    "kind": {"type": "categorical", "choices": ["linear", "tree", None, True]},
    "rate": {"type": "float", "low": 1e-6, "high": 1e-1, "log": True, "when": {"kind": ["linear"]}},
    "depth": {"type": "int", "low": 1, "high": 9, "step": 2, "when": {"kind": ["tree", True]}},
}


@pytest.mark.parametrize("space", [{"python": f"{__name__}:a_conditional_space"}, {"parameters": CONDITIONAL}])
def test_conditional_hyperparameters_run_again_as_they_were(space: dict[str, Any], url: str) -> None:
    sampler = {"name": "RandomSampler", "options": {"seed": 3}}
    study = spec(searchSpace=space, sampler=sampler, retries={"error": 1})
    seen = set()
    with TrialLoop(study, url, NAME) as loop:
        for _ in range(8):
            first = take(loop)
            fail(loop, first, Failure.ERROR)
            again = take(loop)
            assert again.parameters == first.parameters
            seen.add(tuple(first.parameters))
            finish(loop, again)
    assert len(seen) > 2, "all branches were there"


def run_unlucky_group(url: str, group: int, study: StudySpec) -> None:
    """Of ten trials, some three fail in some way."""
    luck = random.Random(group)
    with TrialLoop(study, url, NAME, group) as loop:
        while True:
            assigned = loop.next()
            if isinstance(assigned, Assignment):
                if luck.random() < 0.3:
                    fail(loop, assigned, luck.choice(list(Failure)))
                else:
                    finish(loop, assigned)
            elif assigned.next is Next.WAIT:
                time.sleep(0.01)
            else:
                return


def test_the_budget_is_exact_with_retries_and_a_group_that_is_killed(storage_url: str) -> None:
    groups = 3 if storage_url.startswith("postgresql") else 2
    study = spec(
        budget={"maxTrials": 10, "maxFailedTrials": 100},
        sampler={"name": "RandomSampler"},
        retries={"error": 1, "metricMissing": 1, "lost": 1},
        parallelism=groups,
    )
    storage = open_storage(storage_url)
    stored = open_study(storage, NAME, study)
    started = [PROCESSES.Process(target=run_unlucky_group, args=(storage_url, group, study)) for group in range(groups)]
    try:
        for process in started:
            process.start()
        eventually(lambda: any(trial.state.is_finished() for trial in stored.get_trials(deepcopy=False)))
        started[0].kill()  # wherever it is
        started.append(PROCESSES.Process(target=run_unlucky_group, args=(storage_url, 0, study)))
        started[-1].start()
        for process in started:
            process.join(100)
        assert [process.exitcode for process in started[1:]] == [0] * groups
    finally:
        for process in started:
            process.kill()
        storage.engine.dispose()
    trials = trials_of(storage_url)
    states = Counter(trial.state for trial in trials)
    counts = snapshot_of(storage_url, study).counts
    assert states[TrialState.COMPLETE] == counts.complete == 10
    assert counts.running == counts.waiting == 0
    assert counts.failed + counts.preempted + counts.retried == states[TrialState.FAIL] > 0
    # What runs again does so exactly once, with the same parameters; what died before it had any does not.
    again = [trial for trial in trials if attributes.runs_again(trial.user_attrs)]
    assert len(again) == counts.preempted + counts.retried
    runs = [tuple(trial.user_attrs[attributes.RUNS]) for trial in trials if attributes.RUNS in trial.user_attrs]
    assert sorted(earlier[-1] for earlier in runs) == [trial.number for trial in again if parameters(trial)]
    for trial in trials:
        for earlier in trial.user_attrs.get(attributes.RUNS, []):
            assert parameters(trial) == parameters(trials[earlier])


def parameters(trial: FrozenTrial) -> dict[str, Any]:
    """Those that it had, or came with."""
    return trial.params or dict(trial.system_attrs.get(attributes.FIXED, {}))


@pytest.mark.parametrize("ran", [True, False])
def test_a_retry_that_dies_before_it_has_its_parameters_does_not_lose_them(ran: bool, url: str) -> None:
    with TrialLoop(spec(initialTrials=[{"x": 0.5}]), url, NAME) as loop:
        if ran:
            fail(loop, take(loop), Failure.PREEMPTED)
        loop.study.ask().set_user_attr(attributes.GROUP, 0)
        loop._locks.close()  # as the end of its process does
        with TrialLoop(spec(initialTrials=[{"x": 0.5}]), url, NAME) as successor:
            assert take(successor).parameters == {"x": 0.5}


def test_a_process_that_dies_while_it_records_a_failure_loses_and_doubles_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with TrialLoop(spec(), url, NAME) as loop:
        first = take(loop)
        monkeypatch.setattr(loop.study, "tell", die)
        with pytest.raises(KeyboardInterrupt):
            fail(loop, first, Failure.PREEMPTED)
        loop._locks.close()
        with TrialLoop(spec(), url, NAME) as successor:
            again = take(successor)
            assert (again.parameters, again.continues) == (first.parameters, first.number)
            assert [trial.state.name for trial in trials_of(url)] == ["FAIL", "RUNNING"]


def test_retries_that_the_operator_raises_count_at_once(url: str) -> None:
    study = spec(retries={"lost": 0})
    with TrialLoop(study, url, NAME) as loop:
        first = take(loop)
        record_settings(loop.study, spec(retries={"error": 1, "lost": 0}))
        fail(loop, first, Failure.ERROR)
        again = take(loop)
        assert again.parameters == first.parameters
        record_settings(loop.study, study)
        fail(loop, again, Failure.ERROR)
        assert take(loop).parameters != first.parameters


def test_a_removed_group_s_trial_is_taken_over_once_its_lock_is_free(storage_url: str) -> None:
    """As after parallelism was lowered from 3 to 1, and the pod of the last group was killed before it could say so."""
    study = spec(budget={"maxTrials": 1}, parallelism=3)
    with TrialLoop(study, storage_url, NAME, 0) as kept, TrialLoop(study, storage_url, NAME, 2) as removed:
        trial = take(removed)
        assert kept.next() == Verdict(Next.WAIT)
        record_settings(kept.study, study.model_copy(update={"parallelism": 1}))
        assert kept.next() == Verdict(Next.WAIT), "it is alive, and hands its trial back itself"
        removed._locks.close()  # as the end of its process does
        again = take(kept)
        assert (again.parameters, again.continues) == (trial.parameters, trial.number)
        finish(kept, again)
        assert kept.verdict().next is Next.SUCCEEDED
    stored = trials_of(storage_url)
    assert [trial.state.name for trial in stored] == ["FAIL", "COMPLETE"]
    assert stored[0].user_attrs[attributes.MESSAGE] == "its worker group was removed"


def test_a_group_that_is_only_restarting_keeps_its_trial(url: str) -> None:
    study = spec(budget={"maxTrials": 1}, parallelism=2)
    with TrialLoop(study, url, NAME, 0) as kept, TrialLoop(study, url, NAME, 1) as restarting:
        take(restarting)
        restarting._locks.close()
        assert kept.next() == Verdict(Next.WAIT)
        assert trials_of(url)[0].state is TrialState.RUNNING


class TestWhatTheOperatorSaw:
    """Of the end of a pod, of which the worker itself could say nothing."""

    STUDY = spec(retries={"oom": 1}, workers={"nodes": 2})

    @staticmethod
    def end(failure: Failure = Failure.OOM, seconds: float = 0, message: str = "pod a was OOM-killed") -> PodEnd:
        return PodEnd(uid="1", failure=failure, message=message, at=datetime.now(UTC) + timedelta(seconds=seconds))

    @pytest.mark.parametrize(
        ("failure", "seconds", "trials", "expected"),
        [
            (Failure.OOM, 0, 1, ("oom", "pod a was OOM-killed")),
            (Failure.PREEMPTED, 0, 1, ("preempted", "pod a was OOM-killed")),
            (Failure.OOM, -60, 1, ("lost", "the worker that ran it is gone")),  # an earlier pod's
            (Failure.OOM, 0, 2, ("lost", "pod a was OOM-killed; 2 trials ran in it")),
        ],
    )
    def test_a_successor_learns_of_it(
        self, failure: Failure, seconds: float, trials: int, expected: tuple[str, str], url: str
    ) -> None:
        with TrialLoop(self.STUDY, url, NAME) as loop:
            taken = [take(loop) for _ in range(trials)]
            record_end(loop.study, 0, self.end(failure, seconds))
            loop._locks.close()
            with TrialLoop(self.STUDY, url, NAME) as successor:
                again = take(successor)
                assert again.parameters == taken[0].parameters
                assert again.alone is (expected[1].endswith("2 trials ran in it"))
                fail(successor, again, Failure.LOST, "gone as well")
                assert sum(take(successor).alone for _ in range(trials)) == (trials if again.alone else 0)
        stored = trials_of(url)[:trials]
        assert {(t.user_attrs[attributes.FAILURE], t.user_attrs[attributes.MESSAGE]) for t in stored} == {expected}

    def test_the_driver_that_lost_another_node_waits_for_the_word(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with TrialLoop(self.STUDY, url, NAME) as loop:
            trial = take(loop)
            record_settings(loop.study, self.STUDY)
            # The operator is one interval late.
            monkeypatch.setattr(explaining.time, "sleep", lambda _: record_end(loop.study, 0, self.end()))
            fail(loop, trial, Failure.LOST, "the pod of node 1 is gone")
        stored = trials_of(url)[0].user_attrs
        assert (stored[attributes.FAILURE], stored[attributes.MESSAGE]) == ("oom", "pod a was OOM-killed")

    def test_without_a_word_it_waits_for_a_while_and_the_trial_is_lost(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 0.0

        def pass_time(seconds: float) -> None:
            nonlocal now
            now += seconds

        with TrialLoop(self.STUDY, url, NAME) as loop:
            trial = take(loop)
            record_settings(loop.study, self.STUDY)
            monkeypatch.setattr(explaining.time, "sleep", pass_time)
            monkeypatch.setattr(explaining.time, "monotonic", lambda: now)
            fail(loop, trial, Failure.LOST, "the pod of node 1 is gone")
        assert now == explaining.PATIENCE
        assert trials_of(url)[0].user_attrs[attributes.FAILURE] == "lost"
