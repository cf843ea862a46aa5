"""Trials whose worker is lost go on from their last checkpoint: real pods, real ranks."""

import json
import os
import random
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hpstudy.api.names import GRACE_VARIABLE
from hpstudy.checkpoints.opening import open_store
from hpstudy.checkpoints.store import BEST, LAST
from hpstudy.storage import attributes
from tests.ranks.checkpointed_trials import STEPS, STOPS_AT, counted
from tests.ranks.groups import OWN_FOLDERS, eventually, group
from tests.ranks.test_worker import failure
from tests.support.s3 import BUCKET, s3_server
from tests.training.forms import TINY_BERT

FUNCTION = {"function": "checkpointed_trials:counts"}


@pytest.mark.parametrize(
    ("how", "nodes", "processes"),
    [("SIGTERM to the pod", 1, 2), ("kill -9 of both pods", 2, 1), ("kill -9 of the supervisor", 1, 1)],
)
def test_a_trial_goes_on_where_its_worker_was_lost(tmp_path: Path, how: str, nodes: int, processes: int) -> None:
    options: dict[str, Any] = {"trial": FUNCTION, "checkpoints": {}, "budget": {"maxTrials": 1}}
    ranks = nodes * processes
    with group(tmp_path, "", nodes=nodes, processes=processes, **options) as made:
        eventually(lambda: all((tmp_path / f"stopped-{rank}").exists() for rank in range(ranks)))
        if how == "SIGTERM to the pod":
            os.kill(made.pods[0].pid or 0, signal.SIGTERM)
            assert made.join() == [143]
        elif nodes == 2:
            made.kill(0)
            made.kill(1)
            made.start(1)
        else:
            os.kill(made.pods[0].pid or 0, signal.SIGKILL)
            made.pods[0].join(10)
        made.start(0)
        assert made.join() == [0] * nodes
        assert made.states() == ["FAIL", "COMPLETE"]
        first, second = made.trials()
        expected = counted(first.params["x"], ranks)
        assert second.params == first.params
        assert second.user_attrs[attributes.CONTINUES] == 0
        assert list(second.intermediate_values.values()) == pytest.approx(expected, rel=1e-6), "the whole curve"
        assert second.value == pytest.approx(expected[-1], rel=1e-6)
        steps = [tuple(map(int, line.split())) for line in (tmp_path / "steps").read_text().splitlines()]
        assert steps == [(0, step) for step in range(1, STOPS_AT + 1)] + [
            (1, step) for step in range(STOPS_AT + 1, STEPS + 1)
        ]
        store = tmp_path / "checkpoints" / "study"
        assert [path.name for path in store.iterdir()] == ["trial-1"]
        assert second.user_attrs[attributes.CHECKPOINT] == str(store / "trial-1" / BEST)
        assert (store / "trial-1" / BEST / "state").read_text().startswith(f"{STEPS} ")
        assert not (store / "trial-1" / LAST).exists()
        assert not list(tmp_path.glob("trials/*/checkpoint-*")), "nodes keep nothing"


def test_nodes_that_share_no_disk_go_on_from_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://{BUCKET}/team"
    options: dict[str, Any] = {"trial": FUNCTION, "checkpoints": {"url": url}, "budget": {"maxTrials": 1}}
    with s3_server() as environment, ExitStack() as stack:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        environment = {OWN_FOLDERS: "yes", **environment}
        made = stack.enter_context(group(tmp_path, "", nodes=2, environment=environment, **options))
        eventually(lambda: all((tmp_path / f"stopped-{rank}").exists() for rank in range(2)))
        for node in range(2):
            made.kill(node)
        for node in range(2):
            made.start(node)
        assert made.join() == [0, 0]
        first, second = made.trials()
        assert (first.user_attrs[attributes.FAILURE], second.user_attrs[attributes.CONTINUES]) == ("lost", 0)
        assert second.value == pytest.approx(counted(first.params["x"], 2)[-1], rel=1e-6)
        assert len((tmp_path / "steps").read_text().splitlines()) == STEPS, "none was made twice"
        store = open_store(made.study.spec, "study", tmp_path)
        assert store is not None
        assert (store.numbers(), store.exists(1, LAST)) == ([1], False)
        assert second.user_attrs[attributes.CHECKPOINT] == store.location(1, BEST)
        assert store.fetch(1, BEST, tmp_path / "best")
        assert (tmp_path / "best" / "state").read_text().startswith(f"{STEPS} ")


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_a_function_that_is_told_to_stop_saves_on_all_ranks_first(tmp_path: Path, isolation: str) -> None:
    options: dict[str, Any] = {
        "trial": {"function": "checkpointed_trials:obeys"},
        "checkpoints": {},
        "budget": {"maxTrials": 1},
        "workers": {"isolation": isolation},
    }
    with group(tmp_path, "", processes=2, **options) as made:
        eventually(lambda: all((tmp_path / f"step-{rank}").exists() for rank in range(2)))
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join() == [143]
        assert failure(made, 0) == ("preempted", "the worker was told to stop")
        folder = tmp_path / "checkpoints" / "study" / "trial-0" / LAST
        saved = [int((folder / f"state-{rank}").read_text()) for rank in range(2)]
        assert saved == [int((tmp_path / f"step-{rank}").read_text()) + 1 for rank in range(2)]
        made.start(0)
        assert made.join() == [0]
        assert made.trials()[1].value == 3


