"""Worker groups for tests: real supervisors, drivers and gloo ranks, each pod a process on this host."""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna

from hpstudy.api.names import REVISION_VARIABLE
from hpstudy.api.study import Study
from hpstudy.storage.opening import open_storage
from hpstudy.worker.supervisor import Worker
from tests.support import cuda
from tests.support.builders import study
from tests.support.forkserver import PROCESSES
from tests.support.processes import coordinator_port
from tests.support.sharding import deepspeed_found, shard_on_cpus

HERE = Path(__file__).parent

OWN_FOLDERS = "TEST_OWN_FOLDERS"
"""In a group's environment: each node has an output folder of its own."""
CPUS_SHARD = "TEST_CPUS_SHARD"
"""In a group's environment: FSDP and DeepSpeed take effect on its CPUs."""
FINDS_DEEPSPEED = "TEST_FINDS_DEEPSPEED"
"""In a group's environment: the same on its GPUs, of DeepSpeed at least, which is not where other groups look."""


def _pod(
    given: Study,
    url: str,
    home: Path,
    output: Path,
    node: int,
    coordinator: str,
    environment: Mapping[str, str],
    index: int,
    control_group: Path | None,
    gpus: int | None,
) -> None:
    os.setsid()
    os.environ.update(environment)
    if CPUS_SHARD in environment:
        shard_on_cpus()
    if cuda.VARIABLE in environment:
        cuda.pretend_gpus(int(environment[cuda.VARIABLE]))
    tempfile.tempdir = None  # what the fork server found may not be this environment's
    if cuda.WITHOUT_NVML in environment:
        cuda.lose_nvml()
    if control_group is not None:
        (control_group / "cgroup.procs").write_text(str(os.getpid()))
    os.environ["TEST_FOLDER"] = str(output)
    os.environ["HPSTUDY_TERMINATION_LOG"] = str(output / f"refusal-{node}")
    # As on machines of their own, where no node sees another's files.
    output = output / f"node-{node}" if OWN_FOLDERS in environment else output
    where: dict[str, Any] = {"folder": home, "output": output, "group": index, "node": node, "coordinator": coordinator}
    worker = Worker(given, "study", url, **where, revision=environment.get(REVISION_VARIABLE, ""), gpus=gpus)
    raise SystemExit(worker.run())


class Group:
    """The pods of one group, over a SQLite file where no other storage is given, all in a Linux control group where one
    is, and told of as many GPUs: those of a command's program, say, which torch does not see. Those of the
    machine it sees where it is to train on them."""

    def __init__(
        self,
        folder: Path,
        function: str,
        *,
        nodes: int = 1,
        processes: int = 1,
        workers: Mapping[str, Any] | None = None,
        module: str = "trials_of_tests",
        home: Path = HERE,
        environment: Mapping[str, str] | None = None,
        url: str = "",
        index: int = 0,
        control_group: Path | None = None,
        gpus: int | None = None,
        on_gpus: bool = False,
        **spec: Any,
    ) -> None:
        shape = {"nodes": nodes, "processesPerNode": processes, **(workers or {})}
        fields: dict[str, Any] = {"trial": {"function": f"{module}:{function}"}, "workers": shape} | spec
        self.study = study(**fields)
        self.folder = folder
        self._home = home
        self._environment = dict(environment or {})
        if not on_gpus and cuda.VARIABLE not in self._environment:
            self._environment.setdefault("CUDA_VISIBLE_DEVICES", "")  # more ranks than the machine has GPUs
        self.url = url or f"sqlite:///{folder / 'study.db'}"
        self._index = index
        self._control_group = control_group
        self._gpus = gpus
        self._coordinator = f"127.0.0.1:{coordinator_port()}" if nodes > 1 else ""
        self.pods: dict[int, BaseProcess] = {}
        for node in range(nodes):
            self.start(node)

    def start(self, node: int) -> None:
        """Start a pod, or its replacement."""
        where = (self.study, self.url, self._home, self.folder)
        how = (node, self._coordinator, self._environment, self._index, self._control_group, self._gpus)
        if {CPUS_SHARD, FINDS_DEEPSPEED} & self._environment.keys():
            with deepspeed_found():
                pod: BaseProcess = get_context("spawn").Process(target=_pod, args=(*where, *how))
                pod.start()
        else:
            pod = PROCESSES.Process(target=_pod, args=(*where, *how))
            pod.start()
        self.pods[node] = pod

    def kill(self, node: int) -> None:
        """As when the node goes away: every process of the pod, at once."""
        pod = self.pods[node]
        processes = descendants(pod.pid or 0)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        pod.join(10)
        # One that writes to a disk may take a moment to end, and until then has its ports.
        eventually(lambda: not any(map(alive, processes)), 10)

    def join(self, seconds: float = 120) -> list[int | None]:
        """Wait for the end of all pods; their exit codes."""
        deadline = time.monotonic() + seconds
        for pod in self.pods.values():
            pod.join(max(0.0, deadline - time.monotonic()))
        return [pod.exitcode for pod in self.pods.values()]

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """The trials in the storage."""
        storage = open_storage(self.url)
        try:
            return optuna.load_study(study_name="study", storage=storage).trials
        finally:
            storage.engine.dispose()

    def states(self) -> list[str]:
        """Their states."""
        return [trial.state.name for trial in self.trials()]


@contextlib.contextmanager
def group(folder: Path, function: str, **options: Any) -> Iterator[Group]:
    """A group that leaves no process behind."""
    made = Group(folder, function, **options)
    try:
        yield made
    finally:
        for node, pod in made.pods.items():
            if pod.is_alive():
                made.kill(node)


def descendants(pid: int) -> list[int]:
    """The process and all below it, from /proc."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found = [pid]
    for process in found:
        found += parents.get(process, [])
    return found


def alive(pid: int) -> bool:
    """Whether the process still runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 90) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)
