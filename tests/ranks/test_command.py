"""The command form in worker groups: real supervisors, agents and programs, in one pod and in two."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpstudy.storage import attributes
from hpstudy.training.command_agent import SCRIPT, install
from tests.ranks.groups import Group, alive, descendants, eventually, group
from tests.support.processes import REPOSITORY

PROGRAM = [sys.executable, str(Path(__file__).with_name("program_of_tests.py"))]


def commands(folder: Path, what: str, *arguments: str, command: dict[str, Any] | None = None, **options: Any) -> Any:
    trial = {"command": {"argv": [*PROGRAM, what, "{{ x }}", *arguments], **(command or {})}}
    return group(folder, "", trial=trial, **options)


def failure(made: Group, number: int) -> tuple[str, str]:
    found = made.trials()[number].user_attrs
    return found[attributes.FAILURE], found[attributes.MESSAGE]


def test_a_program_on_two_nodes_is_pruned_on_both(tmp_path: Path) -> None:
    """The one on node 1 fails as soon as that on node 0 is stopped: that is no failure of the trial."""
    fields = {
        "initialTrials": [{"x": 0}, {"x": 1}],
        "pruner": {"name": "MedianPruner", "options": {"n_startup_trials": 1}},
        "budget": {"maxTrials": 2},
    }
    with commands(tmp_path, "together", nodes=2, processes=1, **fields) as made:
        assert made.join() == [0, 0]
        complete, pruned = made.trials()
        assert (complete.state.name, complete.value) == ("COMPLETE", 4)
        assert complete.intermediate_values == {1: 1, 2: 2, 3: 3, 4: 4}
        assert (pruned.state.name, pruned.intermediate_values) == ("PRUNED", {1: 2})
        assert not list((tmp_path / "trials" / "0").glob("stopped-*"))
        assert (tmp_path / "trials" / "1" / "stopped-0").exists()


def test_a_program_that_does_not_obey_is_killed_after_its_grace(tmp_path: Path) -> None:
    fields = {
        "initialTrials": [{"x": 0}, {"x": 1}],
        "pruner": {"name": "MedianPruner", "options": {"n_startup_trials": 1}},
        "budget": {"maxTrials": 2},
    }
    with commands(tmp_path, "stubborn", command={"terminationGracePeriodSeconds": 1}, **fields) as made:
        assert made.join() == [0]
        assert made.states() == ["COMPLETE", "PRUNED"]
    assert (tmp_path / "trials" / "1" / "output.log").read_text() == "no\n"


def test_a_program_gets_its_hyperparameters_in_three_ways_and_two_run_side_by_side(tmp_path: Path) -> None:
    space = {
        "x": {"type": "float", "low": -2, "high": 2},
        "optim": {"type": "categorical", "choices": ["plain sgd", None]},
        "momentum": {"type": "float", "low": 0, "high": 1, "when": {"optim": ["plain sgd"]}},
    }
    command = {
        "metrics": {"pattern": r"(?P<name>\w+)=(?P<value>[-+.\de]+)"},
        "workingDir": "..",
        "env": {"MY_TRIAL": "trial {{ trial.number }}", "MY_MOMENTUM": "{{ momentum }}"},
    }
    fields: dict[str, Any] = {
        "searchSpace": {"parameters": space},
        "initialTrials": [{"x": 0.5, "optim": "plain sgd", "momentum": 1e-7}, {"x": 1, "optim": None}],
        "workers": {"trialsPerPod": 2},
        "budget": {"maxTrials": 2},
    }
    arguments = ["--optim={{ optim }}", "--momentum={{ momentum }}", "{{ trial.output_dir }}/a", "$HOME *"]
    with commands(tmp_path, "shows", *arguments, command=command, **fields) as made:
        assert made.join() == [0]
        assert [trial.value for trial in made.trials()] == [0.5, 1]
        assert made.trials()[0].user_attrs[attributes.METRICS] == {"loss": 0.5, "f1": 0.5}
        assert made.trials()[0].intermediate_values == {1: 1.5, 2: 0.5}
    folders = [tmp_path / "trials" / str(number) for number in (0, 1)]
    first, second = (json.loads((folder / "given.json").read_text()) for folder in folders)
    assert first["argv"] == ["--optim=plain sgd", "--momentum=1e-07", f"{folders[0]}/a", "$HOME *"]
    assert second["argv"] == ["--optim=null", f"{folders[1]}/a", "$HOME *"]
    assert first["parameters"] == {"x": 0.5, "optim": "plain sgd", "momentum": 1e-07}
    assert second["parameters"] == {"x": 1, "optim": None}
    assert first["variables"] == {
        "HPSTUDY_TRIAL": "0",
        "HPSTUDY_OUTPUT_DIR": str(folders[0]),
        "HPSTUDY_CHECKPOINT_DIR": str(folders[0] / "checkpoint-of-node-0"),
        "HPSTUDY_METRICS": str(folders[0] / "metrics.jsonl"),
        "HPSTUDY_PARAMETERS": str(folders[0] / "parameters.json"),
        "HPSTUDY_PARAM_X": "0.5",
        "HPSTUDY_PARAM_OPTIM": "plain sgd",
        "HPSTUDY_PARAM_MOMENTUM": "1e-07",
        "MY_TRIAL": "trial 0",
        "MY_MOMENTUM": "1e-07",
    }, "and neither the storage's URL nor anything else of ours"
    assert "MY_MOMENTUM" not in second["variables"]
    assert first["distributed"] == []
    assert first["folder"] == str(Path(__file__).parents[1])
    assert (folders[0] / "output.log").read_text() == "epoch 1: loss=1.5 f1=0.5\nepoch 2: loss=0.5\n"


def test_a_program_that_fails_on_one_node_ends_on_all_with_its_last_words(tmp_path: Path) -> None:
    with commands(tmp_path, "fails_on_the_last_node", nodes=2, budget={"maxFailedTrials": 0}) as made:
        assert made.join() == [0, 0]
        kind, message = failure(made, 0)
        assert kind == "error"
        assert message.startswith(f"ProgramError: {sys.executable} ended with exit code 1; its last output:")
        assert message.endswith("loading\nthere is no disk left")
        assert not any(map(alive, began(tmp_path)))


def began(folder: Path) -> list[int]:
    path = folder / "trials" / "0" / "began"
    eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    return [int(process) for process in path.read_text().split()]


def test_a_worker_that_is_killed_takes_its_programs_along(tmp_path: Path) -> None:
    with commands(tmp_path, "waits", budget={"maxTrials": 1}) as made:
        processes = began(tmp_path)
        os.kill(made.pods[0].pid or 0, signal.SIGKILL)
        eventually(lambda: not any(map(alive, processes)), 10)
        eventually(lambda: made.states()[0] == "FAIL", 10)
        assert failure(made, 0)[0] == "lost"


def test_a_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with commands(tmp_path, "waits", trialTimeout="3s", budget={"maxFailedTrials": 0}) as made:
        assert made.join() == [0]
        assert failure(made, 0)[0] == "timeout"
        assert not any(map(alive, began(tmp_path)))


def test_a_program_goes_on_from_the_checkpoint_of_the_one_that_was_interrupted(tmp_path: Path) -> None:
    fields = {"initialTrials": [{"x": 1}], "checkpoints": {"keep": "best"}, "budget": {"maxTrials": 1}}
    with commands(tmp_path, "resumes", **fields) as made:
        (process, _) = began(tmp_path)
        eventually(lambda: len(made.trials()[0].intermediate_values) == 2)
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join() == [143]
        assert not alive(process)
        assert failure(made, 0)[0] == "preempted"
        made.start(0)
        assert made.join() == [0]
        first, second = made.trials()
        assert first.state.name == "FAIL"
        assert second.intermediate_values == {1: 2, 2: 3, 3: 4, 4: 5}
    assert (tmp_path / "trials" / "1" / "output.log").read_text() == "from step 2\n"


def test_a_program_that_was_interrupted_after_its_last_report_has_its_result(tmp_path: Path) -> None:
    fields = {"initialTrials": [{"x": 1}], "checkpoints": {"keep": "best"}, "budget": {"maxTrials": 1}}
    with commands(tmp_path, "lingers", **fields) as made:
        began(tmp_path)
        eventually(lambda: len(made.trials()[0].intermediate_values) == 2)
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join() == [143]
        made.start(0)
        assert made.join() == [0]
        assert made.states() == ["FAIL", "COMPLETE"]
        second = made.trials()[1]
        assert second.value == 0.5
        assert second.user_attrs[attributes.METRICS] == {"loss": 0.5, "f1": 0.5}


def test_a_program_that_is_told_to_stop_saves_first(tmp_path: Path) -> None:
    fields = {"initialTrials": [{"x": 1}], "checkpoints": {"keep": "best"}, "budget": {"maxTrials": 1}}
    with commands(tmp_path, "saves_when_told", **fields) as made:
        (process, _) = began(tmp_path)
        os.kill(made.pods[0].pid or 0, signal.SIGTERM)
        assert made.join() == [143]
        assert not alive(process)
        assert failure(made, 0) == ("preempted", "the worker was told to stop")
        saved = (tmp_path / "checkpoints" / "study" / "trial-0" / "last" / "step").read_text()
        assert int(saved) >= 5
        made.start(0)
        assert made.join() == [0]
        assert made.trials()[1].value == int(saved)


def test_the_example_runs(tmp_path: Path) -> None:
    """With a shell and awk."""
    example = REPOSITORY / "examples" / "command.yaml"
    command = [sys.executable, "-m", "hpstudy.cli.main", "run", str(example), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 failed" in done.stdout


@pytest.mark.parametrize(
    ("argv", "fields", "complaint"),
    [
        (["nosuch", "{{ x }}"], {}, "there is no program 'nosuch'"),
        (
            ["sh", "{{ y }}"],
            {"searchSpace": {"python": "trials_of_tests:ray_space"}, "backend": "ray"},
            "'y' is no hyperparameter of the search space",
        ),
    ],
)
def test_what_is_not_there_is_refused_before_a_trial(
    tmp_path: Path, argv: list[str], fields: dict[str, Any], complaint: str
) -> None:
    with group(tmp_path, "", trial={"command": {"argv": argv}}, **fields) as made:
        assert made.join() == [2]
        refusal = json.loads((tmp_path / "refusal-0").read_text())
        assert refusal["reason"] == "InvalidCommand"
        assert complaint in refusal["message"]
        assert made.trials() == []


@pytest.fixture
def shared() -> Iterator[Path]:
    """A pod's volume: any user of the pod may write to it."""
    folder = Path(tempfile.mkdtemp(prefix="hpstudy-shared-"))
    folder.chmod(0o777)
    install(folder)
    yield folder
    shutil.rmtree(folder)


