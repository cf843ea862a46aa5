"""Who runs a command's program: ``command_agent.sh``, a shell script beside the worker or in the user's container.

What the two say to one another is in the script.
"""

import errno
import logging
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hpstudy.api.names import AGENT_SCRIPT
from hpstudy.linux import reap_orphans

_log = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name(AGENT_SCRIPT)
_SERVE_AND_CLEAN = '/bin/sh "$0" "$1"; rm -rf "$1"'
"""Also when the worker was killed."""
_REQUESTS = "requests"
_OURS = "HPSTUDY_"
_PATIENCE = 600.0
"""Seconds for an agent to come back whose container ended: longer than the kubelet's longest back-off, five minutes."""
_LOOK_SECONDS = 0.2
_END_SECONDS = 5.0


class AgentGoneError(RuntimeError):
    """The agent has ended, and with it the program."""


@dataclass(frozen=True)
class Program:
    """A program to run, once."""

    argv: Sequence[str]
    working_dir: str
    env: Mapping[str, str] = field(default_factory=dict)
    output: Path | None = None
    """The file that its output is appended to; it must exist."""


class Agent:
    """The line to an agent. Made before the ranks are forked; each of them may use it. When all of them are gone, the
    agent ends."""

    _process: "subprocess.Popen[bytes] | None" = None

    def __init__(self, folder: Path, requests: int) -> None:
        self._folder = folder
        self._requests = requests

    @classmethod
    def start(cls, folder: Path) -> Self:
        """Start an agent on this machine; programs run below the folder, without our own variables."""
        own = Path(tempfile.mkdtemp(prefix="hpstudy-agent-"))
        install(own)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        # A session of its own: it ends with its worker, not by a signal that is meant for that.
        process = subprocess.Popen(
            ["/bin/sh", "-c", _SERVE_AND_CLEAN, SCRIPT, own],
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            start_new_session=True,
            preexec_fn=reap_orphans,
        )
        agent = cls.attach(own)
        agent._process = process
        return agent

    @classmethod
    def attach(cls, folder: Path) -> Self:
        """Wait for the agent of this folder.

        Raises:
            AgentGoneError: it does not come.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return cls(folder, os.open(folder / _REQUESTS, os.O_WRONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno not in {errno.ENXIO, errno.ENOENT} or time.monotonic() > deadline:
                    raise AgentGoneError(f"there is no agent at {folder}") from error
                time.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """Let it end, when no fork of this process holds it either."""
        os.close(self._requests)

    def find(self, program: Program) -> str:
        """Whether the program could run where it would: ``found``, or else what command_agent.sh says of it."""
        with self._ask(program) as run:
            while (answer := run.answer()) is None:
                run.wait(None)
            return answer

    def run(self, program: Program) -> "Run":
        """Start the program; its end is that of the context.

        Raises:
            AgentGoneError: the agent has ended and does not come back.
        """
        assert program.output is not None
        return self._ask(program)

    def _ask(self, program: Program) -> "Run":
        request = Path(tempfile.mkdtemp(prefix="run-", dir=self._folder))
        try:
            request.chmod(0o755)  # the agent may be another user
            _write(request, program)
            run = Run(request)
        except BaseException:
            shutil.rmtree(request, ignore_errors=True)
            raise
        try:
            self._send(f"{request}\n".encode())
        except BaseException:
            run.__exit__()
            raise
        return run

    def _send(self, line: bytes) -> None:
        # A container is started again by the kubelet; an agent of our own has nobody who would.
        deadline = time.monotonic() + (_PATIENCE if self._process is None else 0)
        while True:
            with suppress(BrokenPipeError):
                os.write(self._requests, line)  # shorter than a pipe's atomic write
                return
            if time.monotonic() > deadline:
                raise AgentGoneError("the shell that runs the programs has ended, and is not started again")
            time.sleep(_LOOK_SECONDS)


class Run:
    """A program that the agent was asked to run. Leaving the context kills what is left of it."""

    def __init__(self, request: Path) -> None:
        self._request = request
        for name in ("answers", "signals"):
            os.mkfifo(request / name)
            (request / name).chmod(0o666)
        self._answers = os.open(request / "answers", os.O_RDONLY | os.O_NONBLOCK)
        self._signals = os.open(request / "signals", os.O_RDWR)  # for writing alone it would wait for its reader
        self._said = b""
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._signals)  # which kills it, if it still runs
        with suppress(AgentGoneError):
            self.wait(_END_SECONDS)  # or it might be started from half of what is removed now
        os.close(self._answers)
        shutil.rmtree(self._request, ignore_errors=True)

    def wait(self, seconds: float | None) -> int | None:
        """Wait so long at most for the program's end; its exit code, as a shell tells it: 128 and more for a signal.

        Raises:
            AgentGoneError: the agent has ended.
        """
        if not self._said:
            self._poll.poll(None if seconds is None else seconds * 1000)
        answer = self.answer()
        return None if answer is None or not answer.startswith("ended ") else int(answer.split()[1])

    def answer(self) -> str | None:
        """What the agent has said, if anything.

        Raises:
            AgentGoneError: it has ended.
        """
        while not self._said.endswith(b"\n"):
            try:
                heard = os.read(self._answers, 4096)
            except BlockingIOError:
                return None
            if not heard:
                if self._poll.poll(0):  # hung up, and not only not yet there
                    raise AgentGoneError("the shell that runs the programs ended while this one ran")
                return None
            self._said += heard
        return self._said.decode().strip()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program and all its children."""
        os.write(self._signals, f"{number.name.removeprefix('SIG')}\n".encode())


def install(folder: Path) -> None:
    """Make a folder into an agent's, with the script in it for a container that has nothing of ours."""
    script = folder / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())
    script.chmod(0o755)
    fifo = folder / _REQUESTS
    if not fifo.exists():
        os.mkfifo(fifo)
    fifo.chmod(0o666)


def _write(request: Path, program: Program) -> None:
    """A value a file, as the script reads them."""
    for name, values in (("argv", enumerate(program.argv)), ("env", program.env.items())):
        (request / name).mkdir(mode=0o755)
        for key, value in values:
            _put(request / name / str(key), value)
    _put(request / "workdir", program.working_dir)
    if program.output is not None:
        _put(request / "output", str(program.output))


def _put(path: Path, value: str) -> None:
    if "\0" in value:
        raise ValueError(f"{value!r:.200} holds a NUL character, which no program can be given")
    path.write_bytes(os.fsencode(value) + b"\n")
    path.chmod(0o644)
