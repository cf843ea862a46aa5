"""The container's process: a warm parent of every trial's ranks.

It imports torch and what the trials need once, loads once what they share, and forks them. It keeps to one thread:
after a parallel OpenMP region here, a child that uses several threads hangs for ever. It opens no CUDA and no
database; what it holds is a socket to the driver.
"""

import gc
import json
import logging
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError, get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.exits import EXIT_INVALID, EXIT_PREEMPTED
from hpstudy.api.study import Study
from hpstudy.checkpoints.local import remove_leftovers, remove_local
from hpstudy.checkpoints.opening import import_client
from hpstudy.linux import children, end_children, reap_orphans
from hpstudy.trials.channel import Link, connect, serve_tcp, serve_unix, shared_key
from hpstudy.trials.events import Events
from hpstudy.trials.messages import Abort, Exit, Finished, Hello, Invalid, Prepared, Run, Stopping, receive, send
from hpstudy.worker.cpu import available_cpus
from hpstudy.worker.grace import grace_seconds
from hpstudy.worker.stopping import StopSignal, ToldToStop

_log = logging.getLogger(__name__)

_EXIT_LOST_DRIVER = 1
_GRACE_SHARE = 0.8
"""Of the pod's grace period, for the driver to hand the trials back after SIGTERM."""
_BREAK_OFF = signal.SIGUSR1
"""To the driver, which hears nothing while its sampler proposes: that is of no use any more."""
_CONNECT_TIMEOUT = 5
"""Seconds; then look whether we were told to stop, while the driver waits for a database that is away."""
_DRIVER_GRACE = 5.0  # seconds
_STRANGE_SECONDS = 60.0
"""After which a driver's key is believed to stay another: it may be an earlier study's, whose pod is about to end."""
_TERMINATION_LOG = "/dev/termination-log"
"""Where Kubernetes reads a container's last words; elsewhere the environment names another file."""


@dataclass(frozen=True)
class Worker:
    """One pod's part in a group."""

    study: Study
    stored_name: str
    storage_url: str
    folder: Path
    """Relative paths of the study start here."""
    output: Path
    """Folder of the trials' files."""
    group: int = 0
    node: int = 0
    coordinator: str = ""
    """host:port of node 0, as the other nodes resolve it. There is the driver, and on the next port the ranks meet."""
    gpus: int | None = None
    """That the pod holds; absent: those that torch sees."""
    revision: str = ""
    """Of what the group was made from, where an operator made it."""
    events: Events = Events()  # noqa: RUF009  stateless without a pipe

    def run(self) -> int:
        """Run trials until the study is over; returns the exit code."""
        return _Supervisor(self).run()


