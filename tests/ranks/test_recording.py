"""How a rank ends."""

import multiprocessing
import os
import queue
import threading
from pathlib import Path

import pytest

from hpstudy.worker import recording
from tests.support.forkserver import PROCESSES


def returns() -> None:
    threading.Thread(target=queue.Queue[int]().get, name="prefetching").start()


def raises() -> None:
    returns()
    raise ValueError("no luck")


def _rank(name: str, folder: Path) -> None:
    os.dup2(os.open(folder / "said", os.O_CREAT | os.O_WRONLY), 2)
    os.environ["RANK"] = "3"
    recording._LEAVE_SECONDS = 0.2
    rank = multiprocessing.get_context("fork").Process(
        target=recording.run_recorded, args=(str(folder), globals()[name])
    )
    rank.start()
    rank.join(30)
    (folder / "code").write_text(str(rank.exitcode))
    rank.kill()


@pytest.mark.parametrize(("function", "code"), [("returns", "0"), ("raises", "1")])
def test_a_rank_waits_for_a_thread_so_long_only_and_names_it(tmp_path: Path, function: str, code: str) -> None:
    process = PROCESSES.Process(target=_rank, args=(function, tmp_path))
    process.start()
    process.join()
    assert (tmp_path / "code").read_text() == code
    said = (tmp_path / "said").read_text()
    assert "rank 3 is done, and 0.2 s later still has thread prefetching; it leaves without" in said
    assert (tmp_path / "cause-3.json").exists() is (function == "raises")
