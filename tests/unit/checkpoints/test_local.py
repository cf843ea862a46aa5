"""What is removed from nodes' own disks, and what is another node's."""

from pathlib import Path

import pytest

from hpstudy.checkpoints.local import live_folder, remove_leftovers, remove_local, remove_of_trainer


def filled(output: Path, *nodes: int) -> Path:
    """The folder of trial 3, with checkpoints of the Trainer and live folders of the nodes."""
    trial = output / "trials" / "3"
    for name in ("checkpoint-10", "checkpoint-20"):
        (trial / name).mkdir(parents=True)
    for node in nodes:
        live_folder(trial, node).mkdir()
    return trial


def names(trial: Path) -> set[str]:
    return {path.name for path in trial.iterdir()}


@pytest.mark.parametrize("node", [0, 1])
def test_each_node_frees_a_disk_of_its_own(tmp_path: Path, node: int) -> None:
    trial = filled(tmp_path, node)
    remove_of_trainer(trial, node, but="checkpoint-20")
    assert names(trial) == {"checkpoint-20", live_folder(trial, node).name}
    remove_local(tmp_path, 3, node, stored=True)
    assert names(trial) == set()
    filled(tmp_path, node)
    remove_leftovers(tmp_path, node, stored=True)
    assert names(trial) == set()


def test_a_node_leaves_a_shared_disk_to_the_first(tmp_path: Path) -> None:
    trial = filled(tmp_path, 0, 1)
    before = names(trial)
    remove_of_trainer(trial, 1)
    assert names(trial) == before
    remove_local(tmp_path, 3, 1, stored=True)
    assert names(trial) == before - {live_folder(trial, 1).name}
    remove_local(tmp_path, 3, 0, stored=True)
    assert names(trial) == set()


def test_what_no_store_has_stays(tmp_path: Path) -> None:
    trial = filled(tmp_path, 0)
    remove_local(tmp_path, 3, 0, stored=False)
    assert names(trial) == {"checkpoint-10", "checkpoint-20"}
