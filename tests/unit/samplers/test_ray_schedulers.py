"""Ray Tune's schedulers as pruners, on reports in real storages."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy
import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.build import build_pruner, check_algorithms
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.support.builders import spec
from tests.support.trials import take

ASHA = {"name": "ASHAScheduler", "options": {"max_t": 9, "reduction_factor": 3}}
HYPERBAND = {"name": "HyperBandScheduler", "options": {"max_t": 9, "reduction_factor": 3}}
MEDIAN = {"name": "MedianStoppingRule", "options": {"grace_period": 2}}
EVERY = (ASHA, HYPERBAND, MEDIAN, {**ASHA, "options": {**ASHA["options"], "brackets": 2}})  # type: ignore[dict-item]


def pruner(algorithm: dict[str, Any]) -> BasePruner:
    return build_pruner(spec(backend="ray", pruner=algorithm))


def a_study(algorithm: dict[str, Any], direction: str = "minimize") -> optuna.Study:
    return optuna.create_study(direction=direction, pruner=pruner(algorithm))


def train(study: optuna.Study, losses: Iterable[float], *, steps: Sequence[int] | None = None) -> int:
    """Run a trial to its end, or to where it is stopped; returns the number of its reports."""
    trial = study.ask()
    told = list(losses)
    for index, loss in enumerate(told):
        trial.report(loss, steps[index] if steps else index + 1)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return index + 1
    study.tell(trial, told[-1])
    return len(told)


def curve(loss: float, length: int = 9) -> list[float]:
    return [loss + 1 / step for step in range(1, length + 1)]


@pytest.mark.parametrize("algorithm", EVERY)
def test_a_bad_trial_is_stopped_and_a_good_one_is_not(algorithm: dict[str, Any]) -> None:
    study = a_study(algorithm)
    for loss in (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7):
        train(study, curve(loss))
    before = len(study.get_trials(states=[TrialState.PRUNED]))
    good, bad = train(study, curve(0.1)), [train(study, curve(9.0)) for _ in range(3)]
    assert good == 9
    assert min(bad) < 9
    assert len(study.get_trials(states=[TrialState.PRUNED])) > before
    assert study.best_value == curve(0.1)[-1]


@pytest.mark.parametrize("algorithm", EVERY)
def test_where_more_is_better_the_low_ones_are_stopped(algorithm: dict[str, Any]) -> None:
    study = a_study(algorithm, "maximize")
    for score in (0.9, 0.8, 0.8, 0.7, 0.7, 0.6, 0.6, 0.5):
        train(study, [score] * 9)
    assert train(study, [0.95] * 9) == 9
    assert min(train(study, [0.1] * 9) for _ in range(3)) < 9


def test_asha_compares_at_its_rungs_alone() -> None:
    study = a_study({"name": "ASHAScheduler", "options": {"max_t": 9, "grace_period": 3, "reduction_factor": 3}})
    for loss in (1.0, 1.1, 1.2, 1.3):
        train(study, curve(loss))
    assert train(study, curve(5.0)) == 3
    assert train(study, curve(5.0, length=2)) == 2  # it ended before the first rung
    assert study.trials[-1].state is TrialState.COMPLETE


def test_the_time_may_be_the_step_that_a_trial_reported() -> None:
    options = {"max_t": 900, "grace_period": 300, "reduction_factor": 3, "time_attr": "step"}
    study = a_study({"name": "ASHAScheduler", "options": options})
    steps = [100 * step for step in range(1, 10)]
    for loss in (1.0, 1.1, 1.2, 1.3):
        train(study, curve(loss), steps=steps)
    assert train(study, curve(5.0), steps=steps) == 3


def test_the_median_rule_gives_every_trial_its_grace_period() -> None:
    study = a_study({"name": "MedianStoppingRule", "options": {"grace_period": 4, "min_samples_required": 2}})
    assert train(study, curve(1.0)) == train(study, curve(1.1)) == 9
    assert train(study, curve(5.0)) == 4


def test_hyperband_halves_a_bracket_when_all_of_it_have_come_so_far() -> None:
    """Brackets of max_t 9: three trials that run to the end, then five of which two go on after three reports."""
    study = a_study(HYPERBAND)
    assert [train(study, curve(loss)) for loss in (5.0, 6.0, 7.0)] == [9, 9, 9]
    trials = [study.ask() for _ in range(5)]
    for step in (1, 2, 3):
        for trial in trials:
            trial.report(float(trial.number), step)
    assert [trial.should_prune() for trial in trials] == [False, False, True, True, True]


def test_a_trial_that_comes_to_max_t_is_no_pruned_one() -> None:
    for algorithm in (ASHA, HYPERBAND):
        study = a_study(algorithm)
        assert train(study, curve(1.0, length=12)) == 12
        assert study.trials[0].state is TrialState.COMPLETE
    stopping = {"name": "ASHAScheduler", "options": {"max_t": 9, "stop_last_trials": True}}
    assert train(a_study(stopping), curve(1.0, length=12)) == 9


@pytest.mark.parametrize("algorithm", EVERY)
def test_every_group_and_every_restart_decides_alike(algorithm: dict[str, Any]) -> None:
    """At each report of three trials side by side: the group's own pruner, and one that has just started."""
    study = a_study(algorithm)
    generator = numpy.random.default_rng(0)
    stopped = 0
    for _ in range(6):
        running = {trial.number: trial for trial in (study.ask() for _ in range(3))}
        levels = {number: generator.uniform(0, 3) for number in running}
        for step in range(1, 10):
            for number, trial in list(running.items()):
                trial.report(levels[number] + 1 / step, step)
                decision = trial.should_prune()
                assert trial.should_prune() == decision  # asked again, after the database was away
                assert pruner(algorithm).prune(study, study.trials[number]) == decision
                if decision:
                    study.tell(running.pop(number), state=TrialState.PRUNED)
                    stopped += 1
        for number, trial in running.items():
            study.tell(trial, levels[number])
    assert 1 < stopped < 17


