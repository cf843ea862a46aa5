"""Several trials side by side in one pod: real processes, real SQLite."""

import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import optuna

from hpstudy.storage import attributes
from hpstudy.storage.ends import PodEnd, record_end
from hpstudy.storage.opening import open_storage
from hpstudy.trials.messages import DeviceMemory
from hpstudy.worker.share import gpus_of_slot
from hpstudy.worker.slots import Slots
from tests.ranks.groups import alive, eventually, group

GIB = 2**30


def test_trials_side_by_side_share_the_cpus_and_fail_alone(tmp_path: Path) -> None:
    """The first ends itself as the kernel would when memory is short, while the second runs."""
    with group(tmp_path, "two_side_by_side", workers={"trialsPerPod": 2}, budget={"maxTrials": 3}) as made:
        assert made.join() == [0]
        trials = made.trials()
        assert [trial.state.name for trial in trials] == ["FAIL"] + ["COMPLETE"] * 3
        assert trials[0].user_attrs[attributes.MESSAGE] == "rank 0 was ended by SIGKILL"
        threads = max(1, len(os.sched_getaffinity(0)) // 2)
        assert [trial.user_attrs[attributes.METRICS]["threads"] for trial in trials[1:]] == [threads] * 3


def test_sigterm_hands_all_trials_back_and_a_successor_runs_them(tmp_path: Path) -> None:
    with group(tmp_path, "slow_at_first", processes=2, workers={"trialsPerPod": 3}, budget={"maxTrials": 3}) as made:
        for number in range(3):
            eventually((tmp_path / f"began-{number}-1").exists)
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join() == [143]
        assert made.states() == ["FAIL"] * 3 + ["WAITING"] * 3
        assert not any(alive(int((tmp_path / f"began-{number}-1").read_text())) for number in range(3))
        made.start(0)
        assert made.join() == [0]
        trials = made.trials()
        assert [trial.state.name for trial in trials] == ["FAIL"] * 3 + ["COMPLETE"] * 3
        assert [trial.user_attrs[attributes.FAILURE] for trial in trials[:3]] == ["preempted"] * 3
        assert {trial.params["x"] for trial in trials[3:]} == {trial.params["x"] for trial in trials[:3]}


def test_trials_whose_pod_ran_out_of_memory_run_again_one_at_a_time(tmp_path: Path) -> None:
    """The kernel has ended the whole container, and the operator says so."""
    with group(tmp_path, "keeps_a_diary", workers={"trialsPerPod": 2}, budget={"maxTrials": 4}) as made:
        for number in range(2):
            eventually((tmp_path / f"began-{number}").exists)
        storage = open_storage(made.url)
        end = PodEnd(uid="1", failure=attributes.Failure.OOM, message="OOMKilled", at=datetime.now(UTC))
        record_end(optuna.load_study(study_name="study", storage=storage), 0, end)
        storage.engine.dispose()
        made.kill(0)
        made.start(0)
        assert made.join() == [0]
        trials = made.trials()
        assert [trial.state.name for trial in trials] == ["FAIL"] * 2 + ["COMPLETE"] * 4
        assert {trial.user_attrs[attributes.FAILURE] for trial in trials[:2]} == {"lost"}
        diary = (tmp_path / "diary").read_text().split()
        assert diary[:4] in (["2+", "2-", "3+", "3-"], ["3+", "3-", "2+", "2-"])
        assert set(diary[4:6]) == {"4+", "5+"}, "and then side by side again"


def test_auto_is_one_trial_for_each_rank_s_cpu() -> None:
    assert Slots("auto", processes=2, cpus=9, gpus=0, budget=20).count == 4
    assert Slots("auto", processes=4, cpus=2, gpus=0, budget=20).count == 1
    assert Slots(3, processes=4, cpus=2, gpus=0, budget=20).count == 3
    assert Slots("auto", processes=1, cpus=64, gpus=0, budget=10).count == 3, "the later trials learn from the earlier"


def test_auto_fills_a_gpu_once_a_trial_has_told_its_memory() -> None:
    slots = Slots("auto", processes=1, cpus=64, gpus=2, budget=1000)
    assert slots.count == 2
    slots.note_memory(DeviceMemory(peak=9 * GIB, beside=GIB, total=80 * GIB))
    assert slots.count == 14, "7 of 10 GiB are at most 90 % of 80"
    slots.note_memory(DeviceMemory(peak=2 * GIB, beside=60 * GIB, total=80 * GIB))
    assert slots.count == 14, "the largest counts, and what lies beside is the others' by now"
    slots.note_out_of_memory()
    slots.note_memory(DeviceMemory(peak=2 * GIB, beside=GIB, total=80 * GIB))
    assert slots.count == 7


def test_slots_take_the_gpus_in_turn() -> None:
    gpus = ["4", "5", "6", "7"]
    assert [gpus_of_slot(gpus, slot, 1) for slot in range(5)] == [["4"], ["5"], ["6"], ["7"], ["4"]]
    assert [gpus_of_slot(gpus, slot, 2) for slot in range(3)] == [["4", "5"], ["6", "7"], ["4", "5"]]