def test_a_pod_that_ponders_over_a_proposal_lets_its_other_trial_save(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "trial": {"function": "checkpointed_trials:obeys_beside_another"},
        "searchSpace": {"python": "checkpointed_trials:ponders"},
        "checkpoints": {},
        "budget": {"maxTrials": 3},
        "workers": {"trialsPerPod": 2},
    }
    with group(tmp_path, "", **options) as made:
        eventually((tmp_path / "ponders").exists)
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join() == [143]
        assert made.states() == ["FAIL", "COMPLETE", "FAIL", "WAITING", "WAITING"]
        assert [failure(made, number)[0] for number in (0, 2)] == ["preempted"] * 2
        saved = tmp_path / "checkpoints" / "study" / "trial-0" / LAST / "state-0"
        assert int(saved.read_text()) == int((tmp_path / "step-0").read_text()) + 1
        made.start(0)
        eventually(lambda: made.states()[4:] == ["COMPLETE"])
        assert made.trials()[4].value == 3, "it went on"


def test_a_trial_that_does_not_come_to_save_is_handed_back_within_the_grace_period(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "trial": {"function": "checkpointed_trials:asks_once"},
        "checkpoints": {},
        "budget": {"maxTrials": 1},
        "environment": {GRACE_VARIABLE: "6"},
    }
    with group(tmp_path, "", **options) as made:
        eventually((tmp_path / "asked").exists)
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join(60) == [143]
        assert failure(made, 0) == ("preempted", "the worker was told to stop")
        made.start(0)
        assert made.join() == [0]
        assert made.trials()[1].value == 7


def test_a_trial_that_stops_unasked_has_failed(tmp_path: Path) -> None:
    trial = {"function": "checkpointed_trials:stops_unasked"}
    with group(tmp_path, "", trial=trial, budget={"maxFailedTrials": 0}) as made:
        assert made.join() == [0]
        message = "RuntimeError: rank 0 raised TrialStopped; raise it where should_stop() is true"
        assert failure(made, 0) == ("error", message)


