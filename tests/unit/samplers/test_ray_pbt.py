"""PopulationBasedTraining and PB2 over real checkpoints, several groups, and a study that is read anew each time."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpstudy import TrialPruned
from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.checkpoints.folders import FolderStore
from hpstudy.samplers.build import build_pruner, check_algorithms
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.training.trial import Trial
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome, conclude, conclude_pruned
from tests.storage.stored import opened, trials_of
from tests.support.builders import spec

STEPS = 12
GROUPS = 6
INTERVAL = 1
PBT = {
    "name": "PopulationBasedTraining",
    "options": {
        "perturbation_interval": INTERVAL,
        "perturbation_factors": [2.0, 0.5],
        "resample_probability": 0.1,
        "quantile_fraction": 0.34,
    },
}
PB2 = {"name": "PB2", "options": {"perturbation_interval": 3, "quantile_fraction": 0.34}}


def gain(x: float, step: int) -> float:
    """Of one step with this learning rate: the best one falls from 1 to 0.01 as training goes on, and one that is far
    from it gains nothing."""
    return max(0.0, 1 - abs(math.log10(x) + 2 * step / STEPS) / 0.6)


def make(pruner: dict[str, Any], **fields: Any) -> StudySpec:
    low_to_high = {"x": {"type": "float", "low": 1e-3, "high": 10, "log": True}}
    return spec(
        **{
            "backend": "ray",
            "objectives": [{"metric": "score", "direction": "maximize"}],
            "searchSpace": {"parameters": low_to_high},
            "sampler": {"name": "BasicVariantGenerator", "options": {"random_state": 3}},
            "pruner": pruner,
            "checkpoints": {},
            "parallelism": GROUPS,
            "budget": {"maxTrials": 60},
        }
        | fields
    )


@dataclass
class Hand:
    """What one group trains: rank zero's part of a trial, one report at a time."""

    loop: TrialLoop
    output: Path
    assignment: Assignment | None = None
    over: bool = False
    steps: list[tuple[int, int]] = field(default_factory=list)
    """Trial and step."""

    def report(self, step: int, metrics: Any, *, past: bool = False) -> bool:
        assert self.assignment is not None
        return self.loop.report(self.assignment, step, metrics, past=past)

    def progress(self, share: float) -> None:
        """Nobody watches."""

    def stopping(self) -> bool:
        return False

    def take(self, study: StudySpec) -> None:
        answer = self.loop.next()
        if isinstance(answer, Verdict):
            self.over = answer.next is Next.SUCCEEDED
            return
        self.assignment = answer
        folder = self.output / "trials" / str(answer.number)
        store = FolderStore(self.output / "checkpoints" / "study")
        self.trial = Trial(
            answer.number,
            answer.parameters,
            study.objectives,
            folder,
            self,
            continues=answer.continues,
            open_store=lambda: store,
        )
        self.trial.begin()
        self.training = self._train()

    def _train(self) -> Iterator[None]:
        state = self.trial.checkpoint_dir / "state"
        step, score = map(float, state.read_text().split()) if state.exists() else (0.0, 0.0)
        while step < STEPS:
            step += 1
            score += gain(self.trial.params["x"], int(step))
            self.steps.append((self.trial.number, int(step)))
            state.write_text(f"{step} {score}")
            self.trial.report({"score": score}, int(step))
            if self.trial.should_prune():
                raise TrialPruned
            yield
        self.metrics = {"score": score}

    def advance(self, study: StudySpec) -> None:
        assert self.assignment is not None
        try:
            next(self.training)
            return
        except StopIteration:
            self.trial.end(pruned=False)
            outcome = conclude(self.metrics, study)
        except TrialPruned:
            outcome = conclude_pruned({}, study)
        done, self.assignment = self.assignment, None
        self.loop.tell(done, outcome)


def run(study: StudySpec, url: str, output: Path, groups: int = GROUPS, *, members: int = GROUPS) -> list[Hand]:
    """Let the groups train in turns until so many trials are complete."""
    hands = [Hand(TrialLoop(study, url, "study", group, output=output).__enter__(), output) for group in range(groups)]
    complete = 0
    while complete < members and not all(hand.over for hand in hands):
        for hand in hands:
            if hand.assignment is None:
                hand.take(study)
            else:
                hand.advance(study)
        complete = sum(trial.state is TrialState.COMPLETE for trial in hands[0].loop.study.get_trials(deepcopy=False))
    for hand in hands:
        hand.loop.__exit__()
    return hands


def best_constant() -> float:
    """What no search of any budget gets beyond that trains each trial with one value throughout."""
    return max(sum(gain(10 ** (place / 50), step) for step in range(1, STEPS + 1)) for place in range(-150, 51))


def chains(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if attributes.POPULATION in trial.user_attrs]


@pytest.mark.parametrize("pruner", [PBT, PB2], ids=["PBT", "PB2"])
def test_a_population_goes_on_from_its_best_and_beats_constant_values(
    url: str, tmp_path: Path, pruner: dict[str, Any]
) -> None:
    study = make(pruner)
    hands = run(study, url, tmp_path)
    trials = trials_of(url)
    followers = chains(trials)
    assert {trials[t.user_attrs[attributes.POPULATION]["after"]].state for t in followers} == {TrialState.PRUNED}
    taken_over = [t for t in followers if t.params != trials[t.user_attrs[attributes.POPULATION]["after"]].params]
    assert len(taken_over) >= 3
    for trial in taken_over:
        if not trial.intermediate_values:
            continue
        donor = trials[trial.user_attrs[attributes.CONTINUES]]
        own = [step for hand in hands for number, step in hand.steps if number == trial.number]
        past = {step: value for step, value in trial.intermediate_values.items() if step < min(own, default=STEPS + 1)}
        assert past, "it started from the donor's checkpoint"
        assert all(donor.intermediate_values[step] == value for step, value in past.items())
        assert own == list(range(max(past) + 1, max(past) + 1 + len(own))), "steps carry on"
    reached = max(trial.value or 0.0 for trial in trials if trial.state is TrialState.COMPLETE)
    # PB2 has three turns only, for its model takes its time: it beats what its first members would have come to.
    first = [trial.params["x"] for trial in trials if attributes.POPULATION not in trial.user_attrs]
    alone = max(sum(gain(x, step) for step in range(1, STEPS + 1)) for x in first)
    assert reached > (best_constant() if pruner is PBT else alone)


