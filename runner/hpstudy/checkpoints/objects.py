"""Checkpoints in an object store, through fsspec."""

from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from hpstudy.checkpoints.store import LABELS, CheckpointStore, trial_name, trial_number

_POINTER = "current"


class ObjectStore(CheckpointStore):
    """A pointer is an object that names the version: object stores replace one object in a single step, and nothing
    larger.

    Args:
        files: an fsspec file system that lists what is there now, and not what it remembers.
        root: the study's prefix in it.
    """

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        self._root = root.rstrip("/")

    def location(self, number: int, label: str) -> str | None:
        """The URL of the version: of a trial that has ended it stays the same."""
        version = self._pointed(number, label)
        return None if version is None else str(self._files.unstrip_protocol(self._path(number, label, version)))

    def numbers(self) -> list[int]:
        found = (trial_number(PurePosixPath(path).name) for path in self._list(self._root))
        return sorted(number for number in found if number is not None)

    def remove(self, number: int, label: str) -> None:
        super().remove(number, label)
        if not any(self._versions(number, other) for other in LABELS):
            with suppress(FileNotFoundError):  # where folders are more than prefixes
                self._files.rm(f"{self._root}/{trial_name(number)}", recursive=True)

    def check(self) -> None:
        probe = f"{self._root}/.probe"
        self._files.pipe_file(probe, b"")
        self._files.rm_file(probe)

    def _path(self, number: int, label: str, name: str) -> str:
        return f"{self._root}/{trial_name(number)}/{label}/{name}"

    def _list(self, path: str) -> list[str]:
        try:
            return [str(found) for found in self._files.ls(path, detail=False)]
        except FileNotFoundError:
            return []

    def _write(self, number: int, label: str, version: str, folder: Path, files: list[Path]) -> None:
        target = self._path(number, label, version)
        self._files.put([str(folder / file) for file in files], [f"{target}/{file.as_posix()}" for file in files])

    def _read(self, number: int, label: str, version: str, folder: Path) -> None:
        source = self._path(number, label, version)
        paths = [str(path) for path in self._files.find(source)]
        targets = [folder / path[path.index(source) + len(source) + 1 :] for path in paths]
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
        self._files.get(paths, [str(target) for target in targets])

    def _point(self, number: int, label: str, version: str) -> None:
        self._files.pipe_file(self._path(number, label, _POINTER), version.encode())

    def _unpoint(self, number: int, label: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(number, label, _POINTER))

    def _pointed(self, number: int, label: str) -> str | None:
        try:
            return bytes(self._files.cat_file(self._path(number, label, _POINTER))).decode()
        except FileNotFoundError:
            return None

    def _versions(self, number: int, label: str) -> list[str]:
        names = (PurePosixPath(path).name for path in self._list(f"{self._root}/{trial_name(number)}/{label}"))
        return [name for name in names if name and name not in (_POINTER, label)]

    def _erase(self, number: int, label: str, version: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm(self._path(number, label, version), recursive=True)
