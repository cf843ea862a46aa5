"""Objective functions of tests in which ranks live for many trials, or must do as well as if they did not."""

import os
import random
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import numpy
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers.utils import enable_tf32

import hpstudy.worker.session
from hpstudy import Trial


def _note(trial: Trial, *facts: object) -> None:
    with Path(os.environ["TEST_FOLDER"], f"rank-{trial.rank}").open("a") as notes:
        notes.write(" ".join(map(str, (os.getpid(), *facts))) + "\n")


def _train(trial: Trial) -> float:
    """A little of everything that a trial draws and makes; the group is left as it is."""
    dist.init_process_group("gloo")
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * (trial.params["x"] + 2))
    for _ in range(3):
        data = torch.rand(8, 4) + random.random() + numpy.random.rand()
        loss = ((model(data) - data.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    total = loss.detach().clone()
    dist.all_reduce(total)
    trial.report(total.item(), 1)
    trial.should_prune()
    return total.item()


def leaves_a_mess(trial: Trial) -> float:
    """Finds the process as the trials before it should have left it, and does not leave it so."""
    assert not dist.is_initialized()
    assert "LEFT" not in os.environ
    assert torch.get_default_dtype() == torch.float32
    assert torch.ones(1).device == torch.device("cpu")
    assert not torch.is_anomaly_enabled()
    assert (torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32) == ("highest", False)
    assert torch.backends.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "none"
    value = _train(trial)
    _note(trial, Path.cwd(), value)
    os.environ["LEFT"] = "behind"
    os.environ.pop("MASTER_ADDR")
    os.chdir("/")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.autograd.set_detect_anomaly(True)
    torch.set_float32_matmul_precision("high")
    enable_tf32(True)
    assert torch.backends.fp32_precision == "tf32"
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    return value


def cannot_be_cleaned_up(trial: Trial) -> float:
    """What the second trial does on its last rank shows when that is undone, as an error of the GPU may."""
    _note(trial)
    value = _train(trial)
    if trial.number == 1 and trial.rank == trial.world_size - 1:
        torch.set_rng_state = _refuse
    return value


def fails_and_cannot_be_cleaned_up(trial: Trial) -> float:
    """Rank zero fails by itself, and no other can undo what it did."""
    _note(trial)
    value = _train(trial)
    if trial.number == 1 and trial.rank == 0:
        raise ValueError("no luck on rank 0")
    if trial.number == 1:
        torch.set_rng_state = _refuse
    return value


def _refuse(*_: object) -> NoReturn:
    raise RuntimeError("this cannot be undone")


def raises_on_the_last_rank(trial: Trial) -> float:
    _note(trial)
    if trial.number == 1 and trial.rank == trial.world_size - 1:
        _train(trial)
        raise ValueError(f"no luck on rank {trial.rank}")
    for _ in range(1 + (trial.number == 1)):
        value = _train(trial) if not dist.is_initialized() else _all_reduce()
    return value


def raises_on_rank_zero_when_the_others_ask_it(trial: Trial) -> float:
    _note(trial)
    if trial.number == 1:
        if trial.rank == 0:
            raise ValueError("no answer")
        trial.should_prune()
    return _train(trial)


def does_not_come(trial: Trial) -> float:
    """One rank fails, another is busy with something else for longer than they wait for it."""
    hpstudy.worker.session._GRACE = timedelta(seconds=1)
    _note(trial)
    if trial.number == 1:
        if trial.rank == 0:
            time.sleep(60)
        raise ValueError(f"alone on rank {trial.rank}")
    return _train(trial)


def killed_on_rank_one(trial: Trial) -> float:
    _note(trial)
    if trial.number == 1 and trial.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return _train(trial)


def slow(trial: Trial) -> float:
    """The second one takes long enough for a test to interfere with."""
    _note(trial)
    _train(trial)
    if trial.number == 1:
        Path(os.environ["TEST_FOLDER"], f"began-{trial.rank}").touch()
        time.sleep(60)
    return trial.params["x"]


def grows(trial: Trial) -> float:
    """Makes as much as a small model does, in a cycle; notes the memory of this process and of its supervisor."""
    kept: list[object] = [torch.rand(100_000)]
    kept.append(kept)
    dist.init_process_group("gloo")
    value = _all_reduce()
    _note(trial, _resident(os.getpid()), _resident(_parent(os.getppid())))
    return value


def draws(trial: Trial) -> float:
    """Seeds nothing itself."""
    return _train(trial)


def _resident(pid: int) -> int:
    """KiB in memory, shared or not: a page that a fork writes to becomes its own without being one more."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _all_reduce() -> float:
    total = torch.ones(1)
    dist.all_reduce(total)
    return total.item()
