"""What checkpoints take of a node's own disk while a trial runs."""

import shutil
from pathlib import Path


def trial_folder(output: Path, number: int) -> Path:
    """Folder of a trial's files on a node."""
    return output / "trials" / str(number)


def live_folder(trial: Path, node: int) -> Path:
    """The folder in a trial's folder that the trial writes its checkpoints to. By node: on one machine, nodes share the
    trial's folder."""
    return trial / f"checkpoint-of-node-{node}"


def remove_local(output: Path, number: int, node: int) -> None:
    """Remove the checkpoints of a trial that has ended, however it did, from this node: the store has what counts."""
    _remove(trial_folder(output, number), node)


def remove_leftovers(output: Path, node: int) -> None:
    """The same for all trials, when a worker starts: its predecessor was killed."""
    for trial in (output / "trials").glob("*"):
        _remove(trial, node)


def _remove(trial: Path, node: int) -> None:
    shutil.rmtree(live_folder(trial, node), ignore_errors=True)
    if node == 0:
        for folder in trial.glob("checkpoint-[0-9]*"):  # the Trainer's own
            shutil.rmtree(folder, ignore_errors=True)
