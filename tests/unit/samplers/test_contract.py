"""What every backend keeps to, on every form of a search space, with the real engines.

Trials go through a worker group's own loop and SQLite. A new loop on a copy of the same storage is a restart.
"""

import itertools
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers.build import check_algorithms
from hpstudy.space.load import read_space
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.opening import open_storage, open_study
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.support.builders import spec
from tests.support.trials import take
from tests.unit.samplers import native_spaces

pytestmark = [
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]
NAME = "study"
BACKENDS = ("optuna", "ray", "wandb", "sigopt")
SEED = 7
SEEDED = {
    "optuna": {"name": "TPESampler", "options": {"seed": SEED, "n_startup_trials": 5}},
    "ray": {"name": "OptunaSearch", "options": {"seed": SEED}},
    "wandb": {"name": "bayes", "options": {"seed": SEED}},
    "sigopt": {"name": "offline", "options": {"seed": SEED}},
}
"""The default of each backend, with a seed."""
DECLARED = {
    "rate": {"type": "float", "low": 1e-6, "high": 1e-4, "log": True},
    "epochs": {"type": "int", "low": 1, "high": 5},
    "width": {"type": "int", "low": 8, "high": 64, "step": 8},
    "dropout": {"type": "float", "low": 0, "high": 0.5, "step": 0.1},
    "kind": {"type": "categorical", "choices": ["a", "b", None]},
    "flag": {"type": "categorical", "choices": [True, False]},
    "momentum": {"type": "float", "low": 0, "high": 0.99, "when": {"kind": ["a"]}},
}
SMALL = {"x": {"type": "float", "low": 0, "high": 1}, "n": {"type": "int", "low": 1, "high": 8}}
ALLOWED: dict[str, Callable[[Any], bool]] = {
    "rate": lambda value: type(value) is float and 1e-6 <= value <= 1e-4,
    "epochs": lambda value: type(value) is int and 1 <= value <= 5,
    "width": lambda value: type(value) is int and value in range(8, 65, 8),
    "dropout": lambda value: type(value) is float and any(math.isclose(value, k / 10, abs_tol=1e-9) for k in range(6)),
    "kind": lambda value: value in ("a", "b", None),
    "flag": lambda value: type(value) is bool,
    "momentum": lambda value: type(value) is float and 0 <= value <= 0.99,
}
"""What a trial may get, in which type."""
CONDITIONAL = {"momentum": lambda values: values["kind"] == "a"}

NATIVE = {
    "optuna": native_spaces.OPTUNA,
    "ray": native_spaces.RAY,
    "wandb": native_spaces.WANDB,
    "sigopt": native_spaces.SIGOPT,
}
FUNCTIONS = {"optuna": "define_by_run", "ray": "ray", "wandb": "wandb", "sigopt": "sigopt"}
FORMS = [
    *((backend, "parameters", DECLARED) for backend in BACKENDS),
    *((backend, backend, native) for backend, native in NATIVE.items()),
    *((backend, "python", f"{native_spaces.__name__}:{function}") for backend, function in FUNCTIONS.items()),
    # A form of another backend is a space like any other.
    ("sigopt", "optuna", native_spaces.OPTUNA),
    ("optuna", "wandb", {"parameters": native_spaces.WANDB["parameters"]}),
]
Point = dict[str, Any]


def a_study(backend: str, parameters: dict[str, Any] = SMALL, **fields: Any) -> StudySpec:
    form = {"parameters": parameters}
    return spec(backend=backend, **{"searchSpace": form, "sampler": SEEDED[backend], "parallelism": 6, **fields})


def check(point: Point) -> None:
    for name, value in point.items():
        assert ALLOWED[name](value), f"{name}: {value!r} ({type(value).__name__})"
        assert name not in CONDITIONAL or CONDITIONAL[name](point), f"{name} does not exist with {point}"


