"""What each rank of a trial runs, in a process of its own forked from the warm parent."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from hpstudy.api.study import StudySpec
from hpstudy.checkpoints.local import remove_local, trial_folder
from hpstudy.checkpoints.opening import open_store
from hpstudy.checkpoints.store import CheckpointStore
from hpstudy.training.form import Form
from hpstudy.training.isolation import seed_generators
from hpstudy.training.trial import Trial, TrialStopped
from hpstudy.training.values import check_metrics
from hpstudy.trials.causes import Cause
from hpstudy.trials.channel import connect
from hpstudy.trials.messages import (
    Answer,
    Begin,
    DeviceMemory,
    Failed,
    Message,
    Progress,
    Report,
    Result,
    Run,
    Stop,
    Stoppable,
    Stopped,
    receive,
    send,
)
from hpstudy.worker.share import take_share

_PROGRESS_INTERVAL = 0.2  # seconds; a display needs no more, and a step may take a millisecond


class DriverLink:
    """Rank zero's line to the driver: a socket of this process alone, made after the fork."""

    def __init__(self, address: str, key: bytes) -> None:
        self._connection = connect(address, key)
        self._shown = 0.0
        self._stoppable = self._stopping = False

    def begin(self, number: int) -> None:
        """Say whose trial's line this is from here on."""
        self._stoppable = self._stopping = False
        send(self._connection, Begin(number=number))

    def report(self, step: int, metrics: Mapping[str, Any], *, past: bool = False) -> bool:
        """Record metrics and wait for the answer."""
        send(self._connection, Report(step=step, metrics=dict(metrics), past=past))
        answer = self._receive()
        assert isinstance(answer, Answer)
        return answer.prune

    def stopping(self) -> bool:
        """Whether the worker was told to stop. Who asks for the first time says thereby that the trial will obey."""
        if not self._stoppable:
            self._stoppable = True
            send(self._connection, Stoppable())
        if not self._stopping and self._connection.poll():
            assert isinstance(receive(self._connection), Stop)
            self._stopping = True
        return self._stopping

    def stopped(self) -> None:
        """Say that the checkpoint is published."""
        send(self._connection, Stopped())

    def _receive(self) -> Message:
        """The answer; a Stop may come before it."""
        message = receive(self._connection)
        if isinstance(message, Stop):
            self._stopping = True
            message = receive(self._connection)
        return message

    def progress(self, share: float) -> None:
        """Show the progress, not too often."""
        now = time.monotonic()
        if now - self._shown >= _PROGRESS_INTERVAL:
            self._shown = now
            send(self._connection, Progress(share=share))

    def result(self, metrics: Mapping[str, Any], *, pruned: bool, memory: DeviceMemory | None) -> None:
        """Say how the trial ended."""
        send(self._connection, Result(metrics=dict(metrics), pruned=pruned, memory=memory))

    def failed(self, cause: Cause) -> None:
        """Say that the trial failed, and that the ranks live on."""
        send(self._connection, Failed(cause=cause))

    def next(self) -> Run | None:
        """Wait for the next trial of these ranks; None when the driver has hung up."""
        try:
            message = self._receive()
        except (EOFError, OSError):
            return None
        assert isinstance(message, Run)
        return message


@dataclass(frozen=True)
class Setting:
    """What the trials of a worker have in common."""

    spec: StudySpec
    stored_name: str
    output: Path
    """Folder of the trials' files on this node."""

    def open_store(self) -> CheckpointStore:
        """Open the store of checkpoints, of a study that keeps some."""
        store = open_store(self.spec, self.stored_name, self.output)
        assert store is not None
        return store


def run_rank(form: Form, run: Run, setting: Setting, address: str, key: bytes) -> None:
    """Train the trial on this rank.

    What it raises ends the trial's attempt on every rank; torch's launcher records it and ends the other ranks.
    """
    take_share(run, processes=int(os.environ["LOCAL_WORLD_SIZE"]))
    link = DriverLink(address, key) if os.environ["RANK"] == "0" else None
    seed_generators()
    ended = train(form, run, setting, link)
    if link is not None:
        link.result(ended.metrics, pruned=ended.pruned, memory=device_memory())
    if torch.distributed.is_initialized():
        # Together, or a rank that is done early closes the store under one that still trains.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class Ended:
    """A trial that ran to its end on this rank, or obeyed a prune."""

    metrics: Mapping[str, Any]
    pruned: bool = False


def train(form: Form, run: Run, setting: Setting, link: DriverLink | None) -> Ended:
    """Train one trial in this process.

    Args:
        link: rank zero's.
    """
    if link is not None:
        link.begin(run.number)
    spec = setting.spec
    trial = Trial(
        run.number,
        run.parameters,
        spec.objectives,
        trial_folder(setting.output, run.number),
        link,
        continues=run.continues,
        open_store=setting.open_store if spec.checkpoints else None,
        keep=spec.checkpoints.keep if spec.checkpoints else "none",
    )
    trial.output_dir.mkdir(parents=True, exist_ok=True)
    try:
        trial.begin()
        try:
            ended = Ended(form.run(trial))
            check_metrics(ended.metrics)
        except optuna.TrialPruned:
            trial.prune()
            ended = Ended({}, pruned=True)
        except TrialStopped:
            trial.stop()
            if link is not None:
                link.stopped()
            while True:  # until the driver, who knows when all is told, ends all ranks
                time.sleep(3600)
        trial.end(pruned=ended.pruned)
        return ended
    except BaseException:
        trial.give_up()
        raise
    finally:
        if spec.checkpoints is not None and trial.local_rank == 0:
            remove_local(setting.output, run.number, trial.node, stored=True)


def device_memory() -> DeviceMemory | None:
    """Of the GPU of this rank, where it was used."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()
    return DeviceMemory(peak=torch.cuda.max_memory_reserved(), beside=max(0, beside), total=total)
