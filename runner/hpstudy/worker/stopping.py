"""A supervisor that is told to stop: at once while it prepares, in order while trials run."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hpstudy.api.exits import EXIT_PREEMPTED

_LEAVING_SECONDS = 10
"""For what prepares (a download by several threads, say) to let go."""


class ToldToStop(BaseException):
    """Raised by the signal. No error: nothing that prepares may handle it."""


class StopSignal:
    """SIGTERM and SIGINT, as a descriptor that a loop waits for.

    Attributes:
        reader: ready to read once the signal has come.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        self._pid = os.getpid()
        self._is_preparing = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """The block, in which there is no trial to hand back, ends at once.

        Raises:
            ToldToStop: the signal has come.
        """
        self._is_preparing = True
        try:
            yield
        finally:
            self._is_preparing = False

    def _note(self, number: int, _: Any) -> None:
        if os.getpid() != self._pid:  # a process that was forked to prepare something, and is ended
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        os.write(self._writer, b"x")
        if self._is_preparing:
            self._is_preparing = False
            signal.signal(signal.SIGALRM, lambda *_: os._exit(EXIT_PREEMPTED))
            signal.alarm(_LEAVING_SECONDS)
            raise ToldToStop
