"""Whether memory ran out, by the count that Linux keeps of the processes that it killed."""

from collections.abc import Iterator
from pathlib import Path

from hpstudy.storage.attributes import Failure
from hpstudy.trials.causes import Cause

_GROUPS = Path("/sys/fs/cgroup")
_KILLED_WORDS = ("SIGKILL", "killed by signal: Killed")
"""Ours of a process, and a DataLoader's of one of its workers."""


class OomKills:
    """Notices that the kernel ended a process of this container for want of memory, since this was made.

    Args:
        mounts: where control groups are mounted, of version 2 or 1.
        membership: which of them this process is in.
    """

    def __init__(self, mounts: Path = _GROUPS, membership: Path = Path("/proc/self/cgroup")) -> None:
        self._mounts = mounts
        self._membership = membership
        self._files = next(self._find(), None)
        self._before = self._count()

    def explain(self, cause: Cause | None) -> Cause | None:
        """The cause, with memory to blame where a process was killed and the kernel says that it did it."""
        if cause is None or not any(words in cause.message for words in _KILLED_WORDS):
            return cause
        if self._count() == self._before:
            return cause
        message = f"{cause.message}: out of memory{self._limit_in_words()}"
        return cause.model_copy(update={"failure": Failure.OOM, "message": message})

    def _find(self) -> Iterator[tuple[Path, Path]]:
        """The files of the container's own group. In a container its group is the root of what is mounted."""
        try:
            lines = self._membership.read_text().splitlines()
        except OSError:
            return
        for line in lines:
            _, controllers, path = line.split(":", 2)
            inside = path.lstrip("/")
            if not controllers:
                found = [(g / "memory.events", g / "memory.max") for g in (self._mounts / inside, self._mounts)]
            elif "memory" in controllers.split(","):
                mount = self._mounts / "memory"
                found = [(g / "memory.oom_control", g / "memory.limit_in_bytes") for g in (mount / inside, mount)]
            else:
                continue
            yield from (files for files in found if files[0].exists())

    def _count(self) -> int:
        try:
            lines = self._files[0].read_text().splitlines() if self._files else []
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def _limit_in_words(self) -> str:
        """Without a limit of its own it was the machine's memory, or an outer group's, that ran out."""
        try:
            limit = int(self._files[1].read_text()) if self._files else 0
        except (OSError, ValueError):  # "max"
            return ""
        return f", the container may use {limit / 2**30:.3g} GiB" if 0 < limit < 2**60 else ""
