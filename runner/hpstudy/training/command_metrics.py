"""A program's metrics, read while it writes them."""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hpstudy.api.command import NAME, STEP, VALUE
from hpstudy.training.values import LAST_STEP, check_metrics

_CHUNK = 1 << 20  # bytes
_LINE_LIMIT = 1 << 16
"""Bytes of a line that are looked at; a program that writes no line ends must not fill the memory."""
_MATCHED_LIMIT = 1 << 12
"""Characters of a line that a pattern is looked for in: one that begins with a word takes the square of them."""
_COLOUR = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""A terminal's (ECMA-48, control sequences), and what else moves its cursor."""
_BREAK = re.compile(rb"\r\n|[\r\n]")
"""Progress bars begin their line anew."""


class Reported(NamedTuple):
    """The metrics of one line."""

    step: int
    metrics: Mapping[str, Any]


class MetricsError(ValueError):
    """A line that should hold metrics does not; the message says which and why."""


class Tail:
    """The lines of a file that grows, as they become complete.

    A file that is made anew or cut is read from its start. A link is not followed: what it points to may be no business
    of a program in another container.

    Args:
        last: begin so many bytes before the end.
    """

    def __init__(self, path: Path, last: int | None = None) -> None:
        self._path = path
        self._last = last
        self._file = -1
        self._identity = (-1, -1)
        self._offset = 0
        self._rest = b""

    def lines(self, *, ended: bool = False) -> Iterator[str]:
        """The lines that were completed since the last time; once the writer has ended, also one without an end."""
        self._follow()
        while self._file >= 0 and (read := os.pread(self._file, _CHUNK, self._offset)):
            self._offset += len(read)
            *complete, rest = _BREAK.split(self._rest + read)
            self._rest = rest[:_LINE_LIMIT]
            for line in complete:
                if line:
                    yield line[:_LINE_LIMIT].decode(errors="replace")
        if ended and self._rest:
            rest, self._rest = self._rest, b""
            yield rest.decode(errors="replace")

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _follow(self) -> None:
        with suppress(FileNotFoundError):
            found = self._path.lstat()
            identity = (found.st_dev, found.st_ino)
            if identity != self._identity and stat.S_ISREG(found.st_mode):
                self.close()
                self._file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                start = 0 if self._last is None else max(0, found.st_size - self._last)
                self._identity, self._offset, self._rest = identity, start, b""
            elif identity == self._identity and found.st_size < self._offset:
                self._offset, self._rest = 0, b""


class MetricsReader(Protocol):
    """Reads the lines of one trial."""

    def read(self, line: str) -> Reported | None:
        """The metrics of a line; None where it has none.

        Raises:
            MetricsError: it should have some.
        """


class JsonLines:
    """Objects of metrics by name. Lines without a step count up.

    Args:
        name: of the file, for messages.
        before: the last step that was reported before the first line.
    """

    def __init__(self, name: str, before: int = 0) -> None:
        self._name = name
        self._before = before
        self._count = 0

    def read(self, line: str) -> Reported | None:
        """See :class:`MetricsReader`."""
        if not line.strip():
            return None
        self._count += 1
        where = f"{self._name}, line {self._count}"
        try:
            metrics = json.loads(line)
        except ValueError as error:
            raise MetricsError(
                f"{where} is no JSON ({error}), and each line must be a whole object: {line!r:.200}"
            ) from None
        if not isinstance(metrics, dict):
            raise MetricsError(f"{where} must be an object of metrics by name, got {line!r:.200}")
        step = _step(metrics.pop(STEP, self._before + self._count), where)
        try:
            check_metrics(metrics)
        except ValueError as error:
            raise MetricsError(f"{where}: {error}") from None
        return Reported(step, metrics)


class Pattern:
    """What a regular expression finds in lines of output. Lines without a step count up.

    Args:
        before: the last step that was reported before the first line.
    """

    def __init__(self, pattern: str, before: int = 0) -> None:
        self._pattern = re.compile(pattern)
        self._named = NAME in self._pattern.groupindex
        self._count = before

    def read(self, line: str) -> Reported | None:
        """See :class:`MetricsReader`."""
        metrics: dict[str, float] = {}
        step: str | None = None
        line = _COLOUR.sub("", line)[:_MATCHED_LIMIT]
        for match in self._pattern.finditer(line):
            groups = {name: text for name, text in match.groupdict().items() if text is not None}
            step = groups.pop(STEP, step)
            if self._named:
                groups = {groups[NAME]: groups[VALUE]} if {NAME, VALUE} <= groups.keys() else {}
                step = groups.pop(STEP, step)
            metrics |= {name: self._number(name, text, line) for name, text in groups.items()}
        if not metrics:
            return None
        self._count += 1
        return Reported(self._count if step is None else _step(step, f"output {line!r:.200}"), metrics)

    def _number(self, name: str, text: str, line: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise MetricsError(
                f"metrics.pattern found {text!r:.80} for {name} in output {line!r:.200}: it must match a number"
            ) from None


def _step(value: Any, where: str) -> int:
    """A whole number, however it is written."""
    with suppress(TypeError, ValueError, OverflowError):
        number = float(value)
        if not isinstance(value, bool) and number.is_integer() and 0 <= number <= LAST_STEP:
            return int(number)
    raise MetricsError(f"{where}: the step must be a whole number from 0 to {LAST_STEP}, got {value!r:.80}")
