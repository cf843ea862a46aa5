"""The command line, as its users run it."""

import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from click.testing import CliRunner
from rich.console import Console

from hpstudy.cli.display import Display
from hpstudy.cli.main import main
from hpstudy.cli.run import _local
from hpstudy.cli.text import format_seconds
from hpstudy.storage import attributes
from hpstudy.storage.opening import open_storage
from hpstudy.storage.reading import StudySnapshot
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.budget import Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import conclude
from tests.support.builders import manifest, spec, study

Start = Callable[..., "subprocess.Popen[str]"]

TRIAL = {"function": "mine:objective"}
CODE = """
import time
def objective(trial):
    trial.report(trial.params["x"], 1)
    time.sleep(60 if trial.number == 1 else 0)
    return trial.params["x"] ** 2
def raises(trial):
    raise RuntimeError("no disk")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def write(folder: Path, **fields: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(manifest("mine", **{"trial": TRIAL, **fields})))
    return path


@pytest.fixture
def hpstudy(folder: Path) -> Iterator[Start]:
    """Starts the command line in the folder; whatever still runs in the end is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "hpstudy.cli.main", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=folder, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()  # its worker goes with it
        process.communicate()


def ended(process: "subprocess.Popen[str]", code: int) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    assert "Traceback" not in out + err
    return out + err


def test_a_study_runs_stops_on_ctrl_c_and_continues(folder: Path, hpstudy: Start) -> None:
    path = write(folder, budget={"maxTrials": 3}, workers={"trialsPerPod": 1})
    first = hpstudy("run", str(path))
    database = folder / "hpstudy-runs/mine/study.db"
    url = f"sqlite:///{database}"

    def running() -> bool:
        storage = open_storage(url)  # plain Optuna's opening may collide with the worker's, both making the tables
        try:
            return len(optuna.load_study(study_name="mine", storage=storage).trials) == 2
        except KeyError:
            return False
        finally:
            storage.engine.dispose()

    deadline = time.monotonic() + 90
    while not (database.exists() and running()):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)  # into the trial's sleep
    first.send_signal(signal.SIGINT)
    said = ended(first, 130)
    assert "Stopped. Run hpstudy run" in said

    said = ended(hpstudy("run", str(path)), 0)
    assert "3 trials, 1 done before" in said
    assert "3 trials complete, 0 pruned, 0 failed, 1 preempted, 0 retried" in said
    assert "Best trial" in said
    plot = folder / "hpstudy-runs/mine/history.png"
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert str(plot) in said

    said = ended(hpstudy("run", str(path)), 0)
    assert "3 trials complete" in said, "a finished study is shown again"


def test_a_study_whose_trials_fail_exits_with_1_and_their_words(folder: Path, hpstudy: Start) -> None:
    path = write(folder, trial={"function": "mine:raises"}, budget={"maxFailedTrials": 0})
    said = ended(hpstudy("run", str(path)), 1)
    assert "RuntimeError: no disk" in said
    assert "MaxFailedTrialsExceeded" in said


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            {"trial": {"function": "mine:absent"}},
            "ImportFailed: trial.function: module 'mine' has no function 'absent'",
        ),
        ({"budget": {"gpuHours": 1}}, "InvalidSpec: budget.gpuHours: the workers have no GPU"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_what_only_the_worker_can_see_exits_with_2_too(
    folder: Path, hpstudy: Start, fields: dict[str, Any], complaint: str
) -> None:
    said = ended(hpstudy("run", str(write(folder, **fields))), 2)
    assert complaint in said


def test_the_limit_that_ended_the_study_is_printed_and_one_that_is_raised_lets_it_go_on(
    folder: Path, hpstudy: Start
) -> None:
    said = ended(hpstudy("run", str(write(folder, budget={"timeout": "1ms"}))), 0)
    assert "Study mine: 20 trials, no longer than 1ms\n" in said
    over = "Ended     the timeout of 1ms since the first trial began was over after 1 of 20 trials (TimeoutReached)\n"
    assert over in said
    objectives = [{"metric": "loss", "direction": "minimize", "goal": 4}]  # at 2 the most that x ** 2 can be
    said = ended(hpstudy("run", str(write(folder, objectives=objectives))), 0)
    assert "Ended     trial 0 reached the goal: loss" in said
    assert "(GoalReached)" in said


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"budget": {"maxTrails": 1}}, "spec.budget.maxTrails: unknown field"),
        ({"sampler": {"name": "TPESamplr"}}, "UnknownSampler: unknown sampler 'TPESamplr': did you mean TPESampler?"),
        ({"sampler": {"name": "TPESampler", "options": {"sed": 1}}}, "InvalidOption: sampler.options.sed"),
        ({"backend": "hyperopt"}, "spec.backend: input should be 'optuna'"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_manifest_that_cannot_run_exits_with_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, fields: dict[str, Any], complaint: str
) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(main, [command, str(write(folder, **fields))])
    assert result.exit_code == 2
    assert complaint in result.output
    assert not (folder / "hpstudy-runs").exists(), "nothing was begun"


