"""python -m benchmarks.samplers [--seeds N] [--functions NAME ...] [--samplers NAME ...]: who proposes best.

The best value after 50 trials on functions whose optimum is known, as the distance from it, by each backend's default
sampler, by Optuna's TPE, Gaussian process and ``auto``, and by random search: median over seeds. With ``zdt1``, which
has two objectives, the hypervolume that is missing. Then the time of one ask when a study has 10, 100 and 1,000 trials.
All in memory: what a storage costs is not here. Ten seeds take about an hour on two cores.
"""

import argparse
import functools
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from benchmarks.tables import print_table, save
from hpstudy.api.study import AUTO, Algorithm, StudySpec
from hpstudy.samplers.build import build_sampler
from hpstudy.samplers.choice import choose
from hpstudy.space.dimensions import SearchSpace
from hpstudy.space.load import read_space
from hpstudy.storage.pareto import Direction, hypervolume, pareto_front

SAMPLERS = {
    "random": ("optuna", "RandomSampler"),
    "optuna TPE": ("optuna", "TPESampler"),
    "optuna GP": ("optuna", "GPSampler"),
    "optuna NSGA-II": ("optuna", "NSGAIISampler"),
    "optuna auto": ("optuna", AUTO),
    "ray": ("ray", "OptunaSearch"),
    "wandb": ("wandb", "bayes"),
    "sigopt": ("sigopt", "offline"),
}
"""By its name in the tables, backend and sampler; the last three are what those take where none is named."""
REFERENCE = (1.1, 11.0)
"""Of the hypervolume on ZDT1: beyond the worst values of its objectives, 1 and 10."""
SPENT = 120.0
"""Seconds after which no further ask of a sampler is timed."""


@dataclass(frozen=True)
class Function:
    """What is minimised, over which space, and the best there is."""

    parameters: Mapping[str, Mapping[str, Any]]
    evaluate: Callable[[Mapping[str, Any]], float | tuple[float, float]]
    optimum: float
    """The least value; with two objectives the hypervolume of the true front."""
    objectives: int = 1


def branin(x: Mapping[str, Any]) -> float:
    """Branin & Hoo (1972); https://www.sfu.ca/~ssurjano/branin.html"""
    a, b = x["x"], x["y"]
    curve = b - 5.1 / (4 * math.pi**2) * a**2 + 5 / math.pi * a - 6
    return float(curve**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(a) + 10)


_ALPHA = (1.0, 1.2, 3.0, 3.2)
_A = ((10, 3, 17, 3.5, 1.7, 8), (0.05, 10, 17, 0.1, 8, 14), (3, 3.5, 1.7, 10, 17, 8), (17, 8, 0.05, 10, 0.1, 14))
_P = (
    (1312, 1696, 5569, 124, 8283, 5886),
    (2329, 4135, 8307, 3736, 1004, 9991),
    (2348, 1451, 3522, 2883, 3047, 6650),
    (4047, 8828, 8732, 5743, 1091, 381),
)


def hartmann6(x: Mapping[str, Any]) -> float:
    """Hartmann's function of six dimensions; https://www.sfu.ca/~ssurjano/hart6.html"""
    point = [x[f"x{index}"] for index in range(6)]
    return -sum(
        alpha * math.exp(-sum(a * (value - p / 10_000) ** 2 for a, value, p in zip(row, point, peak, strict=True)))
        for alpha, row, peak in zip(_ALPHA, _A, _P, strict=True)
    )


_BEST_RATE = {"sgd": -1.5, "adam": -3.0, "rmsprop": -3.5}
_HANDICAP = {"sgd": 0.3, "adam": 0.0, "rmsprop": 0.1}


def mixed(x: Mapping[str, Any]) -> float:
    """As a network's loss might go: the best learning rate depends on optimizer and batch size, the best dropout on
    the layers. 0 at adam, 1e-3, 64, 4 layers, 0.2."""
    batch = math.log2(x["batch"] / 64)
    rate = math.log10(x["rate"]) - _BEST_RATE[x["optimizer"]] - 0.3 * batch
    shape = 0.05 * (x["layers"] - 4) ** 2 + 4 * (x["dropout"] - 0.05 * x["layers"]) ** 2
    return float(_HANDICAP[x["optimizer"]] + 0.5 * rate**2 + 0.05 * abs(batch) + shape)


def conditional(x: Mapping[str, Any]) -> float:
    """Two branches with parameters of their own; 0 at deep, width 0.7, rate 0.3."""
    if x["kind"] == "deep":
        return float(5 * (x["width"] - 0.7) ** 2 + 5 * (x["rate"] - 0.3) ** 2)
    return float(0.2 + 5 * (x["depth"] - 0.4) ** 2 + 5 * (x["rate"] - 0.8) ** 2)


def zdt1(x: Mapping[str, Any]) -> tuple[float, float]:
    """Zitzler, Deb & Thiele (2000), with four variables."""
    first, *rest = (x[f"x{index}"] for index in range(4))
    g = 1 + 9 * sum(rest) / len(rest)
    return first, g * (1 - math.sqrt(first / g))


def _unit(count: int) -> dict[str, dict[str, Any]]:
    return {f"x{index}": {"type": "float", "low": 0, "high": 1} for index in range(count)}