def trainer_twice(folder: Path, arguments: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Two trials of the same hyperparameters, of which one is to be cut off: the third goes on from it. There is
    dropout, so that each rank's random generator matters."""
    source = random.Random(0)
    weights = {"up": [3, 3, 3, 1, 1, 1], "down": [1, 1, 1, 3, 3, 3]}
    rows = [f"{''.join(source.choices('abcxyz', weights[label], k=10))},{label}" for label in ["up", "down"] * 100]
    (folder / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    transformers = {
        "task": "text-classification",
        "model": {"config": TINY_BERT},
        "dataset": {"csv": str(folder / "reviews.csv"), "maxLength": 12},
        "arguments": {"learning_rate": 3e-3} | arguments,
        **options,
    }
    return {
        "trial": {"transformers": transformers},
        "objectives": [{"metric": "eval_loss", "direction": "minimize"}],
        "searchSpace": {"parameters": {"weight_decay": {"type": "float", "low": 0, "high": 1}}},
        "initialTrials": [{"weight_decay": 0.1}] * 2,
        "checkpoints": {"keep": "all", "url": f"file://{folder}/checkpoints"},
        "budget": {"maxTrials": 2},
    }


def test_a_trainer_on_two_nodes_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    fields = trainer_twice(tmp_path, {"num_train_epochs": 4, "per_device_train_batch_size": 16})
    fields["environment"] = {OWN_FOLDERS: "yes"}
    record = tmp_path / "checkpoints" / "study" / "trial-0" / "last" / ".hpstudy.json"

    def reported() -> int:
        try:
            return len(json.loads(record.read_text())["reports"])
        except OSError:
            return 0

    with group(tmp_path, "", nodes=2, processes=1, **fields) as made:
        eventually(lambda: reported() >= 1, 240)
        made.kill(0)
        made.kill(1)
        before = reported()
        made.start(0)
        made.start(1)
        assert made.join(300) == [0, 0]
        assert made.states() == ["FAIL", "COMPLETE", "COMPLETE"]
        cut_off, whole, went_on = made.trials()
        assert 1 <= before <= len(cut_off.intermediate_values) < 4
        assert went_on.user_attrs[attributes.CONTINUES] == 0
        assert whole.intermediate_values == went_on.intermediate_values
        assert len(went_on.intermediate_values) == 4
        assert whole.value == went_on.value
        assert {f"trial-{n}" for n in (1, 2)} == {path.name for path in record.parents[2].iterdir()}


def steps(folder: Path, rank: int) -> int:
    """How many steps were made at this place among the ranks."""
    try:
        lines = [line.split() for line in (folder / "steps").read_text().splitlines()]
    except OSError:
        return 0
    return [place for place, _ in lines].count(str(rank))


@pytest.mark.parametrize(
    ("isolation", "nodes", "processes", "told"),
    [("process", 1, 2, [0]), ("process", 2, 1, [0]), ("process", 2, 1, [1]), ("inline", 2, 1, [0, 1])],
    ids=["one pod", "the driver's pod alone", "the other node's pod alone", "both pods, inline ranks"],
)
def test_a_trainer_that_is_told_to_stop_does_no_step_twice(
    tmp_path: Path, isolation: str, nodes: int, processes: int, told: list[int]
) -> None:
    """In its second epoch of two; it is evaluated when all is done."""
    arguments = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "eval_strategy": "no"}
    fields = trainer_twice(tmp_path, arguments, computeObjective="counted_steps:loss")
    total, ranks = 2 * 20, nodes * processes
    fields["workers"] = {"isolation": isolation}
    fields["environment"] = {OWN_FOLDERS: "yes"}

    with group(tmp_path, "", nodes=nodes, processes=processes, **fields) as made:
        eventually(lambda: steps(tmp_path, 0) >= 25, 240)
        for node in told:
            os.kill(made.pods[node].pid or 0, signal.SIGTERM)
        for node in told:
            made.pods[node].join(60)
            assert made.pods[node].exitcode == 143
        assert made.states()[0] == "FAIL"
        store = tmp_path / "checkpoints" / "study"
        state = json.loads((store / "trial-0" / "last" / "trainer_state.json").read_text())
        done = state["global_step"]
        assert 25 <= done < total
        for node in told:
            made.start(node)
        assert made.join(300) == [0] * nodes
        assert made.states() == ["FAIL", "COMPLETE", "COMPLETE"]
        _, whole, went_on = made.trials()
        assert went_on.user_attrs[attributes.CONTINUES] == 0
        assert whole.value == went_on.value
        for rank in range(ranks):
            assert steps(tmp_path, rank) == done + total + (total - done), "no step was made twice"


def test_ranks_that_were_lost_after_their_last_step_make_no_other(tmp_path: Path) -> None:
    """In the middle of an epoch, while they evaluate."""
    last = 15
    arguments = {"max_steps": last, "per_device_train_batch_size": 4, "save_strategy": "steps", "eval_strategy": "no"}
    fields = trainer_twice(tmp_path, arguments, computeObjective="counted_steps:loss_of_all_but_the_first")
    with group(tmp_path, "", processes=2, **fields) as made:
        eventually(lambda: all((tmp_path / f"evaluates-{rank}").exists() for rank in range(2)), 240)
        made.kill(0)
        assert [steps(tmp_path, rank) for rank in range(2)] == [last] * 2
        made.start(0)
        assert made.join(300) == [0]
        assert made.states() == ["FAIL", "COMPLETE", "COMPLETE"]
        _, whole, went_on = made.trials()
        assert went_on.user_attrs[attributes.CONTINUES] == 0
        assert [steps(tmp_path, rank) for rank in range(2)] == [2 * last] * 2
        assert whole.value == went_on.value
