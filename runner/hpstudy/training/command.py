"""The ``command`` form: a program in any language, once per trial on every node."""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna

from hpstudy.api import reasons
from hpstudy.api.command import METRICS_FILE, Command, CommandMetrics
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.names import AGENT_VARIABLE
from hpstudy.api.study import StudySpec
from hpstudy.space.load import read_space
from hpstudy.space.templates import as_texts, check_templates, fill, has_templates, variable
from hpstudy.training.command_agent import Agent, AgentGoneError, Program, Run
from hpstudy.training.command_metrics import JsonLines, MetricsReader, Pattern, Reported, Tail
from hpstudy.training.trial import Trial, TrialStopped

_LOOK_SECONDS = 0.1
"""How often metrics, and other nodes' decisions, are looked for while a program runs."""
_SHARE = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
"""What the rank was given of the machine, and so the program; in a container of its own it has that one's."""
_KILLED = 128 + signal.SIGKILL
_MESSAGE_LINES = 10
_MESSAGE_LIMIT = 1500
"""Characters of output in the message of a failed trial."""


class ProgramError(RuntimeError):
    """The program of a trial failed: how, and what it said last."""


class CommandForm:
    """Runs the program, which gets the hyperparameters as arguments, variables and a file, and reads its metrics."""

    def __init__(self, command: Command, spec: StudySpec, folder: Path) -> None:
        self._command = command
        self._study = spec
        self._folder = folder
        self._own_container = AGENT_VARIABLE in os.environ
        self._agent: Agent

    def prepare(self) -> None:
        """Start the agent that runs the programs, or meet it where the user's container has it.

        Raises:
            InvalidStudyError: there is no such program, or no such folder to run it in; or a template names nothing.
        """
        check_templates(self._command, read_space(self._study))  # a function's space is only known here
        if self._own_container:
            self._agent = Agent.attach(Path(os.environ[AGENT_VARIABLE]))
        else:
            self._agent = Agent.start(self._folder)
        program = self._command.argv[0]
        found = "found" if has_templates(program) else self._agent.find(Program([program], self._command.working_dir))
        if found != "found":
            self._agent.close()
            where = "the worker container" if self._own_container else str(self._folder)
            raise InvalidStudyError(
                reasons.INVALID_COMMAND, f"trial.command: {_complain(found, program, self._command.working_dir, where)}"
            )

    def run(self, trial: Trial) -> Mapping[str, Any]:
        """Run the program to its end; its metrics are the last values that it wrote.

        Raises:
            ProgramError: it failed.
            MetricsError: it wrote what should be metrics and is not.
            MemoryError: it was killed in its container, or the container ended.
            AgentGoneError: so did the shell that ran it, where that is no container.
        """
        paths = _Paths.make(trial, self._command.metrics)
        if self._own_container:  # whose user may be another
            paths.open_to_all()
        program = self._program(trial, paths)
        started = self._agent.run(program)
        try:
            with started as run:
                return _Execution(self._command, trial, paths, run, own_container=self._own_container).follow()
        except AgentGoneError:
            if not self._own_container:
                raise
            # The kernel ends all processes of a container together (memory.oom.group), and hardly anything else does.
            raise MemoryError(
                "the program's container ended while it ran, as it does when it needs more memory than its limit:"
                " resources.limits.memory in workers.template"
            ) from None

    def _program(self, trial: Trial, paths: "_Paths") -> Program:
        parameters = as_texts(trial.params)
        about = {
            "trial.number": str(trial.number),
            "trial.output_dir": str(trial.output_dir),
            "trial.checkpoint_dir": str(paths.checkpoints),
            "trial.metrics": str(paths.metrics),
            "trial.parameters": str(paths.parameters),
            "trial.node_rank": str(trial.rank),
            "trial.nodes": str(trial.world_size),
        }
        values = parameters | about
        share = {} if self._own_container else {name: os.environ[name] for name in _SHARE if name in os.environ}
        argv = [text for text in (fill(each, values) for each in self._command.argv) if text is not None]
        own = {name: text for name, each in self._command.env.items() if (text := fill(each, values)) is not None}
        environment = {variable(name): text for name, text in parameters.items()}
        environment |= {
            "HPSTUDY_TRIAL": str(trial.number),
            "HPSTUDY_OUTPUT_DIR": str(trial.output_dir),
            "HPSTUDY_CHECKPOINT_DIR": str(paths.checkpoints),
            "HPSTUDY_METRICS": str(paths.metrics),
            "HPSTUDY_PARAMETERS": str(paths.parameters),
        }
        return Program(argv, self._command.working_dir, share | environment | _rendezvous(trial) | own, paths.output)


class _Paths:
    """The files of a trial on this node."""

    def __init__(self, trial: Trial, metrics: CommandMetrics) -> None:
        folder = trial.output_dir
        # Nodes whose output is one shared folder must not write one file.
        self.output = folder / ("output.log" if trial.rank == 0 else f"output-{trial.rank}.log")
        self.parameters = folder / "parameters.json"
        self.metrics = folder / (metrics.file or METRICS_FILE)
        self.checkpoints = trial.checkpoint_dir
        self._folder = folder

    @classmethod
    def make(cls, trial: Trial, metrics: CommandMetrics) -> "_Paths":
        """Make them anew: an earlier study may have left some of the same name."""
        paths = cls(trial, metrics)
        paths.metrics.parent.mkdir(parents=True, exist_ok=True)
        paths.output.write_bytes(b"")
        if trial.rank == 0:
            paths.metrics.write_bytes(b"")
        written = paths.parameters.with_suffix(f".{trial.rank}")
        written.write_text(json.dumps(trial.params, indent=2, ensure_ascii=False) + "\n")
        written.replace(paths.parameters)
        return paths

    def open_to_all(self) -> None:
        """Let another user write them."""
        fetched = self.checkpoints.rglob("*")
        for path in (self._folder, self.metrics.parent, self.output, self.metrics, self.checkpoints, *fetched):
            if path.exists():
                path.chmod(0o777 if path.is_dir() else 0o666)