class _Supervisor:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._spec = worker.study.spec
        self._key = shared_key(worker.storage_url)
        self._launches: dict[int, Any] = {}
        """The ranks of the trials that run here, by the trial's number."""
        self._driver: Any = None
        self._own: set[int] = set()
        """Children that are no trial's: the driver, a command's agent, what the user's modules started."""

    def run(self) -> int:
        try:
            return self._run()
        except ToldToStop:
            return EXIT_PREEMPTED

    def _run(self) -> int:
        self._told = StopSignal()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its thread pool would not survive a fork
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking whether there is CUDA must not open it
        # Threads of OpenMP that spin while they wait cost several times the work where others want the cores; asleep,
        # they cost a small model a quarter of its speed where nobody does. So: a moment, then asleep (docs/design.md).
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        # torch looks up the name of every address it connects to; a lost answer, common with many lookups at once,
        # would hold a trial for the resolver's five seconds.
        os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:3")
        reap_orphans()  # of a trial
        sys.path.insert(0, str(self._worker.folder))  # the user's modules
        with self._told.preparing():
            import torch

            torch.set_num_threads(1)
            from hpstudy.training.devices import count_gpus
            from hpstudy.training.form import load_form

            count_gpus()  # before anything that is imported asks torch
            self._form = load_form(self._spec, self._worker.folder)
        with tempfile.TemporaryDirectory(prefix="hpstudy-") as runtime:
            self._local = str(Path(runtime, "driver"))
            self._resolved = Path(runtime, "study.json")
            self._address = self._local if self._worker.node == 0 else self._worker.coordinator
            try:
                if self._worker.node == 0:
                    self._start_driver()
                link = self._connect()
                if link is None:
                    return self._end_unconnected()
                try:
                    with self._told.preparing():
                        invalid = self._prepare(link)
                except ToldToStop:
                    with suppress(OSError):
                        send(link, Stopping())
                    link.close()
                    raise
                if invalid is not None:
                    return _refuse(invalid.reason, invalid.message)
                return self._serve(link)
            finally:
                self._end_driver()

    def _prepare(self, link: "Link[bytes, bytes]") -> InvalidStudyError | None:
        from hpstudy.worker.gpus import check_gpus

        started = time.monotonic()
        try:
            if self._spec.checkpoints is not None:
                import_client(self._spec)
            remove_leftovers(self._worker.output, self._worker.node, stored=self._spec.checkpoints is not None)
            self._form.prepare()
            check_gpus(self._spec)  # as the last: what is prepared may have opened CUDA
        except InvalidStudyError as error:
            with suppress(OSError):
                send(link, Invalid(reason=error.reason, message=error.message))
            return error
        if self._spec.workers.nodes * self._prepared().processes > 1:
            import torch._dynamo  # noqa: F401  as DDP does when it is first used, for seconds, in every fork anew
        # What the imports made is never garbage: a collection in a rank would only copy its pages (0.4 s, 120 MB).
        gc.collect()
        gc.freeze()
        self._own = children()
        _log.info("prepared in %.1f s", time.monotonic() - started)
        with suppress(OSError):  # a driver that is gone is noticed when it is next read
            send(link, self._prepared())
        return None

    def _prepared(self) -> Prepared:
        from hpstudy.training.devices import count_gpus

        gpus = count_gpus()
        asked = self._spec.workers.processes_per_node
        self._processes = (gpus or 1) if asked == "auto" else asked  # in a cluster the operator has resolved it
        self._held = gpus if self._worker.gpus is None else self._worker.gpus
        return Prepared(processes=self._processes, cpus=available_cpus(), gpus=gpus, held=self._held)

    def _serve(self, link: "Link[bytes, bytes]") -> int:
        deadline: float | None = None
        while True:
            sources: list[Any] = [link, self._told.reader] if deadline is None else [link]
            sentinels = {launch.sentinel: number for number, launch in self._launches.items()}
            sources += sentinels
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait(sources, timeout)
            if deadline is not None and not ready:
                return self._end(EXIT_PREEMPTED)
            if self._told.reader in ready:
                deadline = time.monotonic() + _GRACE_SHARE * grace_seconds()
                with suppress(OSError):
                    send(link, Stopping())
                if self._driver is not None and self._driver.is_alive():
                    os.kill(self._driver.pid, _BREAK_OFF)
            for sentinel in ready:
                if sentinel in sentinels:
                    self._report_end(link, sentinels[sentinel])
            if link in ready:
                try:
                    message = receive(link)
                except (EOFError, OSError):
                    if deadline is not None:
                        return self._end(EXIT_PREEMPTED)
                    self._end(0)
                    if self._worker.node == 0:
                        return self._end_unconnected()
                    new = self._connect()
                    if new is None:
                        return self._end_unconnected()
                    link = new
                    with suppress(OSError):
                        send(link, self._prepared())
                    continue
                match message:
                    case Run():
                        self._start(message)
                    case Abort(number=number) if number in self._launches:
                        self._launches[number].kill()
                    case Exit(reason=str(reason), message=text):
                        return self._end(_refuse(reason, text))
                    case Exit():
                        return self._end(EXIT_PREEMPTED if deadline is not None else 0)

    def _start(self, run: Run) -> None:
        from hpstudy.worker.launcher import Launch, Place
        from hpstudy.worker.network import choose_interface

        nodes, host, port = self._spec.workers.nodes, "127.0.0.1", 0  # a group of one pod needs no name service
        if nodes > 1:
            host, _, drivers = self._worker.coordinator.rpartition(":")
            port = int(drivers) + 1  # one that all nodes know and that the kernel hands to nobody else
            choose_interface(host)  # now: all nodes have found one another
        place = Place(self._worker.node, nodes, self._processes, host, port)
        function, arguments = self._ranks(run)
        self._launches[run.number] = Launch(place, f"trial-{run.number}", function, *arguments)

    def _ranks(self, run: Run) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """What each rank runs, and its arguments."""
        from hpstudy.search.group import GroupEnvironment
        from hpstudy.training.script import ScriptForm
        from hpstudy.worker.rank import Setting, run_rank
        from hpstudy.worker.script import run_script
        from hpstudy.worker.session import run_session

        worker = self._worker
        if isinstance(self._form, ScriptForm):
            self._resolved.write_text(worker.study.model_dump_json(by_alias=True, exclude_none=True))
            environment = GroupEnvironment(
                study=self._resolved,
                storage_url=worker.storage_url,
                stored_name=worker.stored_name,
                group=worker.group,
                output=worker.output,
                folder=worker.folder,
                driver=self._local,
                events=worker.events.descriptor,
                gpus=self._held * self._spec.workers.nodes,
                revision=worker.revision,
            )
            return run_script, (self._form, run, environment)
        function = run_session if self._spec.workers.isolation == "inline" else run_rank
        setting = Setting(self._spec, worker.stored_name, worker.output)
        return function, (self._form, run, setting, self._local, self._key)

    def _report_end(self, link: "Link[bytes, bytes]", number: int) -> None:
        cause = self._launches.pop(number).result()
        remove_local(self._worker.output, number, self._worker.node, stored=self._spec.checkpoints is not None)
        self._end_strays()
        with suppress(OSError):
            send(link, Finished(number=number, cause=cause))

    def _end(self, code: int) -> int:
        """Leave no rank behind."""
        for launch in self._launches.values():
            launch.kill()
        for launch in self._launches.values():
            launch.result()
        self._launches.clear()
        self._end_strays()
        return code

    def _end_strays(self) -> None:
        """What a trial left running in a session of its own, where no trial's kill reaches it, has become a child of
        this process."""
        if not self._launches and (names := end_children(self._own)):
            _log.warning("ended what a trial left running: %s", ", ".join(names))

    def _connect(self) -> "Link[bytes, bytes] | None":
        """Find the driver, for as long as it takes: pod 0 may start later, or anew. None when told to stop, when this
        pod's own driver has ended, and when the driver's key stays another one: the Secret that it is made from has
        changed, and a new pod reads it anew."""
        strange: float | None = None
        while self._driver is None or self._driver.is_alive():
            try:
                link = connect(self._address, self._key, _CONNECT_TIMEOUT)
                send(link, Hello(node=self._worker.node))
                return link
            except AuthenticationError:
                _log.warning("the worker at %s has another key: is it of this study?", self._address)
                strange = strange or time.monotonic()
                if time.monotonic() > strange + _STRANGE_SECONDS:
                    return None
            except (OSError, EOFError) as error:
                strange = None
                _log.debug("no driver at %s yet: %s", self._address, error)
            # Jittered: the pods of a large group must not all come in the same moment.
            if select.select([self._told.reader], [], [], random.uniform(0.2, 1.0))[0]:  # noqa: S311
                return None
        return None

    def _end_unconnected(self) -> int:
        """The exit code of a pod without a driver, whose ranks have ended. A failure only when a driver of its own
        came to grief; one whose password is no longer taken leaves as if the pod had been told to."""
        if self._driver is None or select.select([self._told.reader], [], [], 0)[0]:
            return EXIT_PREEMPTED
        self._driver.join(_DRIVER_GRACE)
        return EXIT_PREEMPTED if self._driver.exitcode == EXIT_PREEMPTED else _EXIT_LOST_DRIVER

    def _start_driver(self) -> None:
        """The first fork of all, before any data is loaded."""
        servers = [serve_unix(Path(self._local))]
        if self._spec.workers.nodes > 1:
            servers.append(serve_tcp(int(self._worker.coordinator.rpartition(":")[2])))
        self._driver = get_context("fork").Process(target=_drive, args=(self._worker, servers, self._key))
        self._driver.start()
        for server in servers:
            server.close()

    def _end_driver(self) -> None:
        """It ends by itself; one that waits for a database that is away need not."""
        if self._driver is not None:
            self._driver.join(_DRIVER_GRACE)
            self._driver.kill()
            self._driver.join()


