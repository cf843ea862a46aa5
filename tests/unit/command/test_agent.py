"""The agent under the shells that images have, as real processes."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hpstudy.training.command_agent import SCRIPT, Agent, AgentGoneError, Program, install
from tests.ranks.groups import alive, descendants, eventually

# Debian's, Alpine's (and of most small images), and the one of RedHat's images in its POSIX mode.
SHELLS = [shell for shell in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(shell[0])]
EVERY_BYTE = os.fsdecode(bytes(range(1, 256)))
SHOW = "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, [*sys.argv[1:], os.environ['V_1']])))"


def start(folder: Path, shell: list[str], env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
    own = folder / "agent"
    own.mkdir(exist_ok=True)
    install(own)
    # Without a terminal, as in a container.
    return subprocess.Popen(
        [*shell, own / SCRIPT.name, own, *shell], stdin=subprocess.DEVNULL, cwd=folder, env=env, start_new_session=True
    )


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Agent]:
    """An agent under each shell, which ends with its only writer."""
    process = start(tmp_path, request.param)
    made = Agent.attach(tmp_path / "agent")
    yield made
    made.close()
    assert process.wait(10) == 0


def program(folder: Path, *argv: str, working_dir: str = ".", **env: str) -> Program:
    output = folder / "the output.log"
    output.touch()
    return Program(argv, working_dir, env, output)


def run(agent: Agent, given: Program) -> tuple[int | None, str]:
    assert given.output is not None
    with agent.run(given) as made:
        return made.wait(20), os.fsdecode(given.output.read_bytes())


def test_every_value_arrives_as_it_is(agent: Agent, tmp_path: Path) -> None:
    values = ["", EVERY_BYTE, "\n", "a\n\n", " a  b ", "$HOME `id` $(id)", "价格 ü", "-n", "\\", "*", "'\"", "--"]
    code, output = run(agent, program(tmp_path, sys.executable, "-c", SHOW, *values, V_1=EVERY_BYTE + "\n"))
    assert code == 0
    assert output == "|".join([*values, EVERY_BYTE + "\n"])


def test_exit_codes_folders_and_output(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "sub dir").mkdir()
    made = program(tmp_path, "sh", "-c", "pwd; cat; echo err >&2; exit 7", working_dir="sub dir")
    assert run(agent, made) == (7, f"{tmp_path / 'sub dir'}\nerr\n")
    code, output = run(agent, program(tmp_path, "nosuch"))
    assert code == 127
    assert "nosuch" in output
    code, output = run(agent, program(tmp_path, "sh", working_dir="nowhere"))
    assert code not in (0, None)
    assert "nowhere" in output
    assert list((tmp_path / "agent").glob("run-*")) == []


def test_it_knows_which_programs_there_are(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("#!/bin/sh\n")
    assert agent.find(Program(["sh"], ".")) == "found"
    assert agent.find(Program([sys.executable], str(tmp_path))) == "found"
    assert agent.find(Program(["nosuch"], ".")) == "missing"
    assert agent.find(Program(["./nosuch"], ".")) == "missing"
    assert agent.find(Program(["./mine"], ".")) == "not executable"
    assert agent.find(Program(["mine"], ".")) == "beside"
    (tmp_path / "mine").chmod(0o755)
    assert agent.find(Program(["./mine"], ".")) == "found"
    assert agent.find(Program(["sh"], "nowhere")) == "no folder"


def child(folder: Path) -> int:
    """The process that a program says it started."""
    path = folder / "child"
    eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def test_signals_reach_the_program_and_its_children(agent: Agent, tmp_path: Path) -> None:
    obeys = "trap 'echo bye; exit 3' TERM; sleep 60 & echo $! > child; wait"
    with agent.run(given := program(tmp_path, "sh", "-c", obeys)) as made:
        process = child(tmp_path)
        assert made.wait(0.1) is None
        made.signal(signal.SIGTERM)
        assert made.wait(10) == 3
        assert given.output is not None
        assert given.output.read_text() == "bye\n"
        eventually(lambda: not alive(process))
    (tmp_path / "child").unlink()
    stubborn = "trap '' TERM; sleep 60 & echo $! > child; while :; do wait; done"
    with agent.run(program(tmp_path, "sh", "-c", stubborn)) as made:
        process = child(tmp_path)
        made.signal(signal.SIGTERM)
        assert made.wait(0.3) is None
        made.signal(signal.SIGKILL)
        assert made.wait(10) == 128 + signal.SIGKILL
        eventually(lambda: not alive(process))


def test_what_a_program_leaves_running_ends_with_it(agent: Agent, tmp_path: Path) -> None:
    assert run(agent, program(tmp_path, "sh", "-c", "sleep 60 & echo $! > child"))[0] == 0
    eventually(lambda: not alive(child(tmp_path)))


def test_a_program_whose_trial_is_gone_is_killed_while_another_runs_on(agent: Agent, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    with agent.run(program(tmp_path, "sh", "-c", "read x < go; exit 5")) as other:
        with agent.run(program(tmp_path, "sh", "-c", "sleep 60 & echo $! > child; wait")):
            process = child(tmp_path)
        eventually(lambda: not alive(process))
        assert other.wait(0) is None
        (tmp_path / "go").write_text("\n")
        assert other.wait(10) == 5


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_an_agent_that_is_killed_is_noticed_and_its_successor_goes_on(tmp_path: Path, shell: list[str]) -> None:
    """As a container that the kubelet starts again: everything in it has ended."""
    first = start(tmp_path, shell)
    agent = Agent.attach(tmp_path / "agent")
    with agent.run(program(tmp_path, "sh", "-c", "echo $$ > child; sleep 60")) as made:
        running = child(tmp_path)
        for each in descendants(first.pid):  # the program itself last: its end is not to be told
            os.kill(each, signal.SIGKILL)
        eventually(lambda: not alive(running))
        first.wait()
        with pytest.raises(AgentGoneError, match="ended while this one ran"):
            made.wait(10)
    second = start(tmp_path, shell)
    assert run(agent, program(tmp_path, "sh", "-c", "exit 4"))[0] == 4
    agent.close()
    assert second.wait(10) == 0


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_an_image_with_nothing_but_a_shell_will_do(tmp_path: Path, shell: list[str]) -> None:
    """No setsid, no cat, nothing. Where the shell has no job control either, signals reach the program alone."""
    (tmp_path / "bin").mkdir()
    path = shutil.which(shell[0])
    assert path is not None
    (tmp_path / "bin" / shell[0]).symlink_to(path)
    process = start(tmp_path, [path, *shell[1:]], {"PATH": str(tmp_path / "bin")})
    agent = Agent.attach(tmp_path / "agent")
    assert run(agent, program(tmp_path, *shell, "-c", 'echo "$V"; exit 3', V="a\nb")) == (3, "a\nb\n")
    waits = "trap 'echo bye; exit 4' TERM; echo $$ > child; while :; do read line < fifo; done"
    os.mkfifo(tmp_path / "fifo")
    with agent.run(program(tmp_path, *shell, "-c", waits)) as made:
        child(tmp_path)
        made.signal(signal.SIGKILL)
        assert made.wait(10) == 128 + signal.SIGKILL
    agent.close()
    assert process.wait(10) == 0
