"""Objective functions that the workers in the tests import as trials_of_tests."""

import math
import multiprocessing
import multiprocessing.queues
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import torch
import torch.distributed as dist

from hpstudy import Trial, TrialPruned


def square(trial: Trial) -> float:
    return float(trial.params["x"] ** 2)


def together(trial: Trial) -> float:
    """Every rank adds its part in each epoch; all see the same prunes."""
    dist.init_process_group("gloo")
    for epoch in range(4):
        total = torch.tensor([trial.params["x"]])
        dist.all_reduce(total)
        trial.report({"loss": total.item() + epoch}, epoch)
        if trial.should_prune():
            raise TrialPruned
    return total.item()


def disagrees(trial: Trial) -> dict[str, float]:
    """Each rank has an opinion of its own; the loss is how many act on another than rank zero's."""
    dist.init_process_group("gloo")
    wrong = sum(trial.agree(trial.rank == asked) is not (asked == 0) for asked in range(3))
    total = torch.tensor([float(wrong)])
    dist.all_reduce(total)
    return {"loss": total.item()}


def trades_off(trial: Trial) -> dict[str, float]:
    """Two metrics that pull apart, by the Trainer's names, reported and returned."""
    x = trial.params["x"]
    metrics = {"eval_f1": 1 - (x - 1) ** 2, "eval_size": (x + 1) ** 2}
    for epoch in range(3):
        trial.report(metrics, epoch)
        if trial.should_prune():
            raise TrialPruned
    return metrics


def held(trial: Trial) -> float:
    """Trains until the test lets it go."""
    folder = Path(os.environ["TEST_FOLDER"])
    (folder / f"held-{trial.rank}").touch()
    while not (folder / "go").exists():
        time.sleep(0.1)
    return float(trial.params["x"] ** 2)


def slow(trial: Trial) -> float:
    """Long enough for a test to interfere with; says when it has begun."""
    dist.init_process_group("gloo")
    all_reduced(trial)
    Path(os.environ["TEST_FOLDER"], f"began-{trial.number}-{trial.rank}").write_text(str(os.getpid()))
    if trial.number == 0:
        time.sleep(60)
    return all_reduced(trial)


def without_metric(trial: Trial) -> dict[str, float]:
    return {"accuracy": 0.5, "f1": 0.4}


def text(trial: Trial) -> str:
    return "high"


def leaves_a_child(trial: Trial) -> float:
    """As a helper process that nobody ends."""
    child = subprocess.Popen(["sleep", "60"])
    Path(os.environ["TEST_FOLDER"], f"child-{trial.number}").write_text(str(child.pid))
    return 1.0


def counts_threads(trial: Trial) -> dict[str, float]:
    total = (torch.ones(600, 600) @ torch.ones(600, 600)).sum()
    return {"loss": 0.0, "threads": torch.get_num_threads(), "sum": total}


def all_reduced(trial: Trial) -> float:
    total = torch.tensor([trial.params["x"]])
    dist.all_reduce(total)
    return total.item()


def two_side_by_side(trial: Trial) -> dict[str, float]:
    """The first two wait until both run; then the first kills itself, and the second sees that out."""
    folder = Path(os.environ["TEST_FOLDER"])
    (folder / f"began-{trial.number}").write_text(str(os.getpid()))
    while trial.number < 2 and not (folder / f"began-{1 - trial.number}").exists():
        time.sleep(0.01)
    if trial.number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if trial.number == 1:
        time.sleep(1)
    return {"loss": 0.0, "threads": torch.get_num_threads()}


def slow_at_first(trial: Trial) -> float:
    """The first three take too long."""
    dist.init_process_group("gloo")
    all_reduced(trial)
    Path(os.environ["TEST_FOLDER"], f"began-{trial.number}-{trial.rank}").write_text(str(os.getpid()))
    time.sleep(60 if trial.number < 3 else 0)
    return all_reduced(trial)


def keeps_a_diary(trial: Trial) -> float:
    """The first two never end; of the others, the last two wait for each other."""
    folder = Path(os.environ["TEST_FOLDER"])
    (folder / f"began-{trial.number}").touch()
    if trial.number < 2:
        time.sleep(600)
    with (folder / "diary").open("a") as diary:
        print(f"{trial.number}+", file=diary, flush=True)
        time.sleep(0.5)
        while trial.number > 3 and not all((folder / f"began-{number}").exists() for number in (4, 5)):
            time.sleep(0.01)
        time.sleep(0.5)
        print(f"{trial.number}-", file=diary, flush=True)
    return 1.0


