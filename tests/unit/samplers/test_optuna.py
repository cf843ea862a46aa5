"""Backend optuna: every sampler and pruner by its own name and options, in real studies."""

import itertools
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.build import build_pruner, build_sampler, check_algorithms
from hpstudy.space.load import read_space
from hpstudy.storage.attributes import Failure
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.storage.stored import trials_of
from tests.support.builders import spec
from tests.unit.samplers.optuna_studies import FINITE, FLAT, NAME, NUMERIC, TWO, a_study, run

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
        taken = [trial.params for trial in trials_of(url)]
    assert len({values["x"] for values in taken}) == 18
    # The first point is random, the next 16 of Sobol's sequence have one in each sixteenth of either axis.
    for axis in ("x", "y"):
        assert {int((values[axis] + 2) / 4 * 16) for values in taken[1:17]} == set(range(16))


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
    assert [trial.state for trial in trials_of(url)].count(TrialState.FAIL) == 1
