"""Which checkpoints stay: a bounded number, never the wrong ones, whatever the groups do at once."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages._rdb.models import TrialModel
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event

from hpstudy.api.study import StudySpec
from hpstudy.checkpoints.folders import FolderStore
from hpstudy.checkpoints.store import BEST, LAST
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome, conclude
from hpstudy.trials.retention import to_remove
from tests.storage.stored import snapshot_of
from tests.support.builders import spec

RUNNING, WAITING = TrialState.RUNNING, TrialState.WAITING
TWO = [{"metric": "a", "direction": "minimize"}, {"metric": "b", "direction": "maximize"}]


def trial(number: int, values: Any = None, state: TrialState = TrialState.COMPLETE, **attrs: Any) -> FrozenTrial:
    infeasible = attrs.pop("infeasible", False)
    system = {attributes.CONSTRAINT_PREFIX + "x": 1.0} if infeasible else {}
    values = [values] if isinstance(values, float) else values
    user = {attributes.CONTINUES: attrs["continues"]} if "continues" in attrs else {}
    made = create_trial(
        state=state, values=values if state is TrialState.COMPLETE else None, user_attrs=user, system_attrs=system
    )
    made.number = number
    return made


@pytest.mark.parametrize(
    ("keep", "trials", "gone"),
    [
        ("best", [trial(0, 2.0), trial(1, 1.0)], [(0, LAST), (0, BEST), (1, LAST)]),
        ("best", [trial(0, 1.0), trial(1, 1.0)], [(0, LAST), (1, LAST), (1, BEST)]),
        ("best", [trial(0, 1.0, infeasible=True), trial(1, 2.0)], [(0, LAST), (0, BEST), (1, LAST)]),
        ("best", [trial(0, state=TrialState.FAIL), trial(1, state=WAITING, continues=0)], []),
        ("best", [trial(0, state=TrialState.FAIL), trial(1, state=RUNNING, continues=0)], []),
        ("best", [trial(0, state=TrialState.FAIL)], [(0, LAST), (0, BEST)]),
        ("none", [trial(0, 1.0), trial(1, state=RUNNING)], [(0, LAST), (0, BEST)]),
        ("none", [trial(0, state=TrialState.FAIL), trial(1, state=WAITING, continues=0)], [(0, BEST)]),
        ("all", [trial(0, 2.0), trial(1, 1.0)], [(0, LAST), (1, LAST)]),
        (
            "all",
            [trial(0, state=TrialState.PRUNED), trial(1, state=TrialState.FAIL)],
            [(0, LAST), (1, LAST), (1, BEST)],
        ),
    ],
)
def test_what_goes(keep: str, trials: list[FrozenTrial], gone: list[tuple[int, str]]) -> None:
    """Trial 9 has come since the storage was read."""
    assert to_remove(trials, [0, 1, 9], spec(checkpoints={"keep": keep})) == gone


def test_what_waits_goes_when_the_study_is_over() -> None:
    trials = [trial(0, state=TrialState.FAIL), trial(1, state=WAITING, continues=0)]
    assert to_remove(trials, [0], spec(checkpoints={}), over=True) == [(0, LAST), (0, BEST)]


def test_the_front_stays() -> None:
    trials = [trial(0, [1.0, 1.0]), trial(1, [2.0, 2.0]), trial(2, [2.0, 1.5])]
    gone = to_remove(trials, [0, 1, 2], spec(checkpoints={}, objectives=TWO))
    assert gone == [(0, LAST), (1, LAST), (2, LAST), (2, BEST)]


def publish(store: FolderStore, folder: Path, number: int, *labels: str) -> None:
    """As rank zero does while the trial runs."""
    folder.mkdir(exist_ok=True)
    (folder / "model").write_text(str(number))
    for label in labels:
        store.publish(number, label, folder)


def stored(store: FolderStore) -> dict[int, set[str]]:
    return {number: {label for label in (LAST, BEST) if store.exists(number, label)} for number in store.numbers()}


def files(root: Path) -> int:
    return sum(path.is_file() for path in root.rglob("*"))


@pytest.mark.parametrize("objectives", [1, 2])
def test_disk_stays_bounded_over_the_trials_of_several_groups(tmp_path: Path, url: str, objectives: int) -> None:
    """Three groups in turns, each with a trial in hand; one trial in seven is lost and run again."""
    fields: dict[str, Any] = {"checkpoints": {}, "budget": {"maxTrials": 30}}
    if objectives == 2:
        fields["objectives"] = TWO
    study = spec(**fields, sampler={"name": "RandomSampler", "options": {"seed": 1}})
    store = FolderStore(tmp_path / "checkpoints" / "study")
    loops = [TrialLoop(study, url, "study", group, output=tmp_path) for group in range(3)]
    told: dict[int, tuple[float, ...]] = {}
    largest = 0
    for loop in loops:
        loop.__enter__()
    hands: list[Assignment | None] = [None] * 3
    over = False
    while not over:
        for place, loop in enumerate(loops):
            if (held := hands[place]) is not None:
                publish(store, tmp_path / "made", held.number, BEST, LAST)
                if held.number % 7 == 3:
                    loop.tell(held, Outcome(failure=Failure.LOST, message="gone"))
                else:
                    x = held.parameters["x"]
                    metrics = {"loss": x * x, "a": x * x, "b": -((x - 1) ** 2)}
                    outcome = conclude(metrics, study)
                    loop.tell(held, outcome)
                    told[held.number] = outcome.values or ()
            answer = loop.next()
            hands[place] = answer if isinstance(answer, Assignment) else None
            over = over or (isinstance(answer, Verdict) and answer.next is Next.SUCCEEDED)
            best = front(told) if objectives == 2 else {min(told, key=lambda n: told[n])} if told else set()
            now = stored(store)
            assert best <= {number for number, labels in now.items() if BEST in labels}
            # The best, the running and those that running and waiting ones continue.
            assert len(now) <= len(best) + 3 + 3
            largest = max(largest, files(store._root))
    for loop in loops:
        loop.__exit__()
    assert len(told) == 30
    best = front(told) if objectives == 2 else {min(told, key=lambda n: told[n])}
    assert stored(store) == {number: {BEST} for number in best}
    assert files(store._root) == len(best)
    shown = {found.number: found.checkpoint for found in snapshot_of(url, study).best}
    assert {number for number, place in shown.items() if place} == best
    assert all(Path(place, "model").read_text() == str(number) for number, place in shown.items() if place)


def front(values: dict[int, tuple[float, ...]]) -> set[int]:
    """Of a minimised and a maximised value."""
    return {
        one
        for one, (a, b) in values.items()
        if not any(c <= a and d >= b and (c, d) != (a, b) for c, d in values.values())
    }


def test_what_a_crash_left_goes_with_the_next_start(tmp_path: Path, url: str) -> None:
    study: StudySpec = spec(checkpoints={"keep": "all"}, budget={"maxTrials": 5})
    store = FolderStore(tmp_path / "checkpoints" / "study")
    with TrialLoop(study, url, "study", output=tmp_path) as loop:
        first = loop.next()
        assert isinstance(first, Assignment)
        publish(store, tmp_path / "made", first.number, BEST, LAST)
        loop.tell(first, conclude({"loss": 1.0}, study))
        assert stored(store) == {0: {BEST}}
        second = loop.next()
        assert isinstance(second, Assignment)
        publish(store, tmp_path / "made", second.number, LAST)
    publish(store, tmp_path / "made", first.number, LAST)  # as of a group that ended before it cleaned up
    store._write(0, BEST, "half", tmp_path / "made", [Path("model")])
    with TrialLoop(study, url, "study", output=tmp_path) as loop:
        assert stored(store) == {0: {BEST}, 1: {LAST}}
        assert files(store._root) == 2
        third = loop.next()
        assert isinstance(third, Assignment)
        assert third.continues == 1
        loop.tell(third, Outcome(failure=Failure.LOST, message="before it had a checkpoint"))
        fourth = loop.next()
        assert isinstance(fourth, Assignment)
        assert fourth.continues == 1, "the newest that there is"


def test_a_place_that_cannot_be_written_to_ends_the_study_before_a_trial(tmp_path: Path, url: str) -> None:
    from hpstudy.api.errors import InvalidStudyError

    (tmp_path / "checkpoints").write_text("a file")
    with (
        pytest.raises(InvalidStudyError, match="no trial could leave one") as refused,
        TrialLoop(spec(checkpoints={}), url, "study", output=tmp_path),
    ):
        pass
    assert refused.value.reason == "InvalidCheckpoints"
    assert optuna.get_all_study_names(url) == []


def test_a_study_that_is_over_is_cleaned_once_its_group_has_nothing_in_hand(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objectives = [{"metric": "loss", "direction": "minimize", "goal": 1}]
    study = spec(checkpoints={}, objectives=objectives, budget={"maxTrials": 9})
    with TrialLoop(study, url, "study", output=tmp_path) as loop:
        first, second, third = (loop.next() for _ in range(3))
        assert isinstance(first, Assignment)
        assert isinstance(second, Assignment)
        assert isinstance(third, Assignment)
        loop.tell(first, conclude({"loss": 0.5}, study))
        cleaned = []
        clean = loop._checkpoints.clean

        def count(*args: Any, **options: Any) -> None:
            cleaned.append(options)
            clean(*args, **options)

        monkeypatch.setattr(loop._checkpoints, "clean", count)
        for _ in range(3):  # as the driver does every second while the other two run
            answer = loop.next()
            assert isinstance(answer, Verdict)
            assert answer.next is Next.SUCCEEDED
        assert cleaned == []
        loop.tell(second, Outcome(failure=Failure.PREEMPTED, message="told to stop"))
        loop.tell(third, conclude({"loss": 2.0}, study))
        cleaned.clear()
        loop.next()
        assert cleaned == [{"thorough": True, "over": True}]


@pytest.mark.parametrize("scalarize", [False, True])
def test_the_end_of_a_trial_reads_only_what_has_changed(tmp_path: Path, url: str, scalarize: bool) -> None:
    fields: dict[str, Any] = {"objectives": TWO, "scalarize": {"weights": {"a": 1, "b": 1}}} if scalarize else {}
    sampler = {"name": "RandomSampler", "options": {"seed": 1}}
    study = spec(checkpoints={}, budget={"maxTrials": 40}, sampler=sampler, **fields)
    read: list[int] = []
    with TrialLoop(study, url, "study", output=tmp_path) as loop:
        for _ in range(30):
            assigned = loop.next()
            assert isinstance(assigned, Assignment)
            x = assigned.parameters["x"]
            loaded: list[Any] = []
            event.listen(TrialModel, "load", note := lambda trial, _, to=loaded: to.append(trial.number))
            loop.tell(assigned, conclude({"loss": x, "a": x, "b": x}, study))
            event.remove(TrialModel, "load", note)
            read.append(len(loaded))
    assert max(read[20:]) <= max(read[2:10]), "not the whole study"
