"""A trial that ends on one rank ends on all ranks of all nodes, with the cause of the one: real gloo groups."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpstudy.storage import attributes
from tests.ranks.groups import Group, alive, group


def failures(made: Group) -> list[tuple[str, str]]:
    """Class and message of the trials that failed, in their order."""
    attrs = [trial.user_attrs for trial in made.trials() if trial.state.name == "FAIL"]
    return [(found[attributes.FAILURE], found[attributes.MESSAGE]) for found in attrs]


@pytest.mark.parametrize(("nodes", "processes"), [(1, 4), (2, 1), (2, 2)])
def test_whatever_ends_one_rank_ends_the_trial_everywhere(tmp_path: Path, nodes: int, processes: int) -> None:
    """A rank that goes on waiting holds the group up for ten minutes. No trial leaves files in the temporary folder."""
    last = nodes * processes - 1
    budget = {"maxTrials": 2, "maxFailedTrials": 9}
    temporary = tmp_path / "t"
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary)}
    with group(tmp_path, "faulty", nodes=nodes, processes=processes, environment=environment, budget=budget) as made:
        assert made.join(200) == [0] * nodes
        assert made.states() == ["FAIL"] * 9 + ["COMPLETE"] * 2
        found = failures(made)
    assert not [path for path in temporary.iterdir() if not path.name.startswith("torchinductor")]
    allocation = found.pop(6)
    assert found == [
        ("error", f"ValueError: no luck on rank {last}"),
        ("error", "KeyError: 'before the answer'"),
        ("error", f"rank {last} ended with exit code 0, before the trial's end"),
        ("error", f"rank {last} called sys.exit(0)"),
        ("error", "rank 0 was ended by SIGKILL"),
        ("error", f"rank {last} was ended by SIGKILL"),
        (
            "error",
            f"RuntimeError: rank {last} raised TrialPruned, and others train on; raise it where should_prune() is "
            "true, which it is on all ranks at once",
        ),
        ("metric-missing", "metric 'loss' is nan, it must be a finite number"),
    ]
    assert allocation[0] == "oom"
    assert "can't allocate memory: you tried to allocate 1073741824 bytes" in allocation[1]


@pytest.mark.parametrize(
    ("nodes", "workers"),
    [(1, {"trialsPerPod": 2}), (2, {}), (2, {"isolation": "inline"})],
    ids=["beside another", "two nodes", "inline"],
)
def test_a_trial_that_takes_too_long_is_ended_and_no_other_is(
    tmp_path: Path, nodes: int, workers: dict[str, Any]
) -> None:
    budget = {"maxTrials": 2}
    with group(tmp_path, "hangs_at_first", nodes=nodes, workers=workers, trialTimeout="8s", budget=budget) as made:
        assert made.join() == [0] * nodes
        assert made.states() == ["FAIL", "COMPLETE", "COMPLETE"]
        assert failures(made) == [("timeout", "took longer than trialTimeout 8s")]


@pytest.mark.parametrize("workers", [{"trialsPerPod": 2}, {"isolation": "inline"}], ids=["side by side", "inline"])
def test_a_report_that_cannot_be_recorded_ends_its_trial_and_no_other(tmp_path: Path, workers: dict[str, Any]) -> None:
    with group(tmp_path, "reports_nonsense", workers=workers, budget={"maxTrials": 4}) as made:
        assert made.join() == [0]
        assert made.states() == ["COMPLETE", "FAIL", "FAIL"] + ["COMPLETE"] * 3
        on_the_rank, in_the_driver = failures(made)
    assert on_the_rank[0] == in_the_driver[0] == "error", "and neither is tried again"
    assert on_the_rank[1].startswith("ValueError: trial.report: step must be a whole number from 0 to 2147483647")
    assert in_the_driver[1].startswith("its report was refused: OverflowError: ")


def test_what_a_rank_leaves_behind_holds_up_no_other_trial(tmp_path: Path) -> None:
    """Python itself would wait for each of it at its exit."""
    with group(tmp_path, "leaves_something", workers={"trialsPerPod": 4}, budget={"maxTrials": 4}) as made:
        assert made.join() == [0]
        assert made.states() == ["COMPLETE", "FAIL"] + ["COMPLETE"] * 3
        assert failures(made) == [("error", "ValueError: no luck")]
        assert not alive(int((tmp_path / "child").read_text()))


@contextlib.contextmanager
def limited_to(mebibytes: int) -> Iterator[Path]:
    """A control group with a limit of memory, below that of this process, as a container has one."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    paths = {controllers: path.lstrip("/") for _, controllers, path in lines}
    mount, limit = ("memory", "memory.limit_in_bytes") if "memory" in paths else ("", "memory.max")
    made = Path("/sys/fs/cgroup", mount, paths[mount], f"hpstudy-test-{os.getpid()}")
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        if not (made / limit).exists():
            pytest.skip("control groups have no memory controller here")
        (made / limit).write_text(str(mebibytes * 2**20))
        yield made
    finally:
        made.rmdir()


def test_a_rank_that_the_kernel_kills_for_its_memory_is_its_trial_s_own_failure(tmp_path: Path) -> None:
    options = {"workers": {"trialsPerPod": 2}, "budget": {"maxTrials": 3}}
    with (
        limited_to(600) as control_group,
        group(tmp_path, "greedy_at_first", control_group=control_group, **options) as made,
    ):
        assert made.join() == [0]
        assert made.states() == ["FAIL"] + ["COMPLETE"] * 3
        message = "rank 0 was ended by SIGKILL: out of memory, the container may use 0.586 GiB"
        assert failures(made) == [("oom", message)]