def _drive(worker: Worker, servers: list[Any], key: bytes) -> None:
    from hpstudy.storage.errors import CredentialsRefusedError
    from hpstudy.trials.loop import TrialLoop
    from hpstudy.worker.driver import Driver
    from hpstudy.worker.script_driver import ScriptDriver

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the supervisor is told, and tells the driver what is to be done
    spec = worker.study.spec
    loop = TrialLoop(
        spec,
        worker.storage_url,
        worker.stored_name,
        worker.group,
        output=worker.output,
        revision=worker.revision,
    )
    signal.signal(_BREAK_OFF, lambda *_: loop.break_off())
    try:
        if spec.trial.script is not None:
            ScriptDriver(spec, loop, servers, key, worker.events, worker.storage_url).run()
        else:
            Driver(spec, loop, servers, key, worker.events, worker.storage_url).run()
    except CredentialsRefusedError as error:
        _log.warning("leaving for a pod that reads the storage's Secret anew: %s", error)
        sys.exit(EXIT_PREEMPTED)


def _refuse(reason: str, message: str) -> int:
    """Leave the reason where the kubelet, and through it the operator, finds it."""
    _log.error("%s", message)
    with suppress(OSError):
        path = Path(os.environ.get("HPSTUDY_TERMINATION_LOG", _TERMINATION_LOG))
        path.write_text(json.dumps({"reason": reason, "message": message}))
    return EXIT_INVALID
