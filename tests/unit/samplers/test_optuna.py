"""Backend optuna: every sampler and pruner by its own name and options, in real studies."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers.build import build_pruner, build_sampler, check_algorithms
from hpstudy.samplers.choice import choose
from hpstudy.space.load import read_space
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.opening import open_storage
from hpstudy.storage.reading import read_snapshot
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import Assignment, TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.support.builders import spec

NAME = "study"
FLAT = {
    "x": {"type": "float", "low": -2, "high": 2},
    "n": {"type": "int", "low": 1, "high": 64, "log": True},
    "kind": {"type": "categorical", "choices": ["a", "b", None]},
}
FINITE = {
    "x": {"type": "float", "low": 0, "high": 0.2, "step": 0.1},
    "n": {"type": "int", "low": 1, "high": 2},
    "flag": {"type": "categorical", "choices": [True, False]},
}
NUMERIC = {"x": FLAT["x"], "y": {"type": "float", "low": -2, "high": 2}}


def a_study(parameters: dict[str, Any] = FLAT, **fields: Any) -> StudySpec:
    return spec(searchSpace={"parameters": parameters}, **fields)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def run(loop: TrialLoop, trials: int, value: Callable[[dict[str, Any]], float] | None = None) -> list[dict[str, Any]]:
    """Run trials to their end; fewer where the study ends before."""
    taken = []
    for _ in range(trials):
        assigned = loop.next()
        if isinstance(assigned, Verdict):
            break
        taken.append(assigned.parameters)
        told = value(assigned.parameters) if value else _value(assigned.parameters)
        loop.tell(assigned, Outcome(values=(told,) * len(loop._spec.objectives)))
    return taken


def _value(parameters: dict[str, Any]) -> float:
    return sum(float(value) ** 2 for value in parameters.values() if isinstance(value, int | float))


def stored_trials(url: str) -> list[optuna.trial.FrozenTrial]:
    storage = open_storage(url)
    try:
        return optuna.load_study(study_name=NAME, storage=storage).trials
    finally:
        storage.engine.dispose()


TWO = [{"metric": "a", "direction": "minimize"}, {"metric": "b", "direction": "maximize"}]
CASES: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("TPESampler", {"seed": 1, "n_startup_trials": 2, "multivariate": True, "constant_liar": True}, FLAT, True),
    ("TPESampler", {"n_startup_trials": 2, "gamma": f"{__name__}:quarter"}, FLAT, False),
    ("GPSampler", {"seed": 1, "n_startup_trials": 2, "deterministic_objective": True}, FLAT, True),
    ("CmaEsSampler", {"seed": 1, "popsize": 4, "with_margin": True}, NUMERIC, False),
    ("CmaEsSampler", {"independent_sampler": {"name": "TPESampler", "options": {"seed": 1}}}, FLAT, False),
    ("CmaEsSampler", {"x0": {"x": 1.0, "y": -1.0}, "sigma0": 0.1}, NUMERIC, False),
    ("NSGAIISampler", {"seed": 1, "population_size": 3, "mutation_prob": 0.5}, FLAT, True),
    ("NSGAIISampler", {"population_size": 3, "mutation": {"name": "PolynomialMutation"}}, NUMERIC, True),
    ("NSGAIIISampler", {"population_size": 3, "dividing_parameter": 2, "seed": 1}, FLAT, True),
    ("NSGAIIISampler", {"population_size": 3, "reference_points": [[1, 0], [0, 1]]}, FLAT, True),
    ("QMCSampler", {"qmc_type": "halton", "scramble": True, "seed": 1}, FLAT, True),
    ("QMCSampler", {"independent_sampler": {"name": "RandomSampler", "options": {"seed": 1}}}, FLAT, False),
    ("GridSampler", {"search_space": {"x": [-1, 0.5], "n": [2, 4], "kind": ["a", None]}, "seed": 3}, FLAT, True),
    ("GridSampler", {}, FINITE, False),
    ("BruteForceSampler", {"seed": 1, "avoid_premature_stop": True}, FINITE, True),
    ("RandomSampler", {"seed": 1}, FLAT, True),
    ("PartialFixedSampler", {"fixed_params": {"kind": None}, "base_sampler": {"name": "GPSampler"}}, FLAT, True),
    (
        "PartialFixedSampler",
        {"fixed_params": {"x": 0.5}, "base_sampler": {"name": "CmaEsSampler", "options": {"seed": 2}}},
        NUMERIC,
        False,
    ),
]
for crossover in ("UniformCrossover", "BLXAlphaCrossover", "SBXCrossover", "SPXCrossover", "UNDXCrossover"):
    CASES.append(
        ("NSGAIISampler", {"population_size": 3, "crossover": {"name": crossover, "options": {}}}, NUMERIC, False)
    )
CASES.append(
    (
        "NSGAIIISampler",
        {"population_size": 3, "crossover": {"name": "VSBXCrossover", "options": {"eta": 2.0}}},
        NUMERIC,
        True,
    )
)


def quarter(trials: int) -> int:
    return max(1, trials // 4)


@pytest.mark.parametrize(
    ("name", "options", "parameters", "several"),
    CASES,
    ids=[f"{name}-{'-'.join(options) or 'defaults'}-{index}" for index, (name, options, *_) in enumerate(CASES)],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_sampler_runs_studies(
    name: str, options: dict[str, Any], parameters: dict[str, Any], several: bool, url: str
) -> None:
    study = a_study(parameters, sampler={"name": name, "options": options}, objectives=TWO if several else TWO[:1])
    check_algorithms(study)
    with TrialLoop(study, url, NAME) as loop:
        assert isinstance(loop.study.sampler, getattr(optuna.samplers, name))
        taken = run(loop, 4)
    assert len(taken) == 4
    space = read_space(study)
    assert space is not None
    for values in taken:
        assert values.keys() == space.distributions.keys()
        for parameter, value in values.items():
            space[parameter].encode(value)
        for parameter, value in options.get("fixed_params", {}).items():
            assert values[parameter] == value


def test_the_cases_name_every_sampler_and_pruner_that_optuna_ships() -> None:
    assert {name for name, *_ in CASES} == {
        name for name in optuna.samplers.__all__ if name.endswith("Sampler") and not name.startswith("Base")
    }
    assert {name for name, *_ in PRUNERS} == {
        name for name in optuna.pruners.__all__ if not name.startswith(("Base", "Nop"))
    }
    crossovers = {options["crossover"]["name"] for _, options, *_ in CASES if "crossover" in options}
    assert crossovers == {n for n in optuna.samplers.nsgaii.__all__ if n.endswith("Crossover") and n[:4] != "Base"}


# Options, the first trial's reports, the second one's, and how many of those it makes until it is pruned.
PRUNERS: list[tuple[str, dict[str, Any], list[float], list[float], int | None]] = [
    ("MedianPruner", {"n_startup_trials": 1, "n_warmup_steps": 2}, [1, 1, 1, 1], [5, 5, 5, 5], 2),
    ("PercentilePruner", {"percentile": 50.0, "n_startup_trials": 1}, [1, 1, 1, 1], [5, 5, 5, 5], 1),
    ("SuccessiveHalvingPruner", {"min_resource": 2, "reduction_factor": 2}, [1, 1, 1, 1], [5, 5, 5, 5], 2),
    ("HyperbandPruner", {"min_resource": 2, "max_resource": 4, "reduction_factor": 3}, [1] * 4, [5] * 4, 2),
    ("ThresholdPruner", {"upper": 3.0}, [1, 1, 1, 1], [1, 2, 5, 5], 3),
    (
        "PatientPruner",
        {"wrapped_pruner": {"name": "MedianPruner", "options": {"n_startup_trials": 1}}, "patience": 1},
        [1, 1, 1, 1],
        [5, 6, 7, 8],
        3,
    ),
    ("PatientPruner", {"wrapped_pruner": None, "patience": 1, "min_delta": 0.1}, [4, 3, 2, 1], [5, 6, 7, 8], 3),
    ("WilcoxonPruner", {"p_threshold": 0.2, "n_startup_steps": 2}, [1, 1, 1, 1], [5, 6, 7, 8], 3),
]


@pytest.mark.parametrize(("name", "options", "good", "bad", "pruned_after"), PRUNERS)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_pruner_ends_the_trial_that_it_should(
    name: str, options: dict[str, Any], good: list[float], bad: list[float], pruned_after: int | None, url: str
) -> None:
    study = spec(pruner={"name": name, "options": options}, sampler={"name": "RandomSampler"})
    check_algorithms(study)
    with TrialLoop(study, url, NAME) as loop:
        assert isinstance(loop.study.pruner, getattr(optuna.pruners, name))
        assert _report(loop, good) is None
        assert _report(loop, bad) == pruned_after


def _report(loop: TrialLoop, values: list[float]) -> int | None:
    """Reports until the trial is pruned."""
    assigned = loop.next()
    assert isinstance(assigned, Assignment)
    for step, value in enumerate(values, start=1):
        if loop.report(assigned, step, {"loss": value}):
            loop.tell(assigned, Outcome(pruned=True))
            return step
    loop.tell(assigned, Outcome(values=(values[-1],)))
    return None


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"sampler": {"name": "PartialFixedSampler", "options": {"fixed_params": {}}}}, "needs base_sampler"),
        (
            {
                "sampler": {
                    "name": "PartialFixedSampler",
                    "options": {"fixed_params": {"x": 9}, "base_sampler": {"name": "RandomSampler"}},
                }
            },
            r"sampler.options.fixed_params: x: 9 is not in \[-2, 2\]",
        ),
        (
            {
                "sampler": {
                    "name": "PartialFixedSampler",
                    "options": {"fixed_params": {"z": 1}, "base_sampler": {"name": "RandomSampler"}},
                }
            },
            "fixed_params.z: the search space has no such parameter",
        ),
        (
            {"sampler": {"name": "QMCSampler", "options": {"independent_sampler": {"name": "RandmSampler"}}}},
            "unknown sampler.options.independent_sampler 'RandmSampler': did you mean RandomSampler",
        ),
        (
            {"sampler": {"name": "QMCSampler", "options": {"independent_sampler": "RandomSampler"}}},
            "sampler.options.independent_sampler: takes a name and options",
        ),
        (
            {
                "sampler": {
                    "name": "NSGAIISampler",
                    "options": {"crossover": {"name": "SBXCrossover", "options": {"etta": 1}}},
                }
            },
            "sampler.options.crossover.options.etta: SBXCrossover has no such option: did you mean eta",
        ),
        ({"sampler": {"name": "TPESampler", "options": {"gamma": 5}}}, "gamma: takes a function, as module:function"),
        (
            {"sampler": {"name": "CmaEsSampler", "options": {"source_trials": [{}]}}},
            r"source_trials: takes a Python object \(FrozenTrial\)",
        ),
        (
            {"sampler": {"name": "GridSampler"}},
            r"GridSampler goes through every value, and x has infinitely many; give it a step, or its values",
        ),
        (
            {"sampler": {"name": "GridSampler", "options": {"search_space": {"x": [0], "n": [2]}}}},
            "search_space: no values for kind",
        ),
        (
            {"sampler": {"name": "GridSampler", "options": {"search_space": {"x": [0], "n": [99], "kind": ["a"]}}}},
            r"search_space: n: 99 is not in \[1, 64\]",
        ),
        ({"sampler": {"name": "BruteForceSampler"}}, "x has infinitely many; give it a step"),
        ({"sampler": {"name": "CmaEsSampler"}, "objectives": TWO}, "CmaEsSampler works for one objective"),
        ({"sampler": {"name": "auto", "options": {"n_startup_trials": 5}}}, "auto takes a seed alone"),
        ({"sampler": {"name": "auto", "options": {"seed": "seven"}}}, "sampler.options.seed: input should be"),
        (
            {"pruner": {"name": "PatientPruner", "options": {"wrapped_pruner": {"name": "Median"}, "patience": 1}}},
            "unknown pruner.options.wrapped_pruner 'Median': did you mean MedianPruner",
        ),
        ({"pruner": {"name": "ThresholdPruner"}}, "ThresholdPruner"),
    ],
)
def test_an_option_that_cannot_work_is_refused_before_anything_runs(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidStudyError, match=complaint):
        check_algorithms(a_study(**fields))


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        ({"ray": {"x": {"randn": [0, 1]}}}, "x has a normal distribution"),
        ({"ray": {"x": {"qlograndint": [1, 64, 2]}}}, "x has steps on a logarithmic scale"),
    ],
)
def test_a_distribution_that_optuna_lacks_is_refused(space: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidStudyError, match=complaint):
        check_algorithms(spec(searchSpace=space))


def test_a_grid_over_a_conditional_or_a_huge_space_is_refused() -> None:
    grid = {"name": "GridSampler"}
    with pytest.raises(InvalidStudyError, match="BruteForceSampler goes through a conditional space"):
        check_algorithms(a_study(FINITE | {"n": {**FINITE["n"], "when": {"flag": [True]}}}, sampler=grid))
    wide = {name: {"type": "int", "low": 1, "high": 100} for name in "abc"}
    with pytest.raises(InvalidStudyError, match="the grid has 1,000,000 points, at most 100,000"):
        check_algorithms(a_study(wide, sampler=grid))


def test_the_users_functions_are_imported_where_trials_run_alone() -> None:
    study = a_study(sampler={"name": "TPESampler", "options": {"gamma": "not_here:gamma"}})
    check_algorithms(study)
    with pytest.raises(InvalidStudyError, match="cannot import module 'not_here'"):
        build_sampler(study, read_space(study))


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


@pytest.mark.parametrize("name", ["TPESampler", "RandomSampler", "NSGAIISampler", "GPSampler", "CmaEsSampler"])
def test_groups_and_restarts_draw_different_trials_with_one_seed(name: str) -> None:
    study = a_study(NUMERIC, sampler={"name": name, "options": {"seed": 7}})
    space = read_space(study)
    firsts = set()
    for group, trials in itertools.product(range(3), (0, 4)):
        sampler = build_sampler(study, space, group=group, trials=trials)
        firsts.add(optuna.create_study(sampler=sampler).ask().suggest_float("x", -2, 2))
    assert len(firsts) == 6


def test_groups_share_one_quasi_random_sequence(url: str) -> None:
    study = a_study(NUMERIC, sampler={"name": "QMCSampler", "options": {"scramble": True}}, budget={"maxTrials": 40})
    with TrialLoop(study, url, NAME, 0) as first, TrialLoop(study, url, NAME, 1) as second:
        for _ in range(9):
            run(first, 1)
            run(second, 1)
        taken = [trial.params for trial in stored_trials(url)]
    assert len({values["x"] for values in taken}) == 18
    # The first point is random, the next 16 of Sobol's sequence have one in each sixteenth of either axis.
    for axis in ("x", "y"):
        assert {int((values[axis] + 2) / 4 * 16) for values in taken[1:17]} == set(range(16))


@pytest.mark.parametrize(
    ("fields", "name", "why"),
    [
        ({"parameters": NUMERIC}, "GPSampler", "20 trials of 2 flat parameters"),
        ({"parameters": FLAT}, "GPSampler", "20 trials of 3 flat parameters"),
        (
            {"parameters": {f"x{index}": NUMERIC["x"] for index in range(30)}},
            "TPESampler",
            "20 trials of 30 flat parameters",
        ),
        ({"parameters": NUMERIC, "budget": {"maxTrials": 1000}}, "TPESampler", "1000 trials of 2 flat parameters"),
        ({"parameters": FINITE | {"n": {**FINITE["n"], "when": {"flag": [True]}}}}, "TPESampler", "conditions"),
        ({"parameters": NUMERIC, "pruner": {"name": "MedianPruner"}}, "TPESampler", "pruned trials"),
        ({"parameters": NUMERIC, "objectives": TWO}, "GPSampler", "20 trials for 2 objectives of 2 flat parameters"),
        (
            {"parameters": NUMERIC, "objectives": [*TWO, {"metric": "c", "direction": "minimize"}]},
            "TPESampler",
            "20 trials for 3 objectives",
        ),
        (
            {"parameters": NUMERIC, "objectives": TWO, "scalarize": {"weights": {"a": 1, "b": 1}}},
            "GPSampler",
            "20 trials of 2 flat parameters",
        ),
        (
            {"parameters": NUMERIC, "objectives": TWO, "budget": {"maxTrials": 20000}},
            "NSGAIISampler",
            "20000 trials for 2 objectives",
        ),
    ],
)
def test_auto_chooses_by_budget_space_and_objectives(fields: dict[str, Any], name: str, why: str) -> None:
    study = a_study(**fields)
    choice = choose(study, read_space(study))
    assert choice.name == name
    assert why in choice.why


def test_a_define_by_run_space_takes_tpe() -> None:
    assert choose(spec(searchSpace={"python": "anything:space"}), None).name == "TPESampler"


@pytest.mark.parametrize("sampler", [None, {"name": "auto", "options": {"seed": 3}}])
def test_the_choice_is_recorded_once_and_kept(sampler: dict[str, Any] | None, url: str) -> None:
    study = a_study(NUMERIC, sampler=sampler)
    with TrialLoop(study, url, NAME, 0) as first, TrialLoop(study, url, NAME, 1) as second:
        assert isinstance(first.study.sampler, optuna.samplers.GPSampler)
        assert isinstance(second.study.sampler, optuna.samplers.GPSampler)
        run(first, 1)
        run(second, 1)
    assert stored_trials(url)[0].params != stored_trials(url)[1].params
    more = a_study(NUMERIC, sampler=sampler, budget={"maxTrials": 1000})
    with TrialLoop(more, url, NAME) as again:
        assert isinstance(again.study.sampler, optuna.samplers.GPSampler), "the study began with it"
        assert again.study.user_attrs[attributes.SAMPLER]["name"] == "GPSampler"
    storage = open_storage(url)
    assert read_snapshot(storage, NAME, more).sampler == "GPSampler: 20 trials of 2 flat parameters"
    named = a_study(NUMERIC, sampler={"name": "RandomSampler"})
    assert read_snapshot(storage, NAME, named).sampler == "RandomSampler", "as the study says now"
    storage.engine.dispose()


def test_nothing_is_recorded_where_the_study_names_its_sampler(url: str) -> None:
    with TrialLoop(a_study(sampler={"name": "RandomSampler"}), url, NAME) as loop:
        assert attributes.SAMPLER not in loop.study.user_attrs


def test_no_pruner_prunes_nothing() -> None:
    assert isinstance(build_pruner(spec()), optuna.pruners.NopPruner)


def test_a_failed_trial_is_no_point_of_a_model(url: str) -> None:
    study = a_study(NUMERIC, sampler={"name": "GPSampler", "options": {"n_startup_trials": 3, "seed": 1}})
    with TrialLoop(study, url, NAME) as loop:
        run(loop, 3)
        failing = loop.next()
        assert isinstance(failing, Assignment)
        loop.tell(failing, Outcome(failure=Failure.ERROR, message="boom"))
        assert len(run(loop, 2)) == 2
    assert [trial.state for trial in stored_trials(url)].count(TrialState.FAIL) == 1
