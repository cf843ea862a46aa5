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


def remove_local(output: Path, number: int, node: int, *, stored: bool) -> None:
    """Remove the live folder of a trial that has ended, however it did, from this node.

    Args:
        stored: the study's store has what counts, so that the Trainer's own checkpoints go, too.
    """
    _remove(trial_folder(output, number), node, stored)


def remove_leftovers(output: Path, node: int, *, stored: bool) -> None:
    """The same for all trials, when a worker starts: its predecessor was killed."""
    for trial in (output / "trials").glob("*"):
        _remove(trial, node, stored)


def remove_of_trainer(trial: Path, node: int, *, but: str = "") -> None:
    """Remove the Trainer's own checkpoints from this node's disk. (It does so itself on rank zero's node alone, while
    ranks that shard fill the others'.)

    Args:
        but: name of one that stays.
    """
    if node > 0 and live_folder(trial, 0).exists():  # they are node 0's: one machine, or one disk
        return
    for folder in trial.glob("checkpoint-[0-9]*"):
        if folder.name != but:
            shutil.rmtree(folder, ignore_errors=True)


def _remove(trial: Path, node: int, stored: bool) -> None:
    shutil.rmtree(live_folder(trial, node), ignore_errors=True)
    if stored:
        remove_of_trainer(trial, node)
