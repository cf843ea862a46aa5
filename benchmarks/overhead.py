"""python -m benchmarks.overhead [--trials N] [--repetitions N]: what a trial costs beside its training.

A trial that computes one number, by ``optuna.Study.optimize`` in process and by worker groups of three shapes, each
with processes of its own for every trial and with some that live for many (``isolation: inline``), on SQLite and on
PostgreSQL. A time is that from the start of a trial to the start of the next. With several ranks it includes their
process group (gloo) and one all-reduce. Also: how long ``hpstudy --help`` takes.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna

from benchmarks.objectives import parabola
from benchmarks.stored import read
from benchmarks.tables import print_table, save
from hpstudy.api.names import STORAGE_URL_VARIABLE
from hpstudy.api.study import API_VERSION, KIND
from tests.support.postgres import postgres
from tests.support.processes import ServerError, coordinator_port

REPOSITORY = Path(__file__).parents[1]
STUDY = "overhead"
SHAPES = {
    "worker group, 1 process": (1, 1, "process"),
    "worker group, 1 process, inline": (1, 1, "inline"),
    "worker group, 2 processes": (1, 2, "process"),
    "worker group, 2 processes, inline": (1, 2, "inline"),
    "worker group, 2 pods x 2 processes": (2, 2, "process"),
    "worker group, 2 pods x 2 processes, inline": (2, 2, "inline"),
}
"""Pods, processes in each, and ``workers.isolation``."""
HELP_RUNS = 11
TIMEOUT = 300.0  # seconds for a study, which takes ten to thirty: a trial that hangs is an error and not a time


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="a study's")
    parser.add_argument("--repetitions", type=int, default=2)
    options = parser.parse_args(arguments)
    results: dict[str, dict[str, list[float]]] = {}
    for database, open_database in (("SQLite", _sqlite), ("PostgreSQL", _postgres)):
        try:
            with open_database() as new_url:
                results[database] = _measure(new_url, options.trials, options.repetitions)
        except ServerError as error:
            print(f"\n{database} is left out: {error}")
            continue
        print_table(f"One trivial trial, {database}", results[database])
    calls = [_seconds([sys.executable, "-m", "hpstudy.cli.main", "--help"]) for _ in range(HELP_RUNS)]
    print_table("Command line", {"hpstudy --help": calls})
    save("overhead", {"seconds": results, "help": calls})


def _measure(new_url: Callable[[], str], trials: int, repetitions: int) -> dict[str, list[float]]:
    cycles: dict[str, list[float]] = {"optuna.Study.optimize": [], **{shape: [] for shape in SHAPES}}
    for _ in range(repetitions):
        url = new_url()
        _optimize(url, trials)
        cycles["optuna.Study.optimize"] += read(url, STUDY).cycles
        for shape, (nodes, processes, isolation) in SHAPES.items():
            url = new_url()
            _run_group(url, trials, nodes, processes, isolation)
            cycles[shape] += read(url, STUDY).cycles
    return cycles


def _optimize(url: str, trials: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(storage=storage, study_name=STUDY, sampler=optuna.samplers.RandomSampler())
    study.optimize(lambda trial: parabola(trial.suggest_float("x", 0, 1)), n_trials=trials)
    storage.engine.dispose()


def _run_group(url: str, trials: int, nodes: int, processes: int, isolation: str) -> None:
    """What the pods of a group run, on this machine."""
    manifest = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": STUDY},
        "spec": {
            "objectives": [{"metric": "value", "direction": "minimize"}],
            "sampler": {"name": "RandomSampler"},
            "searchSpace": {"parameters": {"x": {"type": "float", "low": 0, "high": 1}}},
            "budget": {"maxTrials": trials},
            "trial": {"function": "benchmarks.objectives:trivial"},
            "workers": {"nodes": nodes, "processesPerNode": processes, "isolation": isolation},
        },
    }
    with tempfile.TemporaryDirectory(prefix="hpstudy-bench-") as folder:
        study, log = Path(folder, "study.json"), Path(folder, "workers.log")
        study.write_text(json.dumps(manifest))
        command = [sys.executable, "-m", "hpstudy.cli.main", "worker", "--study", str(study)]
        command += ["--folder", str(REPOSITORY), "--output", folder, "--coordinator", f"127.0.0.1:{coordinator_port()}"]
        environment = {**os.environ, STORAGE_URL_VARIABLE: url, "HPSTUDY_TERMINATION_LOG": f"{folder}/refusal.json"}
        with log.open("ab") as out:
            pods = [
                subprocess.Popen(
                    command, stdout=out, stderr=out, env={**environment, "JOB_COMPLETION_INDEX": str(index)}
                )
                for index in range(nodes)
            ]
        try:
            codes = [pod.wait(TIMEOUT) for pod in pods]
        finally:
            for pod in pods:
                pod.kill()
        if any(codes):
            raise RuntimeError(f"a worker failed:\n{log.read_text(errors='replace')[-4000:]}")


@contextlib.contextmanager
def _sqlite() -> Iterator[Callable[[], str]]:
    with tempfile.TemporaryDirectory(prefix="hpstudy-bench-") as folder:
        names = iter(range(sys.maxsize))
        yield lambda: f"sqlite:///{folder}/{next(names)}.db"


@contextlib.contextmanager
def _postgres() -> Iterator[Callable[[], str]]:
    with postgres() as server:
        names = iter(range(sys.maxsize))
        yield lambda: server.create_database(f"bench{next(names)}")


def _seconds(command: Sequence[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
