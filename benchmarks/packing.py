"""python -m benchmarks.packing [--trials N] [--repetitions N]: trials side by side against one after the other.

The quickstart study by ``hpstudy run``, in turns: as many trials at once as there are CPUs, of one thread each
(``trialsPerPod: auto``), and one trial at a time that has all CPUs. TPESampler draws its first ten trials at random in
the order in which they are asked for, so that both train the same trials with the same seeds. A study's time is that
from the start of its first trial to the end of its last; imports and data come before.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.reviews import read_reviews, run_study
from benchmarks.stored import Recorded, read
from benchmarks.tables import print_table, save

STUDY = "packing"
RANDOM_TRIALS = 10
"""After which TPESampler looks at results."""
SIDES = {"side by side, one thread each": "auto", "one at a time, all threads": 1}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=RANDOM_TRIALS, help="a study's")
    parser.add_argument("--repetitions", type=int, default=2)
    options = parser.parse_args(arguments)
    runs: dict[str, list[Recorded]] = {side: [] for side in SIDES}
    for repetition in range(options.repetitions):
        # In turns, and the first one in turns: a machine that grows busier meets both.
        for side in SIDES if repetition % 2 == 0 else reversed(SIDES):
            runs[side].append(_run(options.trials, SIDES[side]))
            print(f"  {side}: {runs[side][-1].seconds:.1f} s", flush=True)
    _show(runs, options.trials)


def _run(trials: int, trials_per_pod: Any) -> Recorded:
    manifest = read_reviews()
    manifest["metadata"]["name"] = STUDY
    spec = manifest["spec"]
    spec["budget"] = {"maxTrials": trials}
    spec["workers"] = {"trialsPerPod": trials_per_pod}
    with tempfile.TemporaryDirectory(prefix="hpstudy-bench-") as folder:
        return read(run_study(manifest, folder), STUDY)


def _show(runs: dict[str, list[Recorded]], trials: int) -> None:
    studies = {side: [run.seconds for run in runs[side]] for side in runs}
    each = {side: [seconds for run in runs[side] for seconds in run.trials] for side in runs}
    print_table(f"A study of {trials} trials, from the first start to the last end", studies, digits=1)
    print_table("One trial, from its start to its end", each, digits=1)
    packed, alone = (statistics.median(studies[side]) for side in SIDES)
    print(f"\nSide by side takes {packed / alone:.2f} of the time: {alone / packed:.2f} times the trials an hour")
    first = next(iter(runs.values()))[0]
    together = [run for side in runs for run in runs[side]]
    same_parameters = all(run.params == first.params for run in together)
    same_values = all(run.values == first.values for run in together)
    print(f"The same parameters, trial by trial: {'yes' if same_parameters else 'NO'}")
    print(f"The same scores, trial by trial: {'yes' if same_values else 'no (sums differ with the number of threads)'}")
    results = {side: {"study": studies[side], "trial": each[side]} for side in runs}
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    save("packing", {"seconds": results, "same_parameters": same_parameters, "environment": threads})


if __name__ == "__main__":
    main()
