"""The trial as the code that trains sees it, on every rank."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch._C._distributed_c10d import Store, TCPStore
from torch.distributed import DistError, DistStoreError

from hpstudy.api.study import Objective
from hpstudy.checkpoints.local import live_folder
from hpstudy.checkpoints.store import CheckpointStore
from hpstudy.training.checkpoints import TrialCheckpoints
from hpstudy.training.values import check_metrics, check_step, plain

# A peer that dies closes its connection, which ends the wait at once; one that trains slowly must not.
_AGREEMENT_TIMEOUT = timedelta(days=7)
_CONNECT_TIMEOUT = timedelta(minutes=1)
"""The store serves before any rank starts, and ends with the trial."""
_PRUNE_TIMEOUT = timedelta(seconds=10)
"""Ranks that prune come to it at the same step."""
_PRUNED = "hpstudy/pruned"
_STOP = "hpstudy/stop"
_STOPPED = "hpstudy/stopped"
_NONE = "hpstudy:none"


class TrialStopped(Exception):  # noqa: N818  as Optuna's TrialPruned
    """Raised where ``Trial.should_stop()`` is true, when what is to survive is in ``Trial.checkpoint_dir``."""


class Reporter(Protocol):
    """Rank zero's line to the driver."""

    def report(self, step: int, metrics: Mapping[str, Any], *, past: bool = False) -> bool:
        """Record metrics; True when the trial should be pruned. Of the ``past``: the trial that this one continues
        reported them."""

    def progress(self, share: float) -> None:
        """Show how far training is, from 0 to 1."""

    def stopping(self) -> bool:
        """Whether the worker was told to stop; who asks will save, and is given the time."""


