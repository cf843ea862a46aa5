"""The end of a study that has reached enough: Optuna's terminator, on real storages."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
import pytest

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers.build import check_algorithms
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Next, Verdict, judge
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import conclude
from tests.storage.stored import NAME, snapshot_of
from tests.support.builders import spec

STAGNATION = {"improvement": {"name": "BestValueStagnationEvaluator", "options": {"max_stagnation_trials": 2}}}


def stagnating(max_trials: int = 20, min_trials: int = 3, **fields: Any) -> StudySpec:
    """Over once three trials in a row were no better."""
    stop_when = {**STAGNATION, "minTrials": min_trials}
    sampler = {"name": "RandomSampler"}
    return spec(**({"stopWhen": stop_when, "budget": {"maxTrials": max_trials}, "sampler": sampler} | fields))


def play(loop: TrialLoop, study: StudySpec, metrics: Sequence[Mapping[str, Any]]) -> Verdict | None:
    """Run trials with these metrics; the verdict, should there be one earlier."""
    for found in metrics:
        assigned = loop.next()
        if isinstance(assigned, Verdict):
            return assigned
        loop.tell(assigned, conclude(found, study))
    return None


def losses(*values: float) -> list[dict[str, float]]:
    return [{"loss": value} for value in values]


def verdict(loop: TrialLoop) -> Verdict:
    found = loop.next()
    assert isinstance(found, Verdict)
    return found


def test_a_study_that_no_longer_improves_succeeds_everywhere(storage_url: str) -> None:
    study = stagnating()
    with TrialLoop(study, storage_url, NAME, 0) as first, TrialLoop(study, storage_url, NAME, 1) as second:
        assert play(first, study, losses(3, 2, 5)) is None
        running = second.next()
        assert isinstance(running, Assignment)
        assert play(first, study, losses(5)) is None
        assert play(first, study, losses(1, 5, 5, 5)) is None
        ended = verdict(first)
        assert (ended.next, ended.reason) == (Next.SUCCEEDED, reasons.STOP_CONDITION_MET)
        assert "enough after 8 complete trials: stopWhen" in ended.message
        second.tell(running, conclude({"loss": 0.5}, study))  # what runs is finished
        assert verdict(second).reason == reasons.STOP_CONDITION_MET
    snapshot = snapshot_of(storage_url, study)
    assert judge(snapshot, study.budget, datetime.now(UTC)) == ended, "the operator comes to the same answer"
    assert snapshot.counts.complete == 9


def test_it_is_not_looked_at_before_enough_trials(url: str) -> None:
    study = stagnating(min_trials=6)
    with TrialLoop(study, url, NAME) as loop:
        assert play(loop, study, losses(1, 5, 5, 5, 5, 5)) is None
        assert verdict(loop).reason == reasons.STOP_CONDITION_MET


def test_a_restart_is_over_too(url: str) -> None:
    study = stagnating()
    with TrialLoop(study, url, NAME) as loop:
        play(loop, study, losses(1, 5, 5, 5))
        verdict(loop)
    with TrialLoop(study, url, NAME) as loop:
        assert verdict(loop).reason == reasons.STOP_CONDITION_MET


def test_who_raises_the_budget_gets_a_trial_and_then_the_question_again(url: str) -> None:
    study = stagnating(max_trials=10)
    with TrialLoop(study, url, NAME) as loop:
        assert play(loop, study, losses(1, 5, 5)) is None
        assert play(loop, study, losses(5)) is None
        verdict(loop)
    with TrialLoop(stagnating(max_trials=9), url, NAME) as loop:
        verdict(loop)
    more = stagnating(max_trials=30)
    with TrialLoop(more, url, NAME) as loop:
        assert play(loop, more, losses(0.5)) is None, "and this one is better"
        assert play(loop, more, losses(5, 5)) is None
        assert play(loop, more, losses(5)) is None
        assert verdict(loop).reason == reasons.STOP_CONDITION_MET


@pytest.mark.parametrize("change", [{"stopWhen": None}, {"stopWhen": {**STAGNATION, "minTrials": 8}}])
def test_who_changes_the_rule_goes_on(url: str, change: dict[str, Any]) -> None:
    study = stagnating()
    with TrialLoop(study, url, NAME) as loop:
        play(loop, study, losses(1, 5, 5, 5))
        verdict(loop)
    other = stagnating(**change)
    with TrialLoop(other, url, NAME) as loop:
        assert isinstance(loop.next(), Assignment)


def test_only_trials_within_the_constraints_are_judged_by(url: str) -> None:
    study = stagnating(constraints=[{"metric": "latency", "max": 20}])
    found = [{"loss": 1.0, "latency": 30}] + [{"loss": loss, "latency": 10} for loss in (9.0, 8.0, 7.0, 6.0)]
    with TrialLoop(study, url, NAME) as loop:
        assert play(loop, study, found) is None
        assert isinstance(loop.next(), Assignment), "the value of the first is not one to stagnate at"


def test_several_objectives_are_judged_by_their_weighted_sum(url: str) -> None:
    objectives = [{"metric": "a", "direction": "minimize"}, {"metric": "b", "direction": "maximize"}]
    study = stagnating(objectives=objectives, scalarize={"weights": {"a": 1, "b": 1}})
    with TrialLoop(study, url, NAME) as loop:
        assert play(loop, study, [{"a": 1, "b": b} for b in (1, 2, 3, 4, 3, 3, 3)]) is None
        assert verdict(loop).reason == reasons.STOP_CONDITION_MET


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("stop_when", "spread", "over"),
    [
        ({"scores": "folds", "minTrials": 4}, 100.0, True),  # what the folds differ by hides any improvement
        ({"scores": "folds", "minTrials": 4}, 1e-9, False),
        ({"error": {"name": "StaticErrorEvaluator", "options": {"constant": 100}}, "minTrials": 4}, 0.0, True),
        (
            {
                "improvement": {"name": "RegretBoundEvaluator", "options": {"seed": 0}},
                "error": {
                    "name": "MedianErrorEvaluator",
                    "options": {"warm_up_trials": 0, "n_initial_trials": 2, "threshold_ratio": 1e6},
                },
                "minTrials": 4,
            },
            0.0,
            True,
        ),
    ],
)
def test_optunas_evaluators_decide(url: str, stop_when: dict[str, Any], spread: float, over: bool) -> None:
    study = spec(stopWhen=stop_when, sampler={"name": "RandomSampler", "options": {"seed": 0}})
    with TrialLoop(study, url, NAME) as loop:
        for _ in range(4):
            assigned = loop.next()
            assert isinstance(assigned, Assignment)
            loss = assigned.parameters["x"] ** 2
            loop.tell(assigned, conclude({"loss": loss, "folds": [loss - spread, loss + spread]}, study))
        assert isinstance(loop.next(), Verdict) is over


@pytest.mark.parametrize(
    ("stop_when", "complaint"),
    [
        ({"improvement": {"name": "Regret"}}, "unknown stopWhen.improvement 'Regret'"),
        (
            {**STAGNATION, "error": {"name": "StaticErrorEvaluator"}},
            "stopWhen.error.options: StaticErrorEvaluator needs constant",
        ),
        ({"improvement": {"name": "BestValueStagnationEvaluator", "options": {"patience": 3}}}, "has no such option"),
        (
            {"improvement": {"name": "BestValueStagnationEvaluator", "options": {"max_stagnation_trials": -1}}},
            "must not be negative",
        ),
        ({}, "stopWhen.scores: CrossValidationErrorEvaluator needs the metric that holds the scores"),
        ({**STAGNATION, "scores": "folds"}, "stopWhen.scores: only CrossValidationErrorEvaluator uses scores"),
    ],
)
def test_a_rule_that_nobody_could_follow_is_refused(stop_when: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        check_algorithms(spec(stopWhen=stop_when))
    assert refusal.value.reason == reasons.INVALID_OPTION
    assert complaint in refusal.value.message


def alternating(trial: optuna.Trial) -> None:
    trial.suggest_float("even" if trial.number % 2 == 0 else "odd", 0, 1)


def test_an_evaluator_that_cannot_judge_the_space_is_named(url: str) -> None:
    """A regret bound needs a parameter that all trials have."""
    stop_when = {"error": {"name": "StaticErrorEvaluator", "options": {"constant": 0}}, "minTrials": 2}
    study = spec(stopWhen=stop_when, searchSpace={"python": f"{__name__}:alternating"})
    with TrialLoop(study, url, NAME) as loop:
        assert play(loop, study, losses(1, 2)) is None
        with pytest.raises(InvalidStudyError, match="stopWhen: The intersection search space is empty"):
            loop.next()
