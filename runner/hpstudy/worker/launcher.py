"""One trial's ranks on one node: torch's elastic launcher in a process of its own, forked from the warm parent.

The launcher holds the rendezvous' store and its threads; a fork of its own for each trial keeps them out of the parent,
which must stay free of both, and whatever a trial leaves behind ends with the launcher's process group.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, MultiprocessContext

from hpstudy.linux import die_with_parent, watch
from hpstudy.storage.attributes import Failure
from hpstudy.trials.causes import Cause, Kind, root_cause
from hpstudy.worker.memory import OomKills
from hpstudy.worker.recording import read_causes, run_recorded
from hpstudy.worker.rendezvous import rendezvous, serving_store

_EXPLAINED = {1, -signal.SIGTERM}
"""Exit codes: it raised and the record says what, torch ended it because another rank had failed."""
_STOP_SECONDS = 5.0
"""After one rank failed the others get SIGTERM, and so long after it SIGKILL."""
_MONITOR_INTERVAL = 0.02  # seconds between looks at the ranks; torch's 0.1 would add as much to every short trial


@dataclass(frozen=True)
class Place:
    """Where this node stands in the group."""

    node: int
    nodes: int
    processes: int
    host: str
    """Where rank zero is, as every node resolves it."""
    port: int
    """Where the ranks meet, on that host; 0, on a single node: any that is free."""


class Launch:
    """The running ranks of a trial on this node."""

    def __init__(self, place: Place, run_id: str, function: Callable[..., None], *args: Any) -> None:
        context = multiprocessing.get_context("fork")
        self._cause, child = context.Pipe(duplex=False)
        self._folder = tempfile.TemporaryDirectory(prefix="hpstudy-ranks-")
        self._kills = OomKills()
        self._killed = False
        entry = partial(function, *args)
        self._process = context.Process(target=_launch, args=(child, place, run_id, self._folder.name, entry))
        self._process.start()
        child.close()
        pid = self._process.pid or 0
        with contextlib.suppress(ProcessLookupError):
            os.setpgid(pid, pid)  # the launcher does so, too: whoever comes first, an early kill() finds the group
        self.sentinel = watch(self._process)
        """Ready to read when the launcher has ended."""

    def kill(self) -> None:
        """End every process of the trial on this node, now."""
        self._killed = True
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)

    def result(self) -> Cause | None:
        """After the end: None when every rank ended well."""
        self._process.join()
        self._sweep()
        if self.sentinel != self._process.sentinel:
            os.close(self.sentinel)
        with self._folder as folder:
            return self._kills.explain(self._told(folder))

    def _told(self, folder: str) -> Cause | None:
        with contextlib.suppress(EOFError):
            if self._cause.poll():  # it has ended; a fork of its that lives on holds the other end open
                text = self._cause.recv_bytes()
                return Cause.model_validate_json(text) if text else None
        # It ended before it could tell; the ranks may have.
        message, kind = f"the launcher of the ranks {_how(self._process.exitcode)}", Kind.KILLED
        if self._killed:
            message, kind = "the ranks were ended", Kind.SECONDARY
        return root_cause([*read_causes(folder), Cause(rank=-1, kind=kind, message=message, at=time.time())])

    def _sweep(self) -> None:
        """Whatever the trial left running (a data loader's workers) ends with it; as their subreaper, reap them."""
        self._kill()
        pid = self._process.pid or 0
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-pid, 0)


def _launch(
    cause: "Connection[bytes, bytes]",
    place: Place,
    run_id: str,
    folder: str,
    entry: Callable[[], None],
) -> None:
    os.setpgid(0, 0)
    tempfile.tempdir = folder  # torch leaves a file there for each rank that failed
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    die_with_parent(signal.SIGKILL)
    # The cause is told once, by the driver. Each of torch's loggers has a level of its own, and for a traceback its
    # formatter imports the compiler: ten seconds, in every fork anew.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with serving_store(place.port) if place.node == 0 else contextlib.nullcontext(place.port) as port:
            handler = rendezvous(place.host, port, run_id, place.node, place.nodes)
            spec = WorkerSpec(
                role="trial",
                local_world_size=place.processes,
                rdzv_handler=handler,
                entrypoint=run_recorded,
                args=(folder, entry),
                max_restarts=0,
                monitor_interval=_MONITOR_INTERVAL,
            )
            agent = _Agent(spec, DefaultLogsSpecs(log_dir=folder), start_method="fork")
            failed = agent.run().is_failed()
            if not failed:
                handler.leave()
    except Exception as error:  # the rendezvous itself failed
        message = f"the ranks could not be started: {type(error).__name__}: {error}"
        # A name that does not resolve, a port that is taken: not the trial's doing, which is run again.
        _send(cause, Cause(rank=-1, kind=Kind.SECONDARY, failure=Failure.LOST, message=message, at=time.time()))
    else:
        _send(cause, root_cause([*read_causes(folder), *agent.left_without_a_word()]) if failed else None)


class _Agent(LocalElasticAgent):
    """Ends all ranks when one has ended, and knows how that was. Ranks that are done wait for the others, so that one
    that is gone while others are there has failed, with exit code 0 too.

    torch would wait for ever for such a one, and half a minute for ranks that do not obey a SIGTERM; it tells the rank
    that it looked at first, which may only have lost its peer.
    """

    _exit_codes: dict[int, int]

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        started: dict[int, Any] = super()._start_workers(worker_group)
        assert isinstance(self._pcontext, MultiprocessContext)
        context = self._pcontext._pc
        assert context is not None
        context.sentinels = {watch(process): index for index, process in enumerate(context.processes)}
        return started

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        assert isinstance(self._pcontext, MultiprocessContext)
        assert self._pcontext._pc is not None
        processes = self._pcontext._pc.processes
        ranks = [worker.global_rank for worker in worker_group.workers]
        ended = {rank: p.exitcode for rank, p in zip(ranks, processes, strict=True) if not p.is_alive()}
        if ended:
            self._exit_codes = ended
            _stop(processes)
            return RunResult(state=WorkerState.FAILED)
        result: RunResult = super()._monitor_workers(worker_group)
        if result.is_failed():  # between the two looks
            self._exit_codes = {rank: failure.exitcode for rank, failure in result.failures.items()}
        return result

    def left_without_a_word(self) -> list[Cause]:
        """Of a group that failed: the ranks that left no record of an exception."""
        found = []
        for rank, code in self._exit_codes.items():
            if code not in _EXPLAINED:
                message = f"rank {rank} {_how(code)}" + (", before the trial's end" if code == 0 else "")
                found.append(Cause(rank=rank, kind=Kind.KILLED, message=message, at=time.time()))
        return found


def _stop(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        process.kill()
        process.join()


def _how(code: int | None) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"


def _send(connection: "Connection[bytes, bytes]", cause: Cause | None) -> None:
    connection.send_bytes(cause.model_dump_json().encode() if cause else b"")