def unlucky(trial: Trial) -> float:
    """The first three runs fail, each in another way."""
    dist.init_process_group("gloo")
    value = all_reduced(trial)
    Path(os.environ["TEST_FOLDER"], f"continues-{trial.number}").write_text(str(trial.continues))
    if trial.number == 0 and trial.rank == 1:
        raise ValueError("no luck")
    if trial.number == 2 and trial.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return float("nan") if trial.number == 1 else value


def faulty(trial: Trial) -> float:
    """Each of the first trials ends on one rank, in a way of its own, while the others wait for what does not come."""
    dist.init_process_group("gloo")
    total = all_reduced(trial)
    is_last = trial.rank == trial.world_size - 1
    if trial.number == 0 and trial.world_size == int(os.environ["LOCAL_WORLD_SIZE"]):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    match trial.number:
        case 0 if is_last:
            raise ValueError(f"no luck on rank {trial.rank}")
        case 1 if trial.rank == 0:
            trial.report(total, 1)
            raise KeyError("before the answer")
        case 1:
            trial.should_prune()
        case 2 if is_last:
            os._exit(0)
        case 2:
            all_reduced(trial)
        case 3 if is_last:
            sys.exit(0)
        case 4 if trial.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        case 5 if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        case 6 if is_last:
            used = psutil.Process().memory_info().vms
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, -1))
            torch.ones(2**28)
        case 7 if is_last:
            raise TrialPruned
        case 8:
            return math.nan
    time.sleep(600 if trial.number < 8 else 0)
    return total


def hangs_at_first(trial: Trial) -> float:
    """The first trial takes no notice of anything."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600 if trial.number == 0 else 0)
    return 1.0


def greedy_at_first(trial: Trial) -> float:
    """The first trial takes a gigabyte."""
    if trial.number == 0:
        torch.ones(2**28)
    return 1.0


def ray_space(trial: None) -> dict[str, dict[str, list[float]]]:
    """A space in the words of another backend than Optuna, which calls it once."""
    return {"x": {"uniform": [0.0, 1.0]}}


def says_where(trial: Trial) -> float:
    """Meets the other ranks, and tells over what."""
    dist.init_process_group("gloo")
    dist.barrier()
    where = " ".join(os.environ[name] for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"))
    Path(os.environ["TEST_FOLDER"], f"interfaces-{dist.get_rank()}").write_text(where)
    return 0.0


def reports_nonsense(trial: Trial) -> float:
    """The second trial reports what the rank refuses, the third gets it past the rank, to the driver."""
    trial.report(1.0, 1)
    if trial.number == 1:
        trial.report(1.0, -1)
    if trial.number == 2:
        assert trial._reporter is not None
        trial._reporter.report(2**70, {"loss": 1.0})
    return 1.0


kept: list["multiprocessing.queues.Queue[bytes]"] = []


def leaves_something(trial: Trial) -> float:
    """What nobody takes care of any more, once the function has returned or raised."""
    forked = multiprocessing.get_context("fork")
    full: queue.Queue[int] = queue.Queue(1)
    full.put(0)
    if trial.number in (0, 1):
        threading.Thread(target=full.put, args=(1,), name="prefetching").start()
    if trial.number == 1:
        raise ValueError("no luck")
    if trial.number == 2:
        child = forked.Process(target=time.sleep, args=(600,))
        child.start()
        Path(os.environ["TEST_FOLDER"], "child").write_text(str(child.pid))
    if trial.number == 3:
        kept.append(forked.Queue())
        kept[0].put(b"x" * 2**20)  # more than its pipe takes
    return 1.0


def leaves_a_daemon(trial: Trial) -> dict[str, float]:
    """Two that no process group has in it any more; the second trial looks for the first one's."""
    folder = Path(os.environ["TEST_FOLDER"])
    pids = [subprocess.Popen(["sleep", "600"], start_new_session=True).pid, os.fork()]
    if pids[1] == 0:
        os.setsid()
        time.sleep(600)
        os._exit(0)
    (folder / f"daemons-{trial.number}").write_text(" ".join(map(str, pids)))
    before = (folder / "daemons-0").read_text().split() if trial.number else []
    return {"loss": float(sum(Path("/proc", pid).exists() for pid in before))}


def fills_its_folder(trial: Trial) -> float:
    """Its second rank is late, and still writes when the first is done."""
    (trial.output_dir / "log").touch()
    time.sleep(0.5 * trial.rank)
    (trial.checkpoint_dir / "weights").write_bytes(b"x" * 1000)
    time.sleep(0.5 * trial.rank)
    (trial.checkpoint_dir / "more weights").write_bytes(b"x" * 1000)
    return 1.0
