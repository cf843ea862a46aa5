"""The launcher of a trial's ranks."""

import time
from pathlib import Path

from hpstudy.linux import reap_orphans
from hpstudy.trials.causes import Kind
from hpstudy.worker.launcher import Launch, Place
from tests.support.forkserver import PROCESSES


def _kill_at_once(folder: Path) -> None:
    reap_orphans()
    for number in range(5):
        launch = Launch(Place(0, 1, 1, "127.0.0.1", 0), f"trial-{number}", time.sleep, 600)
        launch.kill()
        cause = launch.result()
        assert cause is not None
        assert cause.kind is Kind.SECONDARY
    (folder / "ended").touch()


def test_a_trial_that_is_only_just_launched_can_be_ended(tmp_path: Path) -> None:
    process = PROCESSES.Process(target=_kill_at_once, args=(tmp_path,))
    process.start()
    try:
        process.join(60)
        assert (tmp_path / "ended").exists()
    finally:
        process.kill()
        process.join()
