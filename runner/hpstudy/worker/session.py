"""Ranks that live for many trials (``workers.isolation: inline``).

Rank zero gets one trial after another on its link to the driver and hands each to the other ranks, through the store of
their launcher, which lives as long as they do. Each trial has a store of its own besides, in which it finds nothing of
an earlier one: its process group meets there, and ``Trial.agree`` asks there.
"""

import os
from datetime import timedelta

import torch
from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistError

from hpstudy.checkpoints.local import remove_local
from hpstudy.training.form import Form
from hpstudy.training.isolation import Baseline, abandon_process_group, leave_process_group, reset, seed_generators
from hpstudy.trials.causes import Cause, root_cause
from hpstudy.trials.messages import Run
from hpstudy.worker.rank import DriverLink, Ended, Setting, device_memory, train
from hpstudy.worker.recording import RecordedError, cause_of
from hpstudy.worker.share import take_share

_FOR_EVER = timedelta(days=7)
"""For the next trial, and for ranks that still train: the end of a peer ends the session, and with it the wait."""
_GRACE = timedelta(seconds=10)
"""For the other ranks, when this one has failed: those in a collective learn of it at once, because it hangs up."""


def run_session(form: Form, run: Run, setting: Setting, address: str, key: bytes) -> None:
    """Train this trial on this rank, then each that the driver sends, until it hangs up.

    A trial that fails is told to the driver and the session goes on, when every rank came to the trial's end. How a
    trial ended is told when all ranks are clean again: the driver answers with the next one.

    Raises:
        RecordedError: this rank failed and another one did not come, or what the trial did cannot be undone here;
            torch's launcher ends them all.
    """
    take_share(run, processes=int(os.environ["LOCAL_WORLD_SIZE"]))
    # Now: of a single process the Trainer takes these variables away.
    is_first, node = os.environ["LOCAL_RANK"] == "0", int(os.environ["GROUP_RANK"])
    link = DriverLink(address, key) if os.environ["RANK"] == "0" else None
    seed_generators()
    baseline = Baseline.take()
    ranks = _Ranks()
    following: Run | None = run
    while (given := ranks.share(following)) is not None:
        ended, cause = _attempt(form, given, setting, link)
        cause = ranks.end(cause)
        if setting.spec.checkpoints is None and is_first:  # now no rank writes there any more
            remove_local(setting.output, given.number, node, stored=False)
        try:
            memory = device_memory() if link is not None else None  # before the peak is forgotten
            leave_process_group()
            reset(baseline)
        except BaseException as error:
            raise RecordedError(cause or cause_of(error)) from error
        ranks.meet()
        if link is not None:
            if cause is not None:
                link.failed(cause)
            elif ended is not None:
                link.result(ended.metrics, pruned=ended.pruned, memory=memory)
        following = link.next() if link is not None else None


def _attempt(form: Form, run: Run, setting: Setting, link: DriverLink | None) -> tuple[Ended | None, Cause | None]:
    """How the trial ended, or why it failed."""
    try:
        return train(form, run, setting, link), None
    except torch.AcceleratorError:  # this process can do nothing more on its GPU
        raise
    except BaseException as error:
        cause = cause_of(error)
    # Here, where nothing holds the frames of the error any more, and they nothing of the process group.
    abandon_process_group()
    return None, cause


class _Ranks:
    """What the ranks of the session tell one another."""

    def __init__(self) -> None:
        self._rank, self._world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=_FOR_EVER)
        self._trial = 0
        self._meeting: TCPStore | None = None

    def share(self, run: Run | None) -> Run | None:
        """Rank zero's trial on every rank, its process group's meeting point in the environment; None is the end."""
        self._trial += 1
        run_name, port_name = self._name("run"), self._name("port")
        if self._rank == 0:
            if run is not None:
                # Others connect only when they know its port; and a thread of this process is enough for the server.
                self._meeting = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
                os.environ["MASTER_PORT"] = str(self._meeting.port)
            if self._world > 1:
                self._store.set(port_name, os.environ["MASTER_PORT"])
                self._store.set(run_name, run.model_dump_json() if run is not None else "")
        else:
            text = self._store.get(run_name)
            run = Run.model_validate_json(text) if text else None
            os.environ["MASTER_PORT"] = self._store.get(port_name).decode()
        return run

    def end(self, cause: Cause | None) -> Cause | None:
        """Wait for all ranks at the end of the trial; each learns the root cause, where there is one.

        Raises:
            RecordedError: this rank failed, and another one does not come.
        """
        if self._world == 1:
            return cause
        if cause is not None:
            self._store.set(self._name(f"cause/{self._rank}"), cause.model_dump_json())
            self._store.add(self._name("failed"), 1)
        self._count("ended")
        try:
            self._store.wait([self._name("all ended")], _GRACE if cause is not None else _FOR_EVER)
        except DistError:
            if cause is None:
                raise
            raise RecordedError(cause) from None
        root = None
        if self._store.add(self._name("failed"), 0):
            names = [self._name(f"cause/{rank}") for rank in range(self._world)]
            causes = [self._store.get(name) for name in names if self._store.check([name])]
            root = root_cause(map(Cause.model_validate_json, causes))
        if self._rank == 0:
            self._tidy()
        return root

    def meet(self) -> None:
        """Rank zero waits until every rank is clean. One that cannot be ends all of them, and with them the wait."""
        if self._world == 1:
            return
        self._count("clean")
        if self._rank == 0:
            self._store.wait([self._name("all clean")], _FOR_EVER)

    def _count(self, word: str) -> None:
        """This rank is so far; the last one says that all are."""
        if self._store.add(self._name(word), 1) == self._world:
            self._store.set(self._name(f"all {word}"), "")

    def _tidy(self) -> None:
        """Forget the trial before this one: every rank has read all of it."""
        words = ["run", "port", "failed", "ended", "all ended", "clean", "all clean"]
        words += [f"cause/{rank}" for rank in range(self._world)]
        for word in words:
            self._store.delete_key(f"hpstudy/{self._trial - 1}/{word}")

    def _name(self, word: str) -> str:
        return f"hpstudy/{self._trial}/{word}"
