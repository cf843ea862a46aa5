"""Trials that the workers in the tests of checkpoints import."""

import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hpstudy import Trial, TrialPruned, TrialStopped

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


def obeys(trial: Trial) -> float:
    """Steps until it is told to stop; only then it saves. One that goes on makes three steps more."""
    dist.init_process_group("gloo")
    state = trial.checkpoint_dir / f"state-{trial.rank}"
    first = int(state.read_text()) if state.exists() else 0
    last = first + 3 if first else 10**6
    for step in range(first + 1, last + 1):
        dist.barrier()
        time.sleep(0.05)
        if trial.should_stop():
            state.write_text(str(step))
            raise TrialStopped
        Path(os.environ["TEST_FOLDER"], f"step-{trial.rank}").write_text(str(step))
    return float(last - first)


def obeys_beside_another(trial: Trial) -> float:
    """The second ends once the first has begun to step; the third and later ones run alone."""
    if trial.number != 1:
        return obeys(trial)
    while not Path(os.environ["TEST_FOLDER"], "step-0").exists():
        time.sleep(0.05)
    return 0.0


def ponders(trial: Any) -> dict[str, float]:
    """A proposal that, for the third trial, takes longer than any grace period."""
    parameters = {"x": trial.suggest_float("x", 0, 1)}
    if trial.number == 2:
        Path(os.environ["TEST_FOLDER"], "ponders").touch()
        time.sleep(300)
    return parameters


def asks_once(trial: Trial) -> float:
    """Has saved a step, seems to obey, and then trains on."""
    state = trial.checkpoint_dir / "state"
    if state.exists():
        return float(state.read_text())
    state.write_text("7")
    trial.report(7.0, 1)
    trial.should_stop()
    Path(os.environ["TEST_FOLDER"], "asked").touch()
    time.sleep(120)
    return 0.0


def stops_unasked(trial: Trial) -> float:
    raise TrialStopped
