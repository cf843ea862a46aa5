"""Trials that the workers in the tests of checkpoints import."""

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist

from hpstudy import Trial, TrialPruned

STEPS = 6
STOPS_AT = 4


def counts(trial: Trial) -> float:
    """A walk that depends on every step before; the first trial stops, after its report of step 4, until it is ended.
    Each step that is made leaves a line in a file."""
    dist.init_process_group("gloo")
    state = trial.checkpoint_dir / "state"
    step, value = map(float, state.read_text().split()) if state.exists() else (0.0, trial.params["x"])
    for current in range(int(step) + 1, STEPS + 1):
        total = torch.tensor([value], dtype=torch.float64)  # as the test counts
        dist.all_reduce(total)
        value = 0.5 * total.item() + current
        if trial.rank == 0:
            with Path(os.environ["TEST_FOLDER"], "steps").open("a") as file:
                file.write(f"{trial.number} {current}\n")
        if trial.local_rank == 0:
            state.write_text(f"{current} {value}")
        trial.report(value, current)
        if trial.should_prune():
            raise TrialPruned
        if trial.number == 0 and current == STOPS_AT:
            Path(os.environ["TEST_FOLDER"], f"stopped-{trial.rank}").touch()
            time.sleep(120)
    return value


def counted(x: float, ranks: int) -> list[float]:
    """What an uninterrupted trial reports."""
    values = [x]
    for step in range(1, STEPS + 1):
        values.append(0.5 * values[-1] * ranks + step)
    return values[1:]