def container(shared: Path) -> "subprocess.Popen[bytes]":
    """The user's container: a shell that knows nothing of us, of another user than the worker where it can be."""
    other: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    command = ["/bin/sh", shared / SCRIPT.name, shared]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd="/", env={"PATH": os.environ["PATH"]}, **other)


def test_a_program_in_a_container_of_its_own_and_what_becomes_of_it_when_that_is_killed(shared: Path) -> None:
    program = """
        set > "$HPSTUDY_OUTPUT_DIR/variables"
        echo "{\\"loss\\": $HPSTUDY_PARAM_X}" >> "$HPSTUDY_METRICS"
        if [ "$HPSTUDY_TRIAL" = 0 ]; then echo "$$ $$" > "$HPSTUDY_OUTPUT_DIR/began"; sleep 60; fi
    """
    trial = {"command": {"argv": ["sh", "-c", program]}}
    first = container(shared)
    fields: dict[str, Any] = {"initialTrials": [{"x": 1}, {"x": 0.5}], "budget": {"maxTrials": 1}}
    with group(shared, "", trial=trial, environment={"HPSTUDY_AGENT": str(shared)}, **fields) as made:
        began(shared)
        for process in descendants(first.pid):
            os.kill(process, signal.SIGKILL)
        first.wait()
        eventually(lambda: made.states()[0] == "FAIL")
        kind, message = failure(made, 0)
        assert kind == "oom"
        assert message.startswith("MemoryError: the program's container ended while it ran")
        second = container(shared)
        assert made.join() == [0]
        assert [trial.value for trial in made.trials()] == [None, 0.5]
        assert second.wait(10) == 0
    assert "STORAGE" not in (shared / "trials" / "1" / "variables").read_text()
    assert list(shared.glob("run-*")) == []
