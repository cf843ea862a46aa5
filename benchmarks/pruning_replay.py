"""python -m benchmarks.pruning_replay [--draws N] [--curves FILE]: settings of pruners, each on the same many searches.

One search of 24 trials says little about a pruner: its first trial meets no other, and what comes after depends on it.
So the trials of benchmarks.pruning are trained once, 96 of them with random parameters, every one to its end, and their
learning curves are then drawn 24 at a time and shown to each pruner in turn, epoch by epoch, as a search would: a few
hundred searches take minutes. Random search, not TPE: a curve that is known cannot be proposed. The trials are trained
two side by side on one process each, with the batches of two ranks.
"""

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from benchmarks.pruning import EPOCHS, read_manifest, run_trials
from benchmarks.tables import save

Pruner = dict[str, Any]


def _asha(min_resource: int, reduction_factor: int) -> Pruner:
    options = {"min_resource": min_resource, "reduction_factor": reduction_factor}
    return {"name": "SuccessiveHalvingPruner", "options": options}


def _hyperband(min_resource: int, reduction_factor: int) -> Pruner:
    options = {"min_resource": min_resource, "max_resource": EPOCHS, "reduction_factor": reduction_factor}
    return {"name": "HyperbandPruner", "options": options}


PRUNERS: dict[str, Pruner] = {
    **{f"ASHA {first}, {factor}": _asha(first, factor) for first in (1, 2, 3, 4) for factor in (2, 3, 4)},
    **{f"Hyperband {first}, {factor}": _hyperband(first, factor) for first in (1, 2) for factor in (2, 3, 4)},
    "MedianPruner 5, 2": {"name": "MedianPruner", "options": {"n_startup_trials": 5, "n_warmup_steps": 2}},
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--known", type=int, default=96, help="trials that are trained, to draw from")
    parser.add_argument("--curves", type=Path, help="results/pruning-replay.json of an earlier run: train none")
    options = parser.parse_args(arguments)
    curves = json.loads(options.curves.read_text())["curves"] if options.curves else _train(options.known)
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    results: dict[str, list[tuple[int, float]]] = {name: [] for name in PRUNERS}
    best: list[float] = []
    for seed in range(options.draws):
        drawn = random.Random(seed).sample(curves, options.trials)
        best.append(max(map(max, drawn)))
        for name, pruner in PRUNERS.items():
            results[name].append(_search(drawn, pruner, f"draw-{seed}"))

    full = options.trials * EPOCHS
    print(f"\nBest eval_f1 without a pruner: {statistics.mean(best):.4f}, deviation {statistics.stdev(best):.4f}")
    print(f"{options.draws} draws; epochs of {full}, and how much lower the best is; MIN_RESOURCE, REDUCTION_FACTOR")
    for name, runs in results.items():
        epochs = [used / full for used, _ in runs]
        lower = sorted(highest - found for highest, (_, found) in zip(best, runs, strict=True))
        mean, median, most = statistics.mean(lower), statistics.median(lower), lower[len(lower) * 9 // 10]
        share = f"{statistics.mean(epochs):4.0%} (at most {max(epochs):.0%})"
        print(f"  {name:18} {share}  lower by {mean:.4f}, median {median:.4f}, 9 of 10 at most {most:.4f}")
    save("pruning-replay", {"trials": options.trials, "results": results, "best": best, "curves": curves})


def _train(known: int) -> list[list[float]]:
    """eval_f1 after each epoch, of trials with random parameters."""
    manifest = read_manifest(None, 0, known, processes=1)
    spec = manifest["spec"]
    spec["sampler"]["name"] = "RandomSampler"
    batches = spec["searchSpace"]["parameters"]["per_device_train_batch_size"]
    batches["choices"] = [2 * size for size in batches["choices"]]
    spec["workers"]["trialsPerPod"] = 2
    trials = [trial for trial in run_trials(manifest) if trial.state == TrialState.COMPLETE]
    return [[value for _, value in sorted(trial.intermediate_values.items())] for trial in trials]


def _search(curves: Sequence[Sequence[float]], pruner: Pruner, name: str) -> tuple[int, float]:
    """Epochs that are trained, and the best value of those trials that come to their end, after which none is pruned.

    Args:
        name: of the study; Hyperband draws the brackets of its trials from it.
    """
    made = getattr(optuna.pruners, pruner["name"])(**pruner["options"])
    study = optuna.create_study(direction="maximize", pruner=made, study_name=name)
    epochs = 0
    for curve in curves:
        trial = study.ask()
        for epoch, value in enumerate(curve, 1):
            epochs += 1
            trial.report(value, epoch)
            if epoch < len(curve) and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, max(curve))
    return epochs, study.best_value


if __name__ == "__main__":
    main()
