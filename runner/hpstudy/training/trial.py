"""The trial as the code that trains sees it, on every rank."""

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
from torch._C._distributed_c10d import Store, TCPStore
from torch.distributed import DistError

from hpstudy.api.study import Objective

# A peer that dies closes its connection, which ends the wait at once; one that trains slowly must not.
_AGREEMENT_TIMEOUT = timedelta(days=7)
_PRUNED = "hpstudy/pruned"
_NONE = "hpstudy:none"


class Reporter(Protocol):
    """Rank zero's line to the driver."""

    def report(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Record metrics; True when the trial should be pruned."""

    def progress(self, share: float) -> None:
        """Show how far training is, from 0 to 1."""


class Trial:
    """One trial, as ``objective(trial)`` gets it on every rank.

    Attributes:
        number: number of the trial in the study.
        params: hyperparameters by name, the same on every rank.
        rank, local_rank, world_size: as under torchrun; ``torch.distributed.init_process_group()`` works as there.
        device: the rank's own GPU, else the CPU.
        output_dir: folder of the trial's files on this node.
        continues: number of the trial whose last checkpoint this one starts from, where there is one.
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
        self._prune = False
        self._questions = 0
        self._store: Store | None = None

    @property
    def device(self) -> torch.device:
        """Asked for late: the answer opens CUDA."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def report(self, value: float | Mapping[str, float], step: int) -> None:
        """Record an intermediate value of the objective, or metrics by name. Only rank zero's counts; the others may
        call it too.

        Args:
            step: counts up within the trial (epochs, so that trials with other batch sizes compare).
        """
        if self._reporter is not None:
            metrics = dict(value) if isinstance(value, Mapping) else {self.objectives[0].metric: value}
            self._prune = self._reporter.report(step, metrics) or self._prune

    def should_prune(self) -> bool:
        """Whether the trial should end now: rank zero's answer, the same on every rank. All ranks must ask equally
        often; a rank that gets True raises ``hpstudy.TrialPruned``."""
        return self.agree(self._prune)

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

    def is_pruned(self) -> bool:
        """Whether rank zero was told to prune: for ranks that take no steps together. Unlike :meth:`should_prune` it
        waits for nobody, and each rank may ask as often as it likes. Rank zero must ask before it acts on it."""
        if self.world_size == 1 or (self.rank == 0 and not self._prune):
            return self._prune
        store = self._store or self._connect()
        if self.rank == 0:
            store.set(_PRUNED, "1")
        return store.check([_PRUNED])  # on rank zero: when it answers, the others see it

    def give_up(self) -> None:
        """Called where this rank fails: the others must not wait for an answer of rank zero's for ever."""
        if self.rank == 0 and self.world_size > 1:
            (self._store or self._connect()).set(f"hpstudy/answer/{self._questions}", _NONE)

    def progress(self, share: float) -> None:
        """Show how far training is, from 0 to 1."""
        if self._reporter is not None:
            self._reporter.progress(share)

    def _connect(self) -> Store:
        self._store = TCPStore(
            self._host,
            self._port,
            is_master=False,
            wait_for_workers=False,
            timeout=_AGREEMENT_TIMEOUT,
        )
        return self._store
