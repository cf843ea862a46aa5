"""What each rank of a trial runs, in a process of its own forked from the warm parent."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import torch

from hpstudy.api.study import Objective
from hpstudy.training.form import Form
from hpstudy.training.trial import Trial
from hpstudy.trials.channel import connect
from hpstudy.trials.messages import Answer, Begin, DeviceMemory, Progress, Report, Result, Run, receive, send
from hpstudy.worker.share import take_share

_PROGRESS_INTERVAL = 0.2  # seconds; a display needs no more, and a step may take a millisecond


class DriverLink:
    """Rank zero's line to the driver: a socket of this process alone, made after the fork."""

    def __init__(self, number: int, address: str, key: bytes) -> None:
        self._connection = connect(address, key)
        send(self._connection, Begin(number=number))
        self._shown = 0.0

    def report(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Record metrics and wait for the answer."""
        send(self._connection, Report(step=step, metrics=dict(metrics)))
        answer = receive(self._connection)
        assert isinstance(answer, Answer)
        return answer.prune

    def progress(self, share: float) -> None:
        """Show the progress, not too often."""
        now = time.monotonic()
        if now - self._shown >= _PROGRESS_INTERVAL:
            self._shown = now
            send(self._connection, Progress(share=share))

    def result(self, metrics: Mapping[str, Any], *, pruned: bool) -> None:
        """Say how the trial ended."""
        send(self._connection, Result(metrics=dict(metrics), pruned=pruned, memory=_device_memory()))


def run_rank(form: Form, run: Run, objectives: tuple[Objective, ...], folder: Path, address: str, key: bytes) -> None:
    """Train the trial on this rank.

    What it raises ends the trial's attempt on every rank; torch's launcher records it and ends the other ranks.
    """
    take_share(run, processes=int(os.environ["LOCAL_WORLD_SIZE"]))
    link = DriverLink(run.number, address, key) if os.environ["RANK"] == "0" else None
    output_dir = folder / "trials" / str(run.number)
    trial = Trial(run.number, run.parameters, objectives, output_dir, link, continues=run.continues)
    trial.output_dir.mkdir(parents=True, exist_ok=True)
    try:
        metrics, pruned = form.run(trial), False
    except optuna.TrialPruned:
        metrics, pruned = {}, True
    if link is not None:
        link.result(metrics, pruned=pruned)
    if torch.distributed.is_initialized():
        # Together, or a rank that is done early closes the store under one that still trains.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _device_memory() -> DeviceMemory | None:
    """Of the GPU of this rank, where it was used."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()
    return DeviceMemory(peak=torch.cuda.max_memory_reserved(), beside=max(0, beside), total=total)
