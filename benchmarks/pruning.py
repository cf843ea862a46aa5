"""python -m benchmarks.pruning [--seeds N] [--processes N]: what pruning saves of the quickstart task, under DDP.

The task, space and sampler of examples/reviews.yaml on 4,000 rows, every trial for twelve epochs, on two ranks: without
a pruner, with Hyperband, and with ASHA (Optuna's SuccessiveHalvingPruner; Li et al. 2018,
https://arxiv.org/abs/1810.05934), as benchmarks.pruning_replay chooses them from many searches. Epochs are counted, not
seconds, so other work on the machine changes nothing. The spread over seeds is the noise.
"""

import argparse
import tempfile
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from benchmarks.reviews import read_reviews, run_study
from benchmarks.tables import print_table, save
from hpstudy.storage.opening import open_storage

EPOCHS, ROWS = 12, 4000
PRUNERS: dict[str, dict[str, Any] | None] = {
    "no pruner": None,
    "Hyperband": {
        "name": "HyperbandPruner",
        "options": {"min_resource": 1, "max_resource": EPOCHS, "reduction_factor": 4},
    },
    "ASHA": {"name": "SuccessiveHalvingPruner", "options": {"min_resource": 2, "reduction_factor": 2}},
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    epochs: dict[str, list[float]] = {name: [] for name in PRUNERS}
    best: dict[str, list[float]] = {name: [] for name in PRUNERS}
    for seed in range(options.seeds):
        for name, pruner in PRUNERS.items():
            trials = run_trials(read_manifest(pruner, seed, options.trials, options.processes))
            epochs[name].append(float(sum(len(trial.intermediate_values) for trial in trials)))
            best[name].append(max(trial.values[0] for trial in trials if trial.state == TrialState.COMPLETE))
            print(f"  {name}, seed {seed}: {epochs[name][-1]:.0f} epochs, best {best[name][-1]:.4f}", flush=True)
    print_table(f"Epochs of {options.trials} trials, {options.processes} ranks", epochs, unit="epochs", digits=0)
    print_table("Best eval_f1", best, unit="macro F1", digits=4)
    for name in PRUNERS:
        share = [used / full for used, full in zip(epochs[name], epochs["no pruner"], strict=True)]
        print(f"{name}: {min(share):.0%} to {max(share):.0%} of the epochs")
    save("pruning", {"trials": options.trials, "processes": options.processes, "epochs": epochs, "best": best})


def read_manifest(pruner: dict[str, Any] | None, seed: int, trials: int, processes: int) -> dict[str, Any]:
    manifest = read_reviews()
    spec = manifest["spec"]
    spec["sampler"] = {"name": "TPESampler", "options": {"seed": seed}}
    if pruner:
        spec["pruner"] = pruner
    del spec["searchSpace"]["parameters"]["num_train_epochs"]
    spec["budget"] = {"maxTrials": trials}
    transformers = spec["trial"]["transformers"]
    transformers["dataset"] |= {"maxRows": ROWS}
    transformers["arguments"] |= {"num_train_epochs": EPOCHS}
    spec["workers"] = {"processesPerNode": processes, "trialsPerPod": 1}
    return manifest


def run_trials(manifest: dict[str, Any]) -> list[optuna.trial.FrozenTrial]:
    with tempfile.TemporaryDirectory(prefix="hpstudy-bench-") as folder:
        storage = open_storage(run_study(manifest, folder))
        try:
            return optuna.load_study(study_name=manifest["metadata"]["name"], storage=storage).trials
        finally:
            storage.engine.dispose()


if __name__ == "__main__":
    main()
