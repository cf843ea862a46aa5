"""A trial's checkpoints as its ranks make and find them."""

import json
import logging
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hpstudy.checkpoints.store import BEST, LAST, CheckpointStore, clear, is_left_out
from hpstudy.training.shards import lacking

_log = logging.getLogger(__name__)
_SHOWN = 3  # parts that a warning names
_RECORD = ".hpstudy.json"
"""In a last checkpoint: what the trial had reported until then."""


class TrialCheckpoints:
    """Where a trial's checkpoints go, and what it continues from.

    Args:
        open_store: opens the study's store, on the ranks that need it; None where the study keeps no checkpoints.
        keep: as in the study.
        number: of the trial.
        continues: number of the trial whose last checkpoint this one starts from.
        folder: live folder of the trial on this node.

    Attributes:
        keep, folder: as given.
        reports: steps and metrics that were reported, those of the continued trial among them; of rank zero.
        extra: what a form wants to find again when the trial is continued.
    """

    def __init__(
        self,
        open_store: Callable[[], CheckpointStore] | None,
        keep: Literal["best", "none", "all"],
        number: int,
        continues: int | None,
        folder: Path,
    ) -> None:
        self._open_store = open_store
        self.keep = keep
        self._number = number
        self._continues = continues
        self.folder = folder
        self.reports: list[tuple[int, dict[str, Any]]] = []
        self.extra: dict[str, Any] = {}
        self._warned = False

    @property
    def active(self) -> bool:
        """Whether the study has a place for them."""
        return self._open_store is not None

    @cached_property
    def _store(self) -> CheckpointStore:
        assert self._open_store is not None
        return self._open_store()

    @property
    def may_continue(self) -> bool:
        """Whether there may be a checkpoint to start from."""
        return self.active and self._continues is not None

    def fetch(self) -> bool:
        """Fill the live folder on this node; False when there is nothing to continue from."""
        assert self._continues is not None
        clear(self.folder)
        return self._store.fetch(self._continues, LAST, self.folder)

    def take_over(self) -> None:
        """On rank zero of a trial that continues: what the other had reached is this one's from the start."""
        assert self._continues is not None
        if self.keep != "none":
            self._store.copy(self._continues, self._number, BEST)
        self._store.publish(self._number, LAST, self.folder)

    def load_record(self) -> None:
        """Read what came with the checkpoint in the live folder, on every rank."""
        record = self.folder / _RECORD
        if record.exists():
            content = json.loads(record.read_text())
            self.reports = [(step, metrics) for step, metrics in content["reports"]]
            self.extra = content["extra"]

    def publish_last(self, folder: Path) -> None:
        """Make what is in the folder the checkpoint that a continuation starts from; nothing when it is empty."""
        if not self.active or _is_empty(folder) or not self._is_whole(folder, ()):
            return
        (folder / _RECORD).write_text(json.dumps({"reports": self.reports, "extra": self.extra}))
        self._store.publish(self._number, LAST, folder)

    def publish_best(self, folder: Path, leave_out: Collection[str] = ()) -> None:
        """Make what is in the folder, but for what the patterns name, the checkpoint that goes with the trial's result;
        nothing when it is empty."""
        leave_out = (*leave_out, _RECORD)
        if not self.active or self.keep == "none" or _is_empty(folder) or not self._is_whole(folder, leave_out):
            return
        self._store.publish(self._number, BEST, folder, leave_out=leave_out)

    def _is_whole(self, folder: Path, leave_out: Collection[str]) -> bool:
        """Whether nothing of it is on another node. Of half a model nobody should hear that it is the best one."""
        parts = [part for part in lacking(folder) if not is_left_out(Path(part), leave_out)]
        if parts and not self._warned:
            self._warned = True
            _log.warning(
                "a checkpoint of trial %d is not kept: it is sharded over nodes, and rank zero's lacks %s. "
                "Save it whole (FSDP: state_dict_type FULL_STATE_DICT), or train each trial on one node",
                self._number,
                ", ".join(parts[:_SHOWN]) + (", …" if len(parts) > _SHOWN else ""),
            )
        return not parts

    def note(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Remember a report for the next last checkpoint."""
        if self.active:
            self.reports.append((step, dict(metrics)))


def _is_empty(folder: Path) -> bool:
    return all(path.name == _RECORD for path in folder.iterdir())