def test_members_that_wait_have_their_turns(url: str, tmp_path: Path) -> None:
    """One group, four members: as Ray, which pauses trials for others where it has no room for all."""
    initial = [{"x": x} for x in (10.0, 1.0, 1e-2, 1e-3)]
    every_third = {**PBT, "options": {**PBT["options"], "perturbation_interval": 3}}
    study = make(every_third, parallelism=1, initialTrials=initial)
    (hand,) = run(study, url, tmp_path, groups=1, members=4)
    trials = trials_of(url)
    assert [number for number, _ in hand.steps[:12]] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    members = [trial.user_attrs.get(attributes.POPULATION, {}).get("member", trial.number) for trial in trials]
    assert set(members) == {0, 1, 2, 3}
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert all(list(trial.intermediate_values) == list(range(1, STEPS + 1)) for trial in complete)
    for trial in complete:
        before = trials[trial.user_attrs[attributes.CONTINUES]].intermediate_values
        own = [step for number, step in hand.steps if number == trial.number]
        assert own == list(range(max(before) + 1, STEPS + 1)), "no step is made twice"


def test_a_lost_worker_changes_nothing_of_what_was_decided(url: str, tmp_path: Path) -> None:
    """Between the decision that a trial ends and its end."""
    study = make(PBT, parallelism=1, initialTrials=[{"x": 1.0}, {"x": 0.1}])
    loop = TrialLoop(study, url, "study", output=tmp_path).__enter__()
    hand = Hand(loop, tmp_path)
    hand.take(study)
    first = hand.assignment
    assert first is not None
    with pytest.raises(TrialPruned):
        list(hand.training)
    loop.tell(first, Outcome(failure=Failure.LOST, message="the pod is gone"))
    loop.__exit__()
    trials = trials_of(url)
    assert [trial.state.name for trial in trials] == ["PRUNED", "WAITING", "WAITING"]
    population = trials[2].user_attrs[attributes.POPULATION]
    assert (population["member"], population["time"], population["after"]) == (0, INTERVAL, 0)
    assert trials[2].user_attrs[attributes.CONTINUES] == 0


@pytest.mark.parametrize("pruner", [PBT, PB2], ids=["PBT", "PB2"])
def test_every_group_and_every_restart_decides_alike(url: str, tmp_path: Path, pruner: dict[str, Any]) -> None:
    study = make(pruner)
    for name in ("one", "other"):
        shutil.copy(tmp_path / "study.db", tmp_path / f"{name}.db")
    decided = []
    for name in ("one", "other"):
        with opened(f"sqlite:///{tmp_path / name}.db") as storage:
            made = optuna.create_study(storage=storage, study_name="study", direction="maximize")
            asked = []
            for x in (1e-3, 1e-2, 0.3, 1.0):
                made.enqueue_trial({"x": x})
                trial = made.ask()
                trial.suggest_float("x", 1e-4, 10, log=True)
                asked.append(trial)
                for step in range(1, 7):
                    trial.report(x * step, step)
            decider = build_pruner(study)
            decider.has_checkpoint = lambda number: True  # type: ignore[attr-defined]
            found = [decider.prune(made, storage.get_trial(trial._trial_id)) for trial in asked]
            nexts = [storage.get_trial(trial._trial_id).user_attrs.get(attributes.NEXT) for trial in asked]
            decided.append((found, nexts))
    assert decided[0] == decided[1]
    found, nexts = decided[0]
    assert found[0] is True
    assert found[3] is False
    assert nexts[0]["continues"] in (2, 3)


@pytest.mark.parametrize(
    ("pruner", "fields", "complaint"),
    [
        (PBT, {"checkpoints": None}, "add checkpoints: {keep: best}"),
        (PBT, {"searchSpace": {"python": "module:function"}}, "needs a space"),
        ({"name": "pbt"}, {}, "perturbation_interval: required"),
        (PBT, {"more": {"time_attr": "time_total_s"}}, "must be training_iteration or step"),
        (PBT, {"more": {"synch": True}}, "a trial never waits"),
        (PBT, {"more": {"quantile_fraction": 0.9}}, "quantile_fraction"),
        (PBT, {"more": {"hyperparam_mutations": {"y": [1, 2]}}}, "names parameters of the searchSpace"),
        (PBT, {"more": {"hyperparam_mutations": {"x": {"unifrom": [0, 1]}}}}, "unifrom"),
        (PB2, {"more": {"hyperparam_bounds": {"x": [1]}}}, "size 2"),
        (
            PB2,
            {"searchSpace": {"parameters": {"x": {"type": "categorical", "choices": [1, 2]}}}},
            "x is categorical",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(pruner: dict[str, Any], fields: dict[str, Any], complaint: str) -> None:
    more = fields.pop("more", {})
    given = {"name": pruner["name"], "options": pruner.get("options", {}) | more}
    with pytest.raises(InvalidStudyError) as refused:
        check_algorithms(make(given, **fields))
    assert complaint in refused.value.message
    assert refused.value.reason in (reasons.INVALID_OPTION, reasons.INVALID_SPACE)