@pytest.mark.parametrize("algorithm", EVERY)
def test_reports_of_a_lost_trial_count_for_nothing(algorithm: dict[str, Any]) -> None:
    study, without = a_study(algorithm), a_study(algorithm)
    lost = study.ask()
    for step in range(1, 10):
        lost.report(-100.0, step)
        lost.should_prune()
    for loss in (1.0, 1.1, 1.2):
        train(study, curve(loss))
    study._storage.set_trial_user_attr(lost._trial_id, attributes.AGAIN, True)
    study.tell(lost, state=TrialState.FAIL)
    for loss in (1.0, 1.1, 1.2):
        train(without, curve(loss))
    fresh = pruner(algorithm)
    trial, same = study.ask(), without.ask()
    trial.report(1.05, 1)
    same.report(1.05, 1)
    assert fresh.prune(study, study.trials[-1]) == same.should_prune()
    assert study.pruner.prune(study, study.trials[-1]) == same.should_prune()


@pytest.mark.parametrize("algorithm", EVERY)
def test_a_trial_that_goes_on_is_judged_as_if_it_had_not_been_cut_off(algorithm: dict[str, Any]) -> None:
    """Each of eight trials in turn, after two steps; brackets of ASHA are drawn, those of HyperBand go by the order of
    trials."""
    told: set[bool] = set()
    for cut_off in range(8):
        decisions = []
        for runs in (1, 2):
            study = a_study(algorithm)
            trials = [study.ask() for _ in range(8)]
            for step in (1, 2, 3):
                if step == 3 and runs == 2:
                    trials[cut_off] = run_again(study, trials[cut_off])
                for number, trial in enumerate(trials):
                    trial.report(1 / step - number, step)
            decisions.append([pruner(algorithm).prune(study, study.trials[trial.number]) for trial in trials])
        assert decisions[0] == decisions[1]
        told.update(decisions[0])
    assert told == {False, True}


def run_again(study: optuna.Study, trial: optuna.Trial) -> optuna.Trial:
    """As the trial loop does, with what the trial had reported."""
    past = study.trials[trial.number].intermediate_values
    trial.set_user_attr(attributes.AGAIN, True)
    study.enqueue_trial({"x": 0.0}, user_attrs={attributes.RUNS: [trial.number]})
    study.tell(trial, state=TrialState.FAIL)
    again = study.ask()
    for step, value in past.items():
        again.report(value, step)
    return again


