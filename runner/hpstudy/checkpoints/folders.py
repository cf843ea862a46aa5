"""Checkpoints in a folder: of this machine, or on a volume that all pods mount."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from hpstudy.checkpoints.store import CheckpointStore, trial_name, trial_number


class FolderStore(CheckpointStore):
    """A pointer is a symbolic link beside the versions: to rename a new one over it is a single step of POSIX file
    systems, NFS among them, where no folder can be renamed over another that has something in it.

    Args:
        root: folder of the study.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def location(self, number: int, label: str) -> str | None:
        """The path of the link: it stays the same whatever is published."""
        link = self._link(number, label)
        return str(link) if link.exists() else None

    def numbers(self) -> list[int]:
        if not self._root.is_dir():
            return []
        found = (trial_number(path.name) for path in self._root.iterdir())
        return sorted(number for number in found if number is not None)

    def remove(self, number: int, label: str) -> None:
        super().remove(number, label)
        with suppress(OSError):  # the other label is still there
            (self._root / trial_name(number)).rmdir()

    def check(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        probe = self._root / f".probe-{os.getpid()}"
        probe.symlink_to("nowhere")  # not every volume has links
        probe.unlink()

    def _link(self, number: int, label: str) -> Path:
        return self._root / trial_name(number) / label

    def _folder(self, number: int, label: str, version: str) -> Path:
        return self._root / trial_name(number) / f".{label}-{version}"

    def _write(self, number: int, label: str, version: str, folder: Path, files: list[Path]) -> None:
        target = self._folder(number, label, version)
        target.mkdir(parents=True)
        for file in files:
            copy = target / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, copy)
            _flush(copy)  # the link must not outlive its contents when the machine goes down

    def _read(self, number: int, label: str, version: str, folder: Path) -> None:
        shutil.copytree(self._folder(number, label, version), folder, dirs_exist_ok=True, copy_function=shutil.copyfile)

    def _point(self, number: int, label: str, version: str) -> None:
        new = self._folder(number, label, version).with_suffix(".link")
        new.symlink_to(self._folder(number, label, version).name)
        new.replace(self._link(number, label))

    def _unpoint(self, number: int, label: str) -> None:
        self._link(number, label).unlink(missing_ok=True)

    def _pointed(self, number: int, label: str) -> str | None:
        try:
            return self._link(number, label).readlink().name.removeprefix(f".{label}-")
        except FileNotFoundError:
            return None

    def _versions(self, number: int, label: str) -> list[str]:
        try:
            names = [path.name for path in (self._root / trial_name(number)).iterdir()]
        except FileNotFoundError:
            return []
        return [name.removeprefix(f".{label}-") for name in names if name.startswith(f".{label}-")]

    def _erase(self, number: int, label: str, version: str) -> None:
        path = self._folder(number, label, version)
        if path.is_symlink():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
