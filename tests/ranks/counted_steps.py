"""Imported by workers whose Trainer's steps a test counts: each step of an optimizer leaves a line in a file, and takes
its time, so that a test can interfere."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook


def _note(*_: Any) -> None:
    with Path(os.environ["TEST_FOLDER"], "steps").open("a") as file:
        file.write(f"{os.environ.get('RANK', '0')} {os.getpid()}\n")
    time.sleep(0.02)


register_optimizer_step_post_hook(_note)


def loss(metrics: Mapping[str, float]) -> float:
    """The objective."""
    return metrics["eval_loss"]


def loss_of_all_but_the_first(metrics: Mapping[str, float]) -> float:
    """The same; the first evaluation takes longer than the worker lives."""
    mark = Path(os.environ["TEST_FOLDER"], f"evaluates-{os.environ.get('RANK', '0')}")
    if not mark.exists():
        mark.touch()
        time.sleep(300)
    return metrics["eval_loss"]


def kept(metrics: Mapping[str, float]) -> float:
    """The same; each evaluation leaves a line that says how many checkpoints the second node has."""
    folder = Path(os.environ["TEST_FOLDER"])
    if os.environ["RANK"] == "1":
        with (folder / "kept").open("a") as file:
            file.write(f"{len(list(folder.glob('node-1/trials/*/checkpoint-[0-9]*')))}\n")
    return metrics["eval_loss"]
