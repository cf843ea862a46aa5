"""Backend optuna: samplers that end when every point was tried."""

import itertools
import threading
import time
from typing import Any

import optuna
import pytest

from hpstudy.api import reasons
from hpstudy.storage.attributes import Failure
from hpstudy.storage.opening import open_storage
from hpstudy.storage.reading import read_snapshot
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Next
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.support.builders import spec
from tests.unit.samplers.optuna_studies import FINITE, NAME, a_study, run

PROPOSING = threading.Event()


@pytest.mark.parametrize("name", ["GridSampler", "BruteForceSampler"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_an_exhaustive_search_tries_each_point_once_over_groups_failures_and_lost_workers(name: str, url: str) -> None:
    study = a_study(
        FINITE,
        sampler={"name": name, "options": {"seed": 5}},
        budget={"maxTrials": 100, "maxFailedTrials": 100},
        retries={"oom": 1},
    )
    points = set(itertools.product([0.0, 0.1, 0.2], [1, 2], [True, False]))
    with TrialLoop(study, url, NAME, 0) as first, TrialLoop(study, url, NAME, 1) as second:
        running: list[tuple[TrialLoop, Assignment]] = []
        seen = []
        for step, loop in enumerate(itertools.cycle((first, second))):
            assigned = loop.next()
            if isinstance(assigned, Assignment):
                running.append((loop, assigned))
            elif assigned.next is Next.SUCCEEDED:
                break
            if len(running) == 3 or not isinstance(assigned, Assignment):
                holder, trial = running.pop(0)
                if step in (4, 9):
                    again = Failure.LOST if step == 4 else Failure.OOM
                    holder.tell(trial, Outcome(failure=again, message="gone"))
                    continue
                seen.append(tuple(trial.parameters[key] for key in ("x", "n", "flag")))
                outcome = Outcome(failure=Failure.ERROR, message="boom") if step == 6 else Outcome(values=(1.0,))
                holder.tell(trial, outcome)
        verdict = second.verdict()
    assert sorted(seen) == sorted(points), "each once, and those that lost their worker again"
    assert (verdict.reason, verdict.message) == (reasons.SPACE_EXHAUSTED, "every point of the space was tried")
    storage = open_storage(url)
    snapshot = read_snapshot(storage, NAME, study)
    storage.engine.dispose()
    assert snapshot.stop is not None
    assert snapshot.counts.running == snapshot.counts.waiting == 0


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_brute_force_survives_trials_that_ended_before_they_had_all_parameters(url: str) -> None:
    study = a_study(FINITE, sampler={"name": "BruteForceSampler"}, budget={"maxTrials": 100})
    with TrialLoop(study, url, NAME) as loop:
        loop.study.ask()  # nothing suggested
        half = loop.study.ask()
        half.suggest_float("x", 0, 0.2, step=0.1)
        loop._locks.close()
        with TrialLoop(study, url, NAME) as successor:
            assert len(run(successor, 100)) == 12


def test_an_exhaustive_search_below_fixed_parameters_ends_too(url: str) -> None:
    options = {"fixed_params": {"flag": True}, "base_sampler": {"name": "GridSampler"}}
    study = a_study(FINITE, sampler={"name": "PartialFixedSampler", "options": options}, budget={"maxTrials": 100})
    with TrialLoop(study, url, NAME) as loop:
        taken = run(loop, 100)
    assert len(taken) == len({tuple(values.values()) for values in taken}) == 6
    assert all(values["flag"] for values in taken)


def test_conditions_are_gone_through_by_brute_force(url: str) -> None:
    study = a_study(
        {"flag": FINITE["flag"], "n": {**FINITE["n"], "when": {"flag": [True]}}},
        sampler={"name": "BruteForceSampler"},
    )
    with TrialLoop(study, url, NAME) as loop:
        taken = run(loop, 100)
    assert sorted(map(str, taken)) == sorted(
        map(str, [{"flag": False}] + [{"flag": True, "n": number} for number in (1, 2)])
    )


def slow_space(trial: optuna.Trial) -> dict[str, Any]:
    PROPOSING.wait(20)  # both groups are about to read what was tried
    return {"n": trial.suggest_int("n", 1, 3)}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_groups_that_propose_at_the_same_time_run_no_point_twice(storage_url: str) -> None:
    """The space is a function, which is not called under the budget's lock."""
    study = spec(searchSpace={"python": f"{__name__}:slow_space"}, sampler={"name": "BruteForceSampler"})
    taken: list[int] = []

    def run_group(group: int) -> None:
        with TrialLoop(study, storage_url, NAME, group) as loop:
            while True:
                assigned = loop.next()
                if isinstance(assigned, Assignment):
                    taken.append(assigned.parameters["n"])
                    loop.tell(assigned, Outcome(values=(1.0,)))
                elif assigned.next is not Next.WAIT:
                    return
                time.sleep(0.01)

    PROPOSING.clear()
    groups = [threading.Thread(target=run_group, args=(group,)) for group in range(2)]
    for group in groups:
        group.start()
    time.sleep(3)
    PROPOSING.set()
    for group in groups:
        group.join(60)
    assert sorted(taken) == [1, 2, 3]