@contextmanager
def opened(path: Path, study: StudySpec) -> Iterator[optuna.Study]:
    storage = open_storage(f"sqlite:///{path}")
    try:
        yield open_study(storage, NAME, study)
    finally:
        storage.engine.dispose()


def fill(path: Path, study: StudySpec, trials: int, value: Callable[[Point], float]) -> str:
    """A storage with the trials of a group 5, drawn at random."""
    space = read_space(study)
    assert space is not None
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(trials):
        trial = drawn.ask()
        drawn.tell(trial, value(space.suggest(trial)))
    with opened(path, study) as stored:
        for trial in drawn.trials:
            trial.set_user_attr(attributes.GROUP, 5)
            stored.add_trial(trial)
    return f"sqlite:///{path}"


def add(path: Path, study: StudySpec, state: TrialState, point: Point, **fields: Any) -> None:
    """One more trial of group 5."""
    space = read_space(study)
    assert space is not None
    with opened(path, study) as stored:
        stored.add_trial(
            optuna.trial.create_trial(
                state=state,
                params={name: space[name].encode(value) for name, value in point.items()},
                distributions={name: space[name].distribution for name in point},
                user_attrs={attributes.GROUP: 5, **fields.pop("user_attrs", {})},
                **fields,
            )
        )


def parabola(point: Point) -> float:
    return 10 * (point["x"] - 0.3) ** 2 + (point["n"] - 3) ** 2 / 16


