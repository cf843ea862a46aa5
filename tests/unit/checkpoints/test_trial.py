"""What becomes of the folder in which a function keeps its state."""

from pathlib import Path

import pytest

from hpstudy.checkpoints.folders import FolderStore
from hpstudy.checkpoints.store import BEST, LAST
from hpstudy.training.trial import Trial
from tests.support.builders import spec


@pytest.mark.parametrize(
    "name", ["model.pt", "latest/model.pt", "global_step10/weights", "optimizer.pt", "scheduler.pt"]
)
def test_all_that_is_in_it_at_the_end_is_the_best_checkpoint(tmp_path: Path, name: str) -> None:
    """Under whatever name: only files of the Trainer's are known to be of use for training alone."""
    store = FolderStore(tmp_path / "store")
    trial = Trial(3, {}, spec().objectives, tmp_path / "output", open_store=lambda: store)
    path = trial.checkpoint_dir / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("weights")
    trial.report(0.5, 1)
    trial.checkpoints.publish_last(trial.checkpoint_dir)
    trial.end(pruned=False)
    for label in (BEST, LAST):
        assert store.fetch(3, label, tmp_path / label)
        assert (tmp_path / label / name).read_text() == "weights"
    assert [each.name for each in (tmp_path / BEST).iterdir()] == [name.partition("/")[0]], "and nothing of ours"
