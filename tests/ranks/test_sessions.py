"""``isolation: inline``: ranks that live for many trials."""

import os
import signal
from pathlib import Path

import pytest

from tests.ranks.groups import eventually, group
from tests.ranks.test_worker import failure

INLINE = {"workers": {"isolation": "inline"}, "module": "trials_of_sessions"}


def processes(folder: Path, rank: int = 0) -> list[str]:
    """The processes that trained the trials, in order."""
    return [line.split()[0] for line in (folder / f"rank-{rank}").read_text().splitlines()]


@pytest.mark.parametrize(("nodes", "ranks"), [(1, 1), (1, 2), (2, 2)])
def test_the_ranks_live_on_and_no_trial_finds_what_another_left(tmp_path: Path, nodes: int, ranks: int) -> None:
    with group(tmp_path, "leaves_a_mess", nodes=nodes, processes=ranks, budget={"maxTrials": 4}, **INLINE) as made:
        assert made.join() == [0] * nodes
        assert made.states() == ["COMPLETE"] * 4
        for rank in range(nodes * ranks):
            notes = [line.split() for line in (tmp_path / f"rank-{rank}").read_text().splitlines()]
            assert len(notes) == 4
            assert len({(process, folder) for process, folder, _ in notes}) == 1


@pytest.mark.parametrize("function", ["raises_on_the_last_rank", "raises_on_rank_zero_when_the_others_ask_it"])
def test_a_failed_trial_tells_the_root_cause_and_the_ranks_live_on(tmp_path: Path, function: str) -> None:
    with group(tmp_path, function, nodes=2, processes=2, budget={"maxTrials": 3}, **INLINE) as made:
        assert made.join() == [0, 0]
        assert made.states() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
        message = "no luck on rank 3" if function == "raises_on_the_last_rank" else "no answer"
        assert failure(made, 1) == ("error", f"ValueError: {message}")
        assert len(set(processes(tmp_path))) == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [("does_not_come", "ValueError: alone on rank 1"), ("killed_on_rank_one", "rank 1 was ended by SIGKILL")],
)
def test_ranks_that_are_lost_end_with_the_trial_and_new_ones_train_the_next(
    tmp_path: Path, function: str, message: str
) -> None:
    with group(tmp_path, function, processes=2, budget={"maxTrials": 3}, **INLINE) as made:
        assert made.join() == [0]
        assert made.states() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
        assert failure(made, 1) == ("error", message)
        first, second, third, fourth = processes(tmp_path)
        assert first == second != third == fourth


@pytest.mark.parametrize(
    ("function", "nodes", "ranks", "message"),
    [
        ("cannot_be_cleaned_up", 1, 1, "RuntimeError: this cannot be undone"),
        ("cannot_be_cleaned_up", 1, 2, "RuntimeError: this cannot be undone"),
        ("cannot_be_cleaned_up", 2, 1, "RuntimeError: this cannot be undone"),
        ("fails_and_cannot_be_cleaned_up", 1, 2, "ValueError: no luck on rank 0"),
    ],
)
def test_what_cannot_be_undone_fails_the_trial_that_did_it_and_not_the_next(
    tmp_path: Path, function: str, nodes: int, ranks: int, message: str
) -> None:
    with group(tmp_path, function, nodes=nodes, processes=ranks, budget={"maxTrials": 3}, **INLINE) as made:
        assert made.join() == [0] * nodes
        assert made.states() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
        assert failure(made, 1) == ("error", message)
        first, second, third, fourth = processes(tmp_path)
        assert first == second != third == fourth


def test_sigterm_hands_the_trial_back_and_a_lost_node_ends_it(tmp_path: Path) -> None:
    with group(tmp_path, "slow", nodes=2, budget={"maxTrials": 3}, **INLINE) as made:
        eventually((tmp_path / "began-1").exists)
        made.kill(1)
        eventually(lambda: made.states()[1] == "FAIL")
        assert failure(made, 1) == ("lost", "the pod of node 1 is gone")
        made.start(1)
        eventually(lambda: len(processes(tmp_path)) > 2)
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join(30)[0] == 143
        assert "RUNNING" not in made.states()
