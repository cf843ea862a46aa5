"""Checkpoints of a study's trials: published whole or not at all, found again by whoever continues a trial.

::

    ROOT/<stored name of the study>/trial-<number>/last    where the trial, or one that continues it, goes on from
    ROOT/<stored name of the study>/trial-<number>/best    the model of the evaluation that counts

Both are pointers: what is published goes into a folder of its own first, then the pointer changes in one step. A reader
sees the old checkpoint or the new one, and so does the next reader after a crash in the middle.
"""

import os
import secrets
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path

LAST = "last"
BEST = "best"
LABELS = (LAST, BEST)
_TRIAL = "trial-"


def is_left_out(file: Path, patterns: Collection[str]) -> bool:
    """Whether a file, or a folder that it is in, has such a name. Paths are relative to the checkpoint."""
    return any(fnmatch(part, pattern) for part in file.parts for pattern in patterns)


class CheckpointStore(ABC):
    """The checkpoints of one study. A trial has one publisher; readers there may be many."""

    def publish(self, number: int, label: str, folder: Path, *, leave_out: Collection[str] = ()) -> None:
        """Make the contents of a folder the trial's checkpoint of this label, in place of the one before.

        Args:
            leave_out: patterns of names, as in a shell, of files and folders that do not belong to it.

        Raises:
            OSError: the store cannot be written to; the checkpoint before is still there.
        """
        files = [Path(where, name).relative_to(folder) for where, _, names in os.walk(folder) for name in names]
        files = [file for file in files if not is_left_out(file, leave_out)]
        version = f"{time.time_ns():x}-{secrets.token_hex(4)}"
        self._write(number, label, version, folder, sorted(files))
        self._point(number, label, version)
        self._sweep(number, label, version)

    def fetch(self, number: int, label: str, folder: Path) -> bool:
        """Copy a trial's checkpoint into an empty folder, which is made; False when there is none.

        Raises:
            OSError: the store cannot be read.
        """
        while (version := self._pointed(number, label)) is not None:
            clear(folder)
            try:
                self._read(number, label, version, folder)
            except OSError:
                if self._pointed(number, label) == version:
                    raise
            # A version is only removed after the pointer has left it: one that is still pointed at was read whole.
            if self._pointed(number, label) == version:
                return True
        return False

    def copy(self, source: int, number: int, label: str) -> bool:
        """Make one trial's checkpoint also another's; False when there is none.

        Raises:
            OSError: as :meth:`publish`.
        """
        with tempfile.TemporaryDirectory(prefix="hpstudy-checkpoint-") as folder:
            found = self.fetch(source, label, Path(folder))
            if found:
                self.publish(number, label, Path(folder))
            return found

    def exists(self, number: int, label: str) -> bool:
        """Whether the trial has a checkpoint of this label."""
        return self._pointed(number, label) is not None

    @abstractmethod
    def location(self, number: int, label: str) -> str | None:
        """Where a trial's checkpoint is, for people: a path for ``from_pretrained``, or the URL of a folder; None when
        there is none."""

    def remove(self, number: int, label: str) -> None:
        """Remove a trial's checkpoint, and what a crash left of others of this label."""
        self._unpoint(number, label)
        self._sweep(number, label, None)

    @abstractmethod
    def numbers(self) -> list[int]:
        """The trials that have anything here."""

    def tidy(self, number: int) -> None:
        """Remove what publishers of a trial left that did not get to the end. Only for trials that have none now."""
        for label in LABELS:
            self._sweep(number, label, self._pointed(number, label))

    def _sweep(self, number: int, label: str, current: str | None) -> None:
        for version in self._versions(number, label):
            if version != current:
                self._erase(number, label, version)

    @abstractmethod
    def check(self) -> None:
        """Try whether it can be written to.

        Raises:
            OSError: it cannot.
        """

    @abstractmethod
    def _write(self, number: int, label: str, version: str, folder: Path, files: list[Path]) -> None: ...

    @abstractmethod
    def _read(self, number: int, label: str, version: str, folder: Path) -> None: ...

    @abstractmethod
    def _point(self, number: int, label: str, version: str) -> None: ...

    @abstractmethod
    def _unpoint(self, number: int, label: str) -> None: ...

    @abstractmethod
    def _pointed(self, number: int, label: str) -> str | None: ...

    @abstractmethod
    def _versions(self, number: int, label: str) -> list[str]: ...

    @abstractmethod
    def _erase(self, number: int, label: str, version: str) -> None: ...


def clear(folder: Path) -> None:
    """Make the folder, or empty it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def trial_name(number: int) -> str:
    """Name of a trial's folder."""
    return f"{_TRIAL}{number}"


def trial_number(name: str) -> int | None:
    """The number of the trial whose folder has this name."""
    digits = name.removeprefix(_TRIAL)
    return int(digits) if digits != name and digits.isdigit() else None