class Trial:
    """One trial, as ``objective(trial)`` gets it on every rank.

    Attributes:
        number: number of the trial in the study.
        params: hyperparameters by name, the same on every rank.
        node: place of its node in the worker group.
        rank, local_rank, world_size: as under torchrun; ``torch.distributed.init_process_group()`` works as there.
        device: the rank's own GPU, else the CPU.
        output_dir: folder of the trial's files on this node.
        continues: number of the trial whose last checkpoint this one starts from, where there is one.
        checkpoints: what its form does with them.
    """

    def __init__(
        self,
        number: int,
        params: Mapping[str, Any],
        objectives: Sequence[Objective],
        output_dir: Path,
        reporter: Reporter | None = None,
        *,
        continues: int | None = None,
        open_store: Callable[[], CheckpointStore] | None = None,
        keep: Literal["best", "none", "all"] = "best",
    ) -> None:
        self.number = number
        self.params = dict(params)
        self.objectives = tuple(objectives)
        self.output_dir = output_dir
        self.continues = continues
        self.rank = int(os.environ.get("RANK", "0"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self._host, self._port = os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT", "0"))
        self._reporter = reporter
        self._prune = self._agreed = self._stopped = False
        self._last_step: int | None = None
        self._questions = 0
        self.node = int(os.environ.get("GROUP_RANK", "0"))
        folder = live_folder(output_dir, self.node)
        self.checkpoints = TrialCheckpoints(open_store, keep, number, continues, folder)
        self._store: Store | None = None
        self._live = False

    @property
    def device(self) -> torch.device:
        """Asked for late: the answer opens CUDA."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    @property
    def checkpoint_dir(self) -> Path:
        """A folder of the trial on this node. With ``checkpoints`` in the study, what rank zero's node has in it is the
        trial's last checkpoint after each report, and its result's at the end; a trial that continues another finds
        there what that one had last. Let all ranks have written before rank zero reports.
        """
        self._live = True
        self.checkpoints.folder.mkdir(parents=True, exist_ok=True)
        return self.checkpoints.folder

    def begin(self) -> None:
        """Fetch what the trial continues from, before it starts. The worker calls it, on every rank.

        Raises:
            OSError: the checkpoint cannot be read.
            RuntimeError: some nodes find it and some do not.
        """
        if self.checkpoints.active and self.rank == 0:
            self.checkpoints.folder.mkdir(parents=True, exist_ok=True)  # other nodes see it where they share the disk
        if not self.checkpoints.may_continue:
            return
        found = self._once_a_node("fetched", self.checkpoints.fetch)
        if found is not self.agree(found):
            raise RuntimeError(
                f"the checkpoint of trial {self.continues} is not there for all nodes: do all pods of the study share "
                "the volume of checkpoints?"
            )
        if not found:
            return
        self.checkpoints.load_record()
        if self.rank == 0:
            self.checkpoints.take_over()
        if self._reporter is not None:
            for step, metrics in self.checkpoints.reports:
                self._reporter.report(step, metrics, past=True)

    def end(self, *, pruned: bool) -> None:
        """Publish what is left in ``checkpoint_dir`` as the result's checkpoint. The worker calls it, on every rank of
        a trial that did not fail."""
        if self._live and self.rank == 0 and (not pruned or self.checkpoints.keep == "all"):
            self.checkpoints.publish_best(self.checkpoints.folder)

    def report(self, value: float | Mapping[str, float], step: int) -> None:
        """Record an intermediate value of the objective, or metrics by name. Only rank zero's counts; the others may
        call it too.

        Args:
            step: counts up within the trial (epochs, so that trials with other batch sizes compare).

        Raises:
            ValueError: the step is no whole number from 0, or a metric cannot be recorded.
        """
        if self._reporter is not None:
            given = value if isinstance(value, Mapping) else {self.objectives[0].metric: value}
            metrics = {name: plain(each) for name, each in given.items()}
            step = check_step(step)
            check_metrics(metrics)
            self._prune = self._reporter.report(step, metrics) or self._prune
            self.checkpoints.note(step, metrics)
            if self._live:
                self.checkpoints.publish_last(self.checkpoints.folder)

    def should_prune(self) -> bool:
        """Whether the trial should end now: rank zero's answer, the same on every rank. All ranks must ask equally
        often; a rank that gets True raises ``hpstudy.TrialPruned``."""
        self._agreed = self.agree(self._prune)
        return self._agreed

    def should_stop(self) -> bool:
        """Whether the trial should save and stop because its worker was told to go (the pod is deleted, its node
        drained): the same answer on every rank. All ranks must ask equally often, every second or so: a pod has half a
        minute, where its template does not say more. A rank that gets True brings what is to survive into
        ``checkpoint_dir`` and raises ``hpstudy.TrialStopped``; the trial goes on from there on another worker. Never
        True where the study has no ``checkpoints``."""
        self._stopped = self.agree(self._asked_to_stop())
        return self._stopped

    def stops_after(self, step: int) -> bool:
        """Whether the ranks should save after this step and stop, for ranks that no rank is a whole step ahead of: the
        step is decided one ahead, so that nobody waits for an answer, as in :meth:`should_stop`."""
        if self._last_step is None:
            self._last_step = self._find_last_step(step)
        self._stopped = self._last_step is not None and step >= self._last_step
        return self._stopped

    def is_stopped(self) -> bool:
        """The same for ranks that take no steps together: it waits for nobody, as :meth:`is_pruned`."""
        if not self._stopped:
            self._stopped = self._find_last_step(0) is not None
        return self._stopped

    def stop(self) -> None:
        """Called where this rank raised ``TrialStopped``: rank zero publishes what all have brought.

        Raises:
            RuntimeError: nobody asked for it.
        """
        if not self._stopped:
            raise RuntimeError(f"rank {self.rank} raised TrialStopped; raise it where should_stop() is true")
        if self.world_size > 1:
            store = self._store or self._connect()
            store.set(f"{_STOPPED}/{self.rank}", "")
            if self.rank == 0:
                store.wait([f"{_STOPPED}/{rank}" for rank in range(self.world_size)])
        if self._live and self.rank == 0:
            self.checkpoints.publish_last(self.checkpoints.folder)

    def agree(self, answer: bool) -> bool:
        """Rank zero's answer, on every rank: what it measured itself (its time, say) the others do not have. All ranks
        must call it equally often."""
        return self.share("1" if answer else "0") == "1"

    def share(self, value: str) -> str:
        """Rank zero's value, on every rank. All ranks must call it equally often."""
        if self.world_size == 1:
            return value
        # Through the rendezvous' store and not a collective: it works for any backend, on a group that the user's code
        # may not have made yet, and is no CUDA operation.
        key = f"hpstudy/answer/{self._questions}"
        self._questions += 1
        store = self._store or self._connect()
        if self.rank == 0:
            store.set(key, value)
            return value
        given = str(store.get(key).decode())
        if given == _NONE:
            raise DistError("rank zero failed")
        return given

    def prune(self) -> None:
        """Called where this rank raised ``TrialPruned``. Where the study did not ask for it all ranks must have come to
        it by themselves: one that trains on would wait for this one for ever.

        Raises:
            RuntimeError: one trains on.
        """
        if self._agreed or self.world_size == 1:
            return
        store = self._store or self._connect()
        store.set(f"{_PRUNED}/{self.rank}", "")
        try:
            store.wait([f"{_PRUNED}/{rank}" for rank in range(self.world_size)], _PRUNE_TIMEOUT)
        except DistStoreError:
            raise RuntimeError(
                f"rank {self.rank} raised TrialPruned, and others train on; raise it where should_prune() is true, "
                "which it is on all ranks at once"
            ) from None

    def is_pruned(self) -> bool:
        """Whether rank zero was told to prune: for ranks that take no steps together. Unlike :meth:`should_prune` it
        waits for nobody, and each rank may ask as often as it likes. Rank zero must ask before it acts on it."""
        if self.world_size == 1 or (self.rank == 0 and not self._prune):
            return self._prune
        store = self._store or self._connect()
        if self.rank == 0:
            store.set(_PRUNED, "1")
        self._agreed = store.check([_PRUNED])  # on rank zero: when it answers, the others see it
        return self._agreed

    def give_up(self) -> None:
        """Called where this rank fails: the others must not wait for an answer of rank zero's for ever."""
        if self.rank == 0 and self.world_size > 1:
            with suppress(DistError):  # the store is gone, and with it whoever could wait
                (self._store or self._connect()).set(f"hpstudy/answer/{self._questions}", _NONE)

    def progress(self, share: float) -> None:
        """Show how far training is, from 0 to 1."""
        if self._reporter is not None:
            self._reporter.progress(share)

    def _asked_to_stop(self) -> bool:
        return self._reporter is not None and self.checkpoints.active and self._reporter.stopping()

    def _find_last_step(self, step: int) -> int | None:
        """The last step for all ranks; rank zero, which is at this one, says the next to the others."""
        if self.rank == 0 and not self._asked_to_stop():
            return None
        if self.world_size == 1:
            return step
        store = self._store or self._connect()
        if self.rank == 0:
            store.set(_STOP, str(step + 1))
        return int(store.get(_STOP)) if store.check([_STOP]) else None  # for rank zero: now the others see it

    def _once_a_node(self, name: str, action: Callable[[], bool]) -> bool:
        """Do it on the first rank of each node while its other ranks wait for the answer."""
        if self.world_size == 1:
            return action()
        store = self._store or self._connect()
        key = f"hpstudy/{name}/{self.node}"
        if self.local_rank == 0:
            done = action()
            store.set(key, "1" if done else "0")
            return done
        return store.get(key) == b"1"

    def _connect(self) -> Store:
        self._store = TCPStore(
            self._host,
            self._port,
            is_master=False,
            wait_for_workers=False,
            timeout=_CONNECT_TIMEOUT,
        )
        self._store.set_timeout(_AGREEMENT_TIMEOUT)
        return self._store
