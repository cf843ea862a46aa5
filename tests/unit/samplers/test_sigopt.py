"""Backend sigopt without a server: SigOpt's own optimiser."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import optuna
import pytest
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers import sigopt_engine
from hpstudy.samplers.build import build_pruner, check_algorithms
from hpstudy.samplers.sigopt import TOKEN, URL
from hpstudy.storage import attributes
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.unit.samplers.sigopt_studies import CONDITIONAL, FINITE, X, Y, a_spec, ask, open_study, propose, told


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL, raising=False)
    monkeypatch.delenv(TOKEN, raising=False)


def on_a_line(
    of: StudySpec, result: Any, places: Sequence[float] = tuple(i / 10 for i in range(6))
) -> list[optuna.trial.FrozenTrial]:
    return [told(of, {"x": place}, [result(place)]) for place in places]


@pytest.mark.parametrize(
    ("fields", "reason", "complaint"),
    [
        ({"kind": "offlin"}, reasons.UNKNOWN_SAMPLER, "unknown sampler 'offlin': did you mean offline?"),
        (
            {"options": {"sed": 1}},
            reasons.INVALID_OPTION,
            "sampler.options.sed: SigOpt has no such option: did you mean seed?",
        ),
        ({"options": {"seed": "1"}}, reasons.INVALID_OPTION, "sampler.options.seed: input should be a valid integer"),
        (
            {"options": {"compute_mode": "spe"}},
            reasons.INVALID_OPTION,
            "compute_mode: input should be 'default' or 'kde_only'",
        ),
        ({"options": {"project": "p"}}, reasons.INVALID_OPTION, "sampler.options.project: needs a server"),
        (
            {"options": {"linear_constraints": [{"type": "less", "threshold": 1, "terms": []}]}},
            reasons.INVALID_OPTION,
            "linear_constraints[0].type",
        ),
        ({"objectives": ("minimize",) * 3}, reasons.INVALID_OPTION, "SigOpt optimises one or two metrics, there are 3"),
    ],
)
def test_a_wrong_name_or_option_is_refused(fields: Any, reason: str, complaint: str) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        check_algorithms(a_spec([X, Y], **fields))
    assert refusal.value.reason == reason
    assert complaint in refusal.value.message


@pytest.mark.parametrize(
    ("space", "terms", "complaint"),
    [
        ([X], {"x": 1, "z": 1}, "terms[1]: no parameter to vary is named 'z'"),
        ([X, {**Y, "bounds": {"min": 1, "max": 2}, "transformation": "log"}], {"x": 1, "y": 1}, "y is logarithmic"),
        ([X, {"name": "y", "type": "double", "grid": [1, 2]}], {"x": 1, "y": 1}, "y has choices, a grid or steps"),
        ([X, *CONDITIONAL], {"x": 1, "momentum": 1}, "momentum exists in some trials only"),
        (
            [X, {"name": "n", "type": "int", "bounds": {"min": 1, "max": 2}}],
            {"x": 1, "n": 1},
            "cannot mix integers and doubles",
        ),
        ([X, Y], {"x": 1, "y": 1}, "Infeasible constraints"),
        ([X, {**Y, "prior": {"name": "beta", "shape_a": 1, "shape_b": 2}}], {"x": 1, "y": 1}, "or the prior of y"),
    ],
)
def test_a_constraint_that_sigopt_cannot_keep_is_refused(space: Any, terms: dict[str, float], complaint: str) -> None:
    constraint = {
        "type": "less_than",
        "threshold": -1,
        "terms": [{"name": name, "weight": weight} for name, weight in terms.items()],
    }
    with pytest.raises(InvalidStudyError, match=r"sampler\.options\.linear_constraints") as refusal:
        check_algorithms(a_spec(space, options={"linear_constraints": [constraint]}))
    assert complaint in refusal.value.message


def test_linear_constraints_hold_for_the_first_trials_and_for_those_that_are_optimised() -> None:
    constraint = {
        "type": "less_than",
        "threshold": 0.5,
        "terms": [{"name": "x", "weight": 1}, {"name": "y", "weight": 1}],
    }
    of = a_spec([X, Y], objectives=["maximize"], options={"seed": 1, "linear_constraints": [constraint]})
    study = open_study(of)
    drawn = [ask(study, of) for _ in range(20)]
    assert all(values["x"] + values["y"] <= 0.5 + 1e-9 for values in drawn)
    optimised = propose(of, [told(of, values, [values["x"] + values["y"]]) for values in drawn])
    assert 0.45 < optimised["x"] + optimised["y"] <= 0.5 + 1e-9


def test_linear_constraints_hold_for_whole_numbers() -> None:
    n = {"name": "n", "type": "int", "bounds": {"min": 0, "max": 4}}
    constraint = {
        "type": "greater_than",
        "threshold": 7,
        "terms": [{"name": "n", "weight": 1}, {"name": "m", "weight": 1}],
    }
    of = a_spec([n, {**n, "name": "m"}], options={"seed": 1, "linear_constraints": [constraint]})
    study = open_study(of)
    asked = {tuple(ask(study, of).values()) for _ in range(3)}
    assert asked == {(4, 4), (4, 3), (3, 4)}, "all there are"
    told_of = [told(of, {"n": n, "m": m}, [n]) for n, m in asked]
    assert tuple(propose(of, told_of * 2).values()) in asked


@pytest.mark.parametrize("options", [{"seed": 3}, {"seed": 3, "compute_mode": "kde_only"}])
def test_a_new_sampler_knows_what_others_ran(options: dict[str, Any]) -> None:
    of = a_spec([X], options=options, budget={"maxTrials": 100_000})
    history = on_a_line(of, lambda x: (x - 0.73) ** 2, [i / 12 for i in range(13)])
    before = numpy.random.get_state()[1].copy()
    first = propose(of, history)
    assert abs(first["x"] - 0.73) < 0.1
    assert propose(of, history) == first, "a restart changes nothing"
    assert (numpy.random.get_state()[1] == before).all(), "the generator of the whole process is left alone"


def test_a_seed_gives_the_same_trials_again_and_no_two_alike() -> None:
    def first_trials(seed: int | None) -> list[float]:
        of = a_spec([X], options={} if seed is None else {"seed": seed})
        study = open_study(of)
        return [ask(study, of)["x"] for _ in range(3)]

    assert first_trials(1) == first_trials(1)
    assert len({*first_trials(1), *first_trials(2), *first_trials(None), *first_trials(None)}) == 12


@pytest.mark.parametrize(("state", "result"), [(TrialState.FAIL, None), (TrialState.PRUNED, [5.0])])
def test_failed_and_pruned_trials_are_told(state: TrialState, result: list[float] | None) -> None:
    of = a_spec([X], options={"seed": 1})
    falling = on_a_line(of, lambda x: -x)
    ended = [told(of, {"x": place}, result, state) for place in (0.7, 0.8, 0.9, 1.0)]
    assert propose(of, falling + ended)["x"] < 0.7


def test_a_trial_that_lost_its_worker_tells_nothing() -> None:
    of = a_spec([X], options={"seed": 1})
    history = on_a_line(of, lambda x: -x)
    lost = told(of, {"x": 1.0}, None, TrialState.FAIL)
    lost.user_attrs[attributes.AGAIN] = True
    assert propose(of, [*history, lost])["x"] > 0.9


def test_points_in_flight_are_not_proposed_again() -> None:
    of = a_spec([X, Y], options={"seed": 1})
    history = [
        told(of, {"x": x / 3, "y": y / 3}, [(x / 3 - 0.6) ** 2 + (y / 3 - 0.4) ** 2])
        for x in range(4)
        for y in range(4)
    ]
    study = open_study(of, history)
    one, other = ask(study, of), ask(study, of)
    assert math.dist(one.values(), other.values()) > 0.02


def test_a_finite_space_gives_each_point_once_and_goes_on() -> None:
    of = a_spec(FINITE, options={"seed": 1})
    study = open_study(of)
    asked = [ask(study, of) for _ in range(4)]
    assert len({tuple(values.items()) for values in asked}) == 4, "four at once"
    again = propose(of, [told(of, values, [1.0]) for values in (asked + asked)[:7]])
    assert again in asked, "all is tried and told: optimised, and not at an end"


def test_two_objectives_are_a_pareto_front_and_can_be_had_again() -> None:
    of = a_spec([X], objectives=["minimize", "maximize"], options={"seed": 1}, budget={"maxTrials": 20})
    # 8 of 20 is the phase in which it weighs the metrics by numbers that it draws.
    history = [told(of, {"x": place / 7}, [(place / 7) ** 2, -((place / 7 - 0.5) ** 2)]) for place in range(8)]
    first = propose(of, history)
    assert 0 <= first["x"] <= 0.6, "better in neither metric beyond"
    assert propose(of, history) == first
    failed = [told(of, {"x": 0.9}, None, TrialState.FAIL)] * 2
    assert 0 <= propose(of, history * 2 + failed)["x"] <= 1, "the phase of constraints"


def test_a_weighted_sum_is_one_metric(tmp_path: Path) -> None:
    objectives = ("minimize", "maximize", "minimize")
    weights = {"loss0": 1, "loss1": 1, "loss2": 0}
    of = a_spec(
        [X], objectives=objectives, scalarize={"weights": weights}, options={"seed": 1}, budget={"maxTrials": 9}
    )
    with TrialLoop(of, f"sqlite:///{tmp_path / 'study.db'}", "study") as loop:
        asked = []
        for _ in range(7):
            assigned = loop.next()
            assert isinstance(assigned, Assignment)
            x = assigned.parameters["x"]
            asked.append(x)
            loop.tell(assigned, Outcome(values=(x**2, x, 0.0)))
    assert min(abs(x - 0.5) for x in asked[5:]) < 0.1, "the minimum of x² - x"


def test_groups_share_what_they_know_and_no_point(tmp_path: Path) -> None:
    of = a_spec(FINITE, options={"seed": 1}, budget={"maxTrials": 4})
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with TrialLoop(of, url, "study", 0) as one, TrialLoop(of, url, "study", 1) as other:
        asked = [loop.next() for loop in (one, other, one, other)]
    parameters = [assigned.parameters for assigned in asked if isinstance(assigned, Assignment)]
    assert len({tuple(values.items()) for values in parameters}) == 4


def test_given_values_are_kept_and_the_rest_is_sigopts() -> None:
    of = a_spec([X, Y], options={"seed": 1})
    study = open_study(of)
    study.enqueue_trial({"x": 0.25, "y": 0.5})
    study.enqueue_trial({"x": 0.75})
    assert ask(study, of) == {"x": 0.25, "y": 0.5}
    partial = ask(study, of)
    assert partial["x"] == 0.75
    assert 0 <= partial["y"] <= 1


def test_optunas_pruners_work_by_name() -> None:
    pruner = build_pruner(a_spec([X], pruner={"name": "MedianPruner", "options": {"n_startup_trials": 2}}))
    assert isinstance(pruner, optuna.pruners.MedianPruner)


@pytest.mark.parametrize(("given", "missing"), [(URL, TOKEN), (TOKEN, URL)])
def test_half_a_server_is_refused(given: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(given, "something")
    with pytest.raises(InvalidStudyError, match=f"{given} is set and {missing} is not") as refusal:
        propose(a_spec([X]))
    assert "something" not in refusal.value.message


def test_without_the_engine_a_study_is_checked_as_far_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the operator, whose image has no engine."""
    for name in [name for name in sys.modules if name.startswith("sigoptlite")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sigoptlite", None)
    sigopt_engine.load.cache_clear()
    try:
        check_algorithms(a_spec([X]))
        with pytest.raises(InvalidStudyError, match="SigOpt has no such option"):
            check_algorithms(a_spec([X], options={"sed": 1}))
        with pytest.raises(InvalidStudyError, match=r"needs the extra sigopt \(pip install 'hpstudy\[sigopt\]'\)"):
            propose(a_spec([X]))
    finally:
        sigopt_engine.load.cache_clear()
