"""python -m benchmarks.quickstart [--repetitions N]: the quickstart study against the Trainer's own search.

``hpstudy run`` of examples/reviews.yaml, one trial at a time (for several see packing.py), and a bare
``Trainer.hyperparameter_search(backend="optuna")`` in turns: data, split, model, tokenizer, search space, sampler, seed
and storage (SQLite) are the same, and neither prunes. Both train in as many threads as they choose by themselves;
OMP_NUM_THREADS and OMP_WAIT_POLICY reach both.

The suggested values are the same as long as the sampler does not look at results: TPESampler for its first ten trials.
The scores differ a little nevertheless: the Trainer's search seeds each trial with the seed of the one before it, and
takes the last evaluation of a trial where a study takes the best one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bare_search import STUDY_NAME
from benchmarks.reviews import MANIFEST, REPOSITORY, read_reviews, run_command
from benchmarks.stored import Recorded, read
from benchmarks.tables import print_table, save
from hpstudy.api.load import read_manifest

HPSTUDY, BARE = "hpstudy run", "Trainer.hyperparameter_search"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2)
    repetitions = parser.parse_args(arguments).repetitions
    name = read_manifest(MANIFEST).metadata.name
    totals: dict[str, list[float]] = {HPSTUDY: [], BARE: []}
    runs: dict[str, list[Recorded]] = {HPSTUDY: [], BARE: []}
    for repetition in range(repetitions):
        with tempfile.TemporaryDirectory(prefix="hpstudy-bench-") as folder:
            manifest = read_reviews()
            manifest["spec"]["workers"] = {"trialsPerPod": 1}
            run, ours = run_command(manifest, folder)
            theirs = f"sqlite:///{folder}/bare.db"
            bare = [sys.executable, "-m", "benchmarks.bare_search", str(MANIFEST), theirs]
            sides = [(HPSTUDY, run, ours, name), (BARE, bare, theirs, STUDY_NAME)]
            # In turns, and the first one in turns: a machine that grows busier meets both.
            for side, command, url, study in sides if repetition % 2 == 0 else reversed(sides):
                started = time.monotonic()
                _run(command, Path(folder, f"{study}.log"))
                totals[side].append(time.monotonic() - started)
                runs[side].append(read(url, study))
                print(f"  {side}: {totals[side][-1]:.1f} s, best eval_f1 {max(runs[side][-1].values):.4f}", flush=True)
    _show(totals, runs)


def _show(totals: dict[str, list[float]], runs: dict[str, list[Recorded]]) -> None:
    trials = {side: [seconds for run in runs[side] for seconds in run.trials] for side in runs}
    cycles = {side: [seconds for run in runs[side] for seconds in run.cycles] for side in runs}
    best = {side: [max(run.values) for run in runs[side]] for side in runs}
    same = all(run.params == runs[HPSTUDY][0].params for side in runs for run in runs[side])
    print_table("Quickstart study, in all, imports and data included", totals, digits=1)
    print_table("One trial, from its start to its end", trials)
    print_table("One trial, from its start to the start of the next", cycles)
    print_table("Best eval_f1 of ten trials", best, unit="macro F1", digits=4)
    ours, theirs = (statistics.median(sum(run.cycles) for run in runs[side]) for side in (HPSTUDY, BARE))
    print(f"\nThe first nine cycles together: {ours:.1f} s and {theirs:.1f} s, {ours / theirs:.2f} times")
    print(f"Suggested values the same in all runs, trial by trial: {'yes' if same else 'NO'}")
    results = {side: {"total": totals[side], "trial": trials[side], "cycle": cycles[side], "best_eval_f1": best[side]}
               for side in runs}  # fmt: skip
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    save("quickstart", {"seconds": results, "same_parameters": same, "environment": threads})


def _run(command: Sequence[str], log: Path) -> None:
    with log.open("ab") as out:
        done = subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text(errors='replace')[-4000:]}")


if __name__ == "__main__":
    main()