class _Execution:
    """A program that runs: its metrics become reports, a prune ends it."""

    def __init__(self, command: Command, trial: Trial, paths: _Paths, run: Run, *, own_container: bool) -> None:
        self._command = command
        self._trial = trial
        self._paths = paths
        self._run = run
        self._own_container = own_container
        # Of the trial that it continues, which may have been cut off after the last one.
        past = trial.checkpoints.reports
        self._metrics: dict[str, Any] = {name: value for _, metrics in past for name, value in metrics.items()}
        pattern = command.metrics.pattern
        self._tail = Tail(paths.metrics if pattern is None else paths.output)
        before = max((step for step, _ in past), default=0)
        self._reader: MetricsReader = (
            JsonLines(paths.metrics.name, before) if pattern is None else Pattern(pattern, before)
        )

    def follow(self) -> Mapping[str, Any]:
        """Until it ends."""
        if self._trial.checkpoints.active:
            self._trial.is_stopped()  # to ask is to say that the trial will obey, before it has anything to lose
        try:
            while (code := self._run.wait(_LOOK_SECONDS)) is None:
                for reported in self._reported():
                    self._report(reported)
                    if self._trial.is_pruned():
                        break
                if self._trial.is_pruned():
                    self._stop()
                    raise optuna.TrialPruned
                if self._trial.checkpoints.active and self._trial.is_stopped():
                    self._stop()
                    for reported in self._reported():
                        self._report(reported)
                    raise TrialStopped
            if code != 0:
                # A peer that was stopped may have failed this one, before this node looked.
                if self._trial.is_pruned():
                    raise optuna.TrialPruned
                if self._trial.checkpoints.active and self._trial.is_stopped():
                    raise TrialStopped
                how = _describe(self._command.argv[0], code, self._paths.output)
                # Hardly anybody but the kernel, for want of memory, kills a program in a container.
                raise MemoryError(how) if self._own_container and code == _KILLED else ProgramError(how)
            for reported in self._reported(ended=True):
                self._report(reported)
            return self._metrics
        finally:
            self._tail.close()

    def _reported(self, *, ended: bool = False) -> Iterator[Reported]:
        if self._trial.rank != 0:
            return
        for line in self._tail.lines(ended=ended):
            if (reported := self._reader.read(line)) is not None:
                yield reported

    def _report(self, reported: Reported) -> None:
        self._metrics |= reported.metrics
        self._trial.report(reported.metrics, reported.step)

    def _stop(self) -> None:
        """Let it end in order, and then without."""
        deadline = time.monotonic() + self._command.termination_grace_period_seconds
        self._run.signal(signal.SIGTERM)
        while (left := deadline - time.monotonic()) > 0:
            if self._run.wait(left) is not None:
                return
        self._run.signal(signal.SIGKILL)
        while self._run.wait(None) is None:
            pass


def _rendezvous(trial: Trial) -> dict[str, str]:
    """For a program on several nodes: the variables that torch.distributed reads, and torchrun's own."""
    if trial.world_size == 1:
        return {}
    host = os.environ["MASTER_ADDR"]
    port = trial.share(str(_free_port()) if trial.rank == 0 else "")  # MASTER_PORT is our own ranks'
    node, nodes = str(trial.rank), str(trial.world_size)
    plain = {"RANK": node, "LOCAL_RANK": "0", "WORLD_SIZE": nodes, "MASTER_ADDR": host, "MASTER_PORT": port}
    torchrun = {"NNODES": nodes, "NODE_RANK": node, "MASTER_ADDR": host, "MASTER_PORT": port}
    return plain | {f"PET_{name}": value for name, value in torchrun.items()}


def _free_port() -> int:
    """Another program may take it first, which ends the trial as an error of its own."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _complain(found: str, program: str, folder: str, where: str) -> str:
    """Why a program cannot run, as the agent found it, and what to change."""
    place = f"{folder!r} of {where}"
    match found:
        case "no folder":
            return f"there is no folder {place} to run in; correct workingDir"
        case "not executable":
            return f"{program!r} in {place} is not executable; chmod +x it, or name its interpreter first"
        case "beside":
            return f"there is no program {program!r} to run, but a file of that name in {place}; write ./{program}"
    if any(map(str.isspace, program)):
        return f"there is no program {program!r} to run in {place}; argv has each argument as an item of its own"
    return f"there is no program {program!r} to run in {place}; correct argv or workingDir"


def _describe(program: str, code: int, output: Path) -> str:
    """How a program failed, for people: the last lines of its output say why."""
    how = f"ended with exit code {code}"
    if code > 128:  # as shells tell a signal; a program may also choose such a code
        with contextlib.suppress(ValueError):
            how += f" ({signal.Signals(code - 128).name})"
    tail = Tail(output, last=_MESSAGE_LIMIT)
    lines = list(tail.lines(ended=True))[-_MESSAGE_LINES:]
    tail.close()
    said = "\n".join(lines)[-_MESSAGE_LIMIT:]
    return f"{program} {how}" + (f"; its last output:\n{said}" if said else " and no output")
