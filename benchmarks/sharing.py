"""python -m benchmarks.sharing [--trials N]: what the trials of a worker group inherit from their warm parent.

The quickstart task with one training step and no pretrained weights: imports, data and tokenizer are all there is. A
trial of a worker group, from its start to the start of the next and with the memory that is its own, against a trial
that does for itself, in a new process, what a pod per trial would do.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml

from benchmarks.reviews import REPOSITORY, read_reviews, run_study
from benchmarks.stored import read
from benchmarks.tables import print_table, save
from hpstudy.storage import attributes

GROUP, ALONE = "in a worker group", "a process that prepares for itself"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--alone", type=int, default=3, help="trials that prepare for themselves")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="hpstudy-bench-") as folder:
        manifest = _manifest(options.trials)
        path = Path(folder, "alone.yaml")
        path.write_text(yaml.safe_dump(manifest))
        alone = [_alone(path) for _ in range(options.alone)]
        url = run_study(manifest, folder)
        cycles = read(url, "sharing").cycles
        trials = optuna.load_study(study_name="sharing", storage=url).trials
    private = [trial.user_attrs[attributes.METRICS]["private_mib"] for trial in trials]
    seconds = {GROUP: cycles, ALONE: [sum(each["seconds"].values()) for each in alone]}
    parts = {f"  {part}": [each["seconds"][part] for each in alone] for part in alone[0]["seconds"]}
    print_table("A trial of one step", seconds | parts)
    memory = {GROUP: private, ALONE: [each["private_mib"] for each in alone]}
    print_table("Memory of its own", memory, unit="MiB", digits=0)
    save("sharing", {"seconds": seconds | parts, "private_mib": memory})


def _manifest(trials: int) -> dict[str, Any]:
    manifest = read_reviews()
    manifest["metadata"]["name"] = "sharing"
    spec = manifest["spec"]
    transformers = spec["trial"]["transformers"]
    transformers["dataset"] |= {"test": 0}
    transformers["arguments"] |= {"max_steps": 1, "eval_strategy": "no"}
    transformers["computeObjective"] = "benchmarks.objectives:with_memory"
    spec["objectives"] = [{"metric": "eval_loss", "direction": "minimize"}]
    spec["searchSpace"] = {"parameters": {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2}}}
    spec["budget"] = {"maxTrials": trials}
    spec["workers"] = {"trialsPerPod": 1}
    return manifest


def _alone(manifest: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.alone", str(manifest)], check=True, capture_output=True, cwd=REPOSITORY
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