def test_a_good_manifest_is_valid(folder: Path) -> None:
    result = CliRunner().invoke(main, ["validate", str(write(folder))])
    assert (result.exit_code, result.output.strip()) == (0, f"{folder / 'study.yaml'} is valid")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("postgresql://user:secret@127.0.0.1:1/none", "StorageUnreachable: storage: connection to server"),
        ("mongodb://user:secret@host", "the storage URL must look like"),
    ],
)
def test_a_storage_that_is_not_there_exits_with_2_and_no_password(
    folder: Path, monkeypatch: pytest.MonkeyPatch, url: str, complaint: str
) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(main, ["run", str(write(folder)), "--storage", url])
    assert result.exit_code == 2
    assert complaint in result.output
    assert "secret" not in result.output


def test_the_storage_comes_from_the_environment_too_whose_passwords_ps_does_not_show(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    environment = {"HPSTUDY_STORAGE_URL": "postgresql://user:secret@127.0.0.1:1/none"}
    for command in ("run", "best"):
        result = CliRunner(env=environment).invoke(main, [command, str(write(folder))])
        assert result.exit_code == 2
        assert "connection to server" in result.output
        assert "secret" not in result.output


def test_a_changed_search_space_is_refused_and_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    output = folder / "hpstudy-runs/mine"
    output.mkdir(parents=True)
    with TrialLoop(spec(), f"sqlite:///{output / 'study.db'}", "mine") as loop:
        loop.next()
    other = {"parameters": {"y": {"type": "float", "low": 0, "high": 1}}}
    result = CliRunner().invoke(main, ["run", str(write(folder, searchSpace=other))])
    assert result.exit_code == 2
    assert "searchSpace changed, and study 'mine' has trials of the old one" in result.output
    assert len(optuna.load_study(study_name="mine", storage="sqlite:///hpstudy-runs/mine/study.db").trials) == 1


def test_a_study_that_is_over_says_why_and_what_it_reached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    fields: dict[str, Any] = {
        "objectives": [
            {"metric": "f1", "direction": "maximize", "reference": 0},
            {"metric": "size", "direction": "minimize", "reference": 40},
        ],
        "scalarize": {"weights": {"f1": 100, "size": 1}},
        "constraints": [{"metric": "size", "max": 30}],
        "stopWhen": {
            "improvement": {"name": "BestValueStagnationEvaluator", "options": {"max_stagnation_trials": 0}},
            "minTrials": 2,
        },
        "sampler": {"name": "RandomSampler"},
        "trial": TRIAL,
    }
    url = f"sqlite:///{folder / 's.db'}"
    for name, more in (("small", {}), ("mine", {"warmStartFrom": [{"study": "small"}]})):
        study = spec(**fields | more)
        with TrialLoop(study, url, name) as loop:
            for f1, size in ((0.5, 10), (0.4, 20), (0.6, 31)):
                if isinstance(assigned := loop.next(), Assignment):
                    loop.tell(assigned, conclude({"f1": f1, "size": size}, study))
            assert isinstance(loop.next(), Verdict)
    path = write(folder, **fields | {"warmStartFrom": [{"study": "small"}]})
    copied: list[bool] = []
    get_trials = optuna.Study.get_trials

    def note(study: optuna.Study, deepcopy: bool = True, states: Any = None) -> list[optuna.trial.FrozenTrial]:
        copied.append(deepcopy)
        return get_trials(study, deepcopy, states)

    monkeypatch.setattr(optuna.Study, "get_trials", note)
    result = CliRunner().invoke(main, ["run", str(path), "--storage", url])
    assert result.exit_code == 0, result.output
    assert copied
    assert not any(copied), "a study may have many trials, and a front many of them"
    for text in (
        "2 trials complete",
        "Learnt    from 2 trials of other studies; left out: 0 values out of bounds, 0 trials",
        "Ended     enough after 2 complete trials: stopWhen",
        "Pareto front, 1 trials, hypervolume 15\n",
        "trial 2: f1 0.5, size 10",
    ):
        assert text in result.output
    assert (folder / "hpstudy-runs" / "mine" / "history.png").stat().st_size > 5000


def test_the_display_knows_the_constraints_and_metrics_by_either_name() -> None:
    given = spec(constraints=[{"metric": "size", "max": 30}])
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    with Display(given, "mine", StudySnapshot(), console) as display:
        for number in range(2):
            display.show({"event": "trial", "number": number, "parameters": {"x": number + 0.5}})
        display.show({"event": "report", "number": 0, "metrics": {"eval_loss": 0.125}})
        shown = render(display)
        for number, (loss, size) in enumerate(((2.0, 30), (1.0, 31))):
            end = {"event": "end", "number": number, "state": "complete", "seconds": 1.0, "values": [loss]}
            display.show({**end, "metrics": {"loss": loss, "eval_size": size}})
        failed = {"event": "end", "state": "failed", "failure": "oom", "seconds": 1.0, "message": "out of memory"}
        display.show({**failed, "number": 2, "again": True})
        display.show({**failed, "number": 3, "again": False})
        after = render(display)
    said = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert "trial   2  oom, runs again  out of memory\n" in said
    assert "trial   3  oom  out of memory\n" in said
    assert re.search(r"trial 0 .* loss 0.125 +x=0.5\ntrial 1 .* x=1.5", shown), "both that run"
    assert "  1.0 s  x=0.5" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "best loss 2 (trial 0)" in after, "trial 1 is better, and beyond the constraint"
    assert "(beyond a constraint)" in console.file.getvalue()  # type: ignore[attr-defined]


def render(display: Display) -> str:
    plain = Console(file=io.StringIO(), width=200)
    plain.print(display._render())
    return str(plain.file.getvalue())  # type: ignore[attr-defined]


def test_a_study_without_a_trial_within_its_constraints_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    fields: dict[str, Any] = {
        "constraints": [{"metric": "size", "max": 30}],
        "budget": {"maxTrials": 1},
        "trial": TRIAL,
    }
    url = f"sqlite:///{folder / 's.db'}"
    study = spec(**fields)
    with TrialLoop(study, url, "mine") as loop:
        assigned = loop.next()
        assert isinstance(assigned, Assignment)
        loop.tell(assigned, conclude({"loss": 1, "size": 31}, study))
    result = CliRunner().invoke(main, ["run", str(write(folder, **fields)), "--storage", url])
    assert "No trial keeps the constraints." in result.output
    assert "Sampler   GPSampler: 1 trial of 1 flat parameter" in result.output


def test_a_checkpoint_that_somebody_removed_is_said_to_be_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    fields: dict[str, Any] = {"budget": {"maxTrials": 1}, "checkpoints": {}, "trial": TRIAL}
    url = f"sqlite:///{folder / 's.db'}"
    given = spec(**fields)
    with TrialLoop(given, url, "mine") as loop:
        assigned = loop.next()
        assert isinstance(assigned, Assignment)
        assigned.trial.set_user_attr(attributes.CHECKPOINT, str(folder / "best"))
        loop.tell(assigned, conclude({"loss": 1}, given))
    (folder / "best").mkdir()
    command = ["run", str(write(folder, **fields)), "--storage", url]
    assert f"checkpoint {folder / 'best'}\n" in CliRunner().invoke(main, command).output
    (folder / "best").rmdir()
    assert f"checkpoint {folder / 'best'}, which is gone\n" in CliRunner().invoke(main, command).output


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "auto"),
        ({"workers": {"nodes": 3}}, "auto"),
        ({"workers": {"trialsPerPod": 1}}, 1),
        ({"workers": {"isolation": "inline"}}, 1),
        ({"trial": {"script": {"path": "a.py"}}}, 1),
    ],
)
def test_a_run_packs_where_the_manifest_leaves_it_open(fields: dict[str, Any], expected: int | str) -> None:
    workers = _local(study(**fields)).spec.workers
    assert (workers.trials_per_pod, workers.nodes) == (expected, 1)


def test_the_examples_are_valid() -> None:
    for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml")):
        assert CliRunner().invoke(main, ["validate", str(path)]).exit_code == 0, path


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, hpstudy.cli.main; print(sorted({'torch', 'optuna', 'pydantic', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(("seconds", "text"), [(8.14, "8.1 s"), (125, "2 min 05 s"), (11520, "3 h 12 min")])
def test_seconds_as_people_say_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_study_is_run_by_one_process_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpstudy.storage.locks import SessionLocks

    monkeypatch.chdir(folder)
    output = folder / "hpstudy-runs/mine"
    output.mkdir(parents=True)
    with SessionLocks(f"sqlite:///{output / 'study.db'}") as locks:
        assert locks.acquire("group:mine:0", wait=False)
        result = CliRunner().invoke(main, ["run", str(write(folder))])
    assert result.exit_code == 2
    assert "another process is running study 'mine'" in result.output