KNOWN = 12
"""Trials in the storages of SMALL: every engine then has its model."""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storages with finished trials, by backend; to be copied."""
    folder = tmp_path_factory.mktemp("known")
    for backend in BACKENDS:
        fill(folder / f"{backend}.db", a_study(backend), KNOWN, parabola)
    return folder


def copy(known: Path, backend: str, target: Path) -> str:
    shutil.copy(known / f"{backend}.db", target)
    return f"sqlite:///{target}"


def proposal(path: Path, study: StudySpec, group: int = 0) -> Point:
    """The next one of a group that starts on this storage."""
    with TrialLoop(study, f"sqlite:///{path}", NAME, group) as loop:
        return take(loop).parameters


@pytest.mark.parametrize(("backend", "form", "native"), FORMS, ids=[f"{b}-{f}" for b, f, _ in FORMS])
def test_values_are_within_bounds_and_of_their_own_types(backend: str, form: str, native: Any, tmp_path: Path) -> None:
    study = spec(backend=backend, sampler=SEEDED[backend], searchSpace={form: native})
    check_algorithms(study)
    only_text = native is native_spaces.SIGOPT or ":sigopt" in str(native)
    given: list[Point] = [{"kind": "a"}] if only_text else [{"kind": None, "flag": False}, {"kind": "a", "flag": True}]
    points = []
    with TrialLoop(study, f"sqlite:///{tmp_path / 's.db'}", NAME) as loop:
        for values in given:
            loop.study.enqueue_trial(values)
        for number in range(4):
            trial = take(loop)
            check(trial.parameters)
            points.append(trial.parameters)
            if number < 3:
                loop.tell(trial, Outcome(values=(trial.parameters["epochs"] + 1e4 * trial.parameters["rate"],)))
    for values, point in zip(given, points, strict=False):
        assert {name: point[name] for name in values} == values
    whole = set(DECLARED) - ({"flag"} if only_text else set())
    conditional = any(mark in str(native) for mark in ("momentum", "define_by_run", ":sigopt"))
    assert set().union(*points) == (whole if conditional else whole - {"momentum"})
    assert all(("momentum" in point) == (conditional and point["kind"] == "a") for point in points)
    assert len({point["rate"] for point in points}) == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_engines_models_keep_to_the_bounds_and_conditions_too(backend: str, tmp_path: Path) -> None:
    study = a_study(backend, DECLARED)
    url = fill(
        tmp_path / "s.db", study, 16, lambda point: abs(math.log10(point["rate"]) + 5) + (point["kind"] is not None)
    )
    with TrialLoop(study, url, NAME) as loop:
        point = take(loop).parameters
    check(point)
    assert point.keys() | {"momentum"} == set(DECLARED)
    assert ("momentum" in point) == (point["kind"] == "a")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_group_knows_what_the_trials_of_others_reached(backend: str, known: Path, tmp_path: Path) -> None:
    study = a_study(backend)
    copy(known, backend, tmp_path / "known.db")
    fill(tmp_path / "opposite.db", study, KNOWN, lambda point: -parabola(point))
    near, far = proposal(tmp_path / "known.db", study), proposal(tmp_path / "opposite.db", study)
    assert near != far, "the same points, the same seed, other values"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_group_knows_what_others_are_running(backend: str, known: Path, tmp_path: Path) -> None:
    study = a_study(backend)
    copy(known, backend, tmp_path / "first.db")
    wanted = proposal(tmp_path / "first.db", study)
    proposals = []
    for name, point in (("same", wanted), ("other", {"x": 0.95, "n": 8})):
        path = tmp_path / f"{name}.db"
        copy(known, backend, path)
        add(path, study, TrialState.RUNNING, point)
        proposals.append(proposal(path, study))
    assert proposals[0] != proposals[1]
    assert wanted not in proposals


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_point_is_proposed_while_it_runs(backend: str, known: Path, tmp_path: Path) -> None:
    study, url = a_study(backend), copy(known, backend, tmp_path / "s.db")
    with TrialLoop(study, url, NAME, 0) as first, TrialLoop(study, url, NAME, 1) as second:
        points = [take(loop).parameters for loop in (first, second, first)]
    assert len({tuple(point.values()) for point in points}) == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_restart_changes_nothing_that_is_known(backend: str, known: Path, tmp_path: Path) -> None:
    study = a_study(backend)
    url = copy(known, backend, tmp_path / "s.db")
    with TrialLoop(study, url, NAME) as loop:
        trial = take(loop)
        loop.tell(trial, Outcome(values=(parabola(trial.parameters),)))
        for restart in ("first", "second"):
            shutil.copy(tmp_path / "s.db", tmp_path / f"{restart}.db")
        next_one = take(loop).parameters
    if backend == "optuna":  # whose samplers draw anew, so that they do not repeat the trials before the restart
        next_one = proposal(tmp_path / "second.db", study)
    assert proposal(tmp_path / "first.db", study) == next_one


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_seed_gives_the_same_study_again(backend: str, tmp_path: Path) -> None:
    def run(name: str, sampler: dict[str, Any], trials: int = 4) -> list[Point]:
        with TrialLoop(a_study(backend, sampler=sampler), f"sqlite:///{tmp_path / name}", NAME) as loop:
            points = []
            for _ in range(trials):
                trial = take(loop)
                points.append(trial.parameters)
                loop.tell(trial, Outcome(values=(parabola(trial.parameters),)))
            return points

    other = {"name": SEEDED[backend]["name"], "options": {"seed": SEED + 1}}
    points = run("first.db", SEEDED[backend])
    assert points == run("again.db", SEEDED[backend])
    assert points[:1] != run("other.db", other, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_failed_and_pruned_trials_are_told_and_those_with_retries_run_again(
    backend: str, known: Path, tmp_path: Path
) -> None:
    study, url = a_study(backend, retries={"oom": 1}), copy(known, backend, tmp_path / "s.db")
    with TrialLoop(study, url, NAME) as loop:
        for x in (0.25, 0.3, 0.35):
            loop.study.enqueue_trial({"x": x, "n": 3})
        failed, pruned, silent, lost = (take(loop) for _ in range(4))
        loop.tell(failed, Outcome(failure=Failure.ERROR, message="boom"))
        loop.report(pruned, 1, {"loss": 5.0})
        loop.tell(pruned, Outcome(pruned=True))
        loop.tell(silent, Outcome(pruned=True))
        loop.tell(lost, Outcome(failure=Failure.LOST, message="gone"))
        again = take(loop)
        assert again.parameters == lost.parameters
        loop.tell(again, Outcome(failure=Failure.OOM, message="too much"))
        assert take(loop).parameters == lost.parameters
        fresh = take(loop).parameters
    told = [trial.parameters for trial in (failed, pruned, silent, lost)]
    assert fresh not in told, "a point that failed or was pruned is no good"
    assert 0 <= fresh["x"] <= 1
    assert type(fresh["n"]) is int


TWO = [{"metric": "loss", "direction": "minimize"}, {"metric": "speed", "direction": "maximize"}]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scalarize", [None, {"weights": {"loss": 1, "speed": 0.5}}], ids=["front", "scalarize"])
def test_two_objectives_are_searched_or_refused_with_the_remedy(
    backend: str, scalarize: dict[str, Any] | None, tmp_path: Path
) -> None:
    study = a_study(backend, objectives=TWO, scalarize=scalarize)
    if backend == "wandb" and scalarize is None:
        with pytest.raises(InvalidStudyError, match="add scalarize with a weight for each objective"):
            check_algorithms(study)
        return
    check_algorithms(study)
    with TrialLoop(study, f"sqlite:///{tmp_path / 's.db'}", NAME) as loop:
        points = []
        for _ in range(3):
            trial = take(loop)
            points.append(trial.parameters)
            loop.tell(trial, Outcome(values=(parabola(trial.parameters), trial.parameters["x"])))
    assert len({point["x"] for point in points}) == 3


FINITE = {
    "kind": {"type": "categorical", "choices": ["a", None, True]},
    "n": {"type": "int", "low": 1, "high": 4},
}
RAY_GRID = {"kind": {"grid_search": ["a", None, True]}, "n": {"grid_search": [1, 2, 3, 4]}}
EXHAUSTIVE = [
    ("optuna", {"name": "GridSampler"}, {"parameters": FINITE}),
    ("optuna", {"name": "BruteForceSampler"}, {"parameters": FINITE}),
    ("wandb", {"name": "grid"}, {"parameters": FINITE}),
    ("ray", {"name": "BasicVariantGenerator"}, {"ray": RAY_GRID}),
]


@pytest.mark.parametrize(("backend", "sampler", "space"), EXHAUSTIVE, ids=[s["name"] for _, s, _ in EXHAUSTIVE])
def test_a_grid_is_gone_through_once_by_all_groups_and_then_over(
    backend: str, sampler: dict[str, Any], space: dict[str, Any], tmp_path: Path
) -> None:
    budget = {"maxTrials": 50, "maxFailedTrials": 9}
    study = spec(backend=backend, sampler=sampler, searchSpace=space, budget=budget, retries={"timeout": 1})
    url, points, running = f"sqlite:///{tmp_path / 's.db'}", [], []
    with TrialLoop(study, url, NAME, 0) as first, TrialLoop(study, url, NAME, 1) as second:
        for loop in itertools.cycle((first, second)):
            assigned = loop.next()
            if isinstance(assigned, Assignment):
                running.append((loop, assigned))
                if len(running) < 3:
                    continue
            elif assigned.next is Next.SUCCEEDED:
                break
            holder, trial = running.pop(0)
            if again := {2: Failure.LOST, 5: Failure.TIMEOUT}.get(trial.number):
                holder.tell(trial, Outcome(failure=again, message="gone"))
                continue
            points.append((str(trial.parameters["kind"]), trial.parameters["n"]))
            failure = Failure.ERROR if trial.number == 4 else None
            holder.tell(trial, Outcome(values=None if failure else (1.0,), failure=failure, message="boom"))
        verdict = second.verdict()
    assert isinstance(verdict, Verdict)
    assert verdict.reason == reasons.SPACE_EXHAUSTED
    assert sorted(points) == sorted(itertools.product(["a", "None", "True"], [1, 2, 3, 4]))