@pytest.mark.parametrize("algorithm", EVERY)
def test_a_past_that_others_have_overtaken_prunes_nothing(algorithm: dict[str, Any], url: str) -> None:
    study = spec(backend="ray", pruner=algorithm)
    with TrialLoop(study, url, "study") as loop:
        trial = take(loop)
        assert not loop.report(trial, 1, {"loss": 9.0})
        loop.tell(trial, Outcome(failure=Failure.PREEMPTED, message="gone"))
        trial = take(loop)
        for loss in (1.0, 1.1, 1.2):
            other = take(loop)
            loop.report(other, 1, {"loss": loss})
            loop.tell(other, Outcome(values=(loss,)))
        assert not loop.report(trial, 1, {"loss": 9.0}, past=True)
        assert not loop.report(trial, 2, {"loss": 0.5})


@pytest.mark.parametrize("algorithm", EVERY)
def test_numpys_own_generator_is_left_as_it_was(algorithm: dict[str, Any]) -> None:
    numpy.random.seed(5)
    expected = numpy.random.random()
    numpy.random.seed(5)
    train(a_study(algorithm), curve(1.0))
    assert numpy.random.random() == expected


def test_optunas_pruners_are_there_too_and_none_is_the_default() -> None:
    assert isinstance(pruner({"name": "HyperbandPruner"}), optuna.pruners.HyperbandPruner)
    assert isinstance(build_pruner(spec(backend="ray")), optuna.pruners.NopPruner)


@pytest.mark.parametrize(
    ("algorithm", "reason", "complaint"),
    [
        ({"name": "ASHASchedule"}, reasons.UNKNOWN_PRUNER, "did you mean ASHAScheduler?"),
        ({"name": "MedianPrunr"}, reasons.UNKNOWN_PRUNER, "did you mean MedianPruner?"),
        ({"name": "PopulationBasedTraining"}, reasons.INVALID_OPTION, "add checkpoints: {keep: best}"),
        ({"name": "pb2"}, reasons.INVALID_OPTION, "pruner PB2: its trials continue from checkpoints of others"),
        ({"name": "pbt_replay"}, reasons.UNKNOWN_PRUNER, "take PopulationBasedTraining"),
        ({"name": "HyperBandForBOHB"}, reasons.UNKNOWN_PRUNER, "take HyperBandScheduler"),
        ({"name": "asha", "options": {}}, reasons.UNKNOWN_PRUNER, "unknown pruner 'asha'"),
        ({"name": "ASHAScheduler", "options": {"max": 3}}, reasons.INVALID_OPTION, "did you mean max_t?"),
        ({"name": "ASHAScheduler", "options": {"max_t": "x"}}, reasons.INVALID_OPTION, "max_t: input should be"),
        ({"name": "ASHAScheduler", "options": {"max_t": 1, "grace_period": 2}}, reasons.INVALID_OPTION, "grace_period"),
        ({"name": "HyperBandScheduler", "options": {"reduction_factor": 1}}, reasons.INVALID_OPTION, "pruner Hyper"),
        ({"name": "HyperBandScheduler", "options": {"reduction_factor": 0.5}}, reasons.INVALID_OPTION, "pruner Hyper"),
        ({"name": "hyperband", "options": {"mode": "min"}}, reasons.INVALID_OPTION, "objectives say it"),
        ({"name": "ASHAScheduler", "options": {"time_attr": "time_total_s"}}, reasons.INVALID_OPTION, "or step"),
        ({"name": "medianstopping", "options": {"hard_stop": False}}, reasons.INVALID_OPTION, "no trial can be paused"),
    ],
)
def test_what_cannot_be_is_refused(algorithm: dict[str, Any], reason: str, complaint: str) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        check_algorithms(spec(backend="ray", pruner=algorithm))
    assert refusal.value.reason == reason
    assert complaint in refusal.value.message