_SHARE = {"type": "float", "low": 0, "high": 1}
FUNCTIONS = {
    "branin": Function(
        {"x": {"type": "float", "low": -5, "high": 10}, "y": {"type": "float", "low": 0, "high": 15}}, branin, 0.397887
    ),
    "hartmann6": Function(_unit(6), hartmann6, -3.32237),
    "mixed": Function(
        {
            "optimizer": {"type": "categorical", "choices": list(_BEST_RATE)},
            "rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
            "batch": {"type": "categorical", "choices": [16, 32, 64, 128, 256]},
            "layers": {"type": "int", "low": 1, "high": 8},
            "dropout": {"type": "float", "low": 0, "high": 0.5, "step": 0.05},
        },
        mixed,
        0.0,
    ),
    "conditional": Function(
        {
            "kind": {"type": "categorical", "choices": ["deep", "wide"]},
            "width": {**_SHARE, "when": {"kind": ["deep"]}},
            "depth": {**_SHARE, "when": {"kind": ["wide"]}},
            "rate": _SHARE,
        },
        conditional,
        0.0,
    ),
    # The true front is f2 = 1 - sqrt(f1), f1 from 0 to 1: the area below it is 1/3.
    "zdt1": Function(_unit(4), zdt1, REFERENCE[0] * REFERENCE[1] - 1 / 3, 2),
}
STANDARD = ("branin", "hartmann6", "mixed")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--functions", nargs="*", choices=FUNCTIONS, default=STANDARD)
    parser.add_argument("--samplers", nargs="*", choices=SAMPLERS, default=[n for n in SAMPLERS if "NSGA" not in n])
    parser.add_argument("--ask-trials", nargs="*", type=int, default=(10, 100, 1000))
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    results: dict[str, dict[str, list[float]]] = {}
    for name in options.functions:
        function, rows = FUNCTIONS[name], {}
        for label in options.samplers:
            backend, sampler = SAMPLERS[label]
            if sampler == AUTO:
                study = _study(function, backend, sampler, options.trials)
                sampler = choose(study, read_space(study)).name
                label += f" ({sampler})"
            start = time.perf_counter()
            rows[label] = [_distance(name, backend, sampler, seed, options.trials) for seed in range(options.seeds)]
            took = time.perf_counter() - start
            print(f"{name}, {label}: {statistics.median(rows[label]):.4g}, {took:.0f} s", flush=True)
        what = "distance from the optimum" if function.objectives == 1 else "missing hypervolume"
        print_table(f"{name}, {options.trials} trials: {what}", rows, what, digits=4)
        results[name] = rows
    asks = {
        f"{label}, {trials} trials": _ask_seconds(FUNCTIONS["hartmann6"], label, trials)
        for label in options.samplers
        if label != "optuna auto"
        for trials in options.ask_trials
    }
    if asks:
        print_table("One ask, six parameters", asks)
    save("samplers", {"trials": options.trials, "distances": results, "ask_seconds": asks})


def _study(function: Function, backend: str, sampler: str, trials: int) -> StudySpec:
    directions = [{"metric": f"value{index}", "direction": "minimize"} for index in range(function.objectives)]
    return StudySpec.model_validate(
        {
            "objectives": directions,
            "backend": backend,
            "sampler": {"name": sampler},
            "searchSpace": {"parameters": function.parameters},
            "budget": {"maxTrials": trials},
            "trial": {"function": "unused:unused"},
        }
    )


def _open(function: Function, spec: StudySpec, seed: int) -> tuple[optuna.Study, SearchSpace]:
    assert spec.sampler is not None
    seeded = spec.model_copy(update={"sampler": Algorithm(name=spec.sampler.name, options={"seed": seed})})
    space = read_space(seeded)
    assert space is not None
    sampler = build_sampler(seeded, space)
    return optuna.create_study(directions=["minimize"] * function.objectives, sampler=sampler), space


@functools.cache  # auto takes one of the others
def _distance(name: str, backend: str, sampler: str, seed: int, trials: int) -> float:
    function = FUNCTIONS[name]
    study, space = _open(function, _study(function, backend, sampler, trials), seed)
    points = []
    for _ in range(trials):
        trial = study.ask()
        value = function.evaluate(space.suggest(trial))
        study.tell(trial, value)
        points.append(value if isinstance(value, tuple) else (value,))
    if function.objectives == 1:
        return min(point[0] for point in points) - function.optimum
    directions: list[Direction] = ["minimize"] * function.objectives
    front = tuple(points[index] for index in pareto_front(points, directions))
    volume = hypervolume(front, REFERENCE, directions)
    assert volume is not None
    return function.optimum - volume


def _ask_seconds(function: Function, label: str, trials: int) -> list[float]:
    """Of three asks, or as many as fit."""
    study, space = _open(function, _study(function, *SAMPLERS[label], trials), 0)
    sampler, study.sampler = study.sampler, optuna.samplers.RandomSampler(seed=0)
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, function.evaluate(space.suggest(trial)))
    study.sampler = sampler
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < SPENT:
        start = time.perf_counter()
        trial = study.ask()
        point = space.suggest(trial)
        seconds.append(time.perf_counter() - start)
        study.tell(trial, function.evaluate(point))
    return seconds


if __name__ == "__main__":
    main()
