"""Breaking off a proposal: a sampler may take minutes over it, and a pod that is told to stop has seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class BrokenOff(BaseException):
    """Raised where the computation was when the signal came. No error: nothing that computes may handle it."""


class Breaker:
    """Breaks off, from a signal's handler, what the main thread computes; once told, for good."""

    def __init__(self) -> None:
        self._told = self._is_breakable = False

    @contextmanager
    def breakable(self, end: Callable[[], None] = lambda: None) -> Iterator[None]:
        """The block may be broken off.

        Args:
            end: called then, at once, while what the caller holds is still held.

        Raises:
            BrokenOff: it was, or was not begun any more.
        """
        try:
            self._is_breakable = True
            if self._told:
                raise BrokenOff
            yield
            self._is_breakable = False  # here, where it is still noticed that the signal came a moment earlier
        except GeneratorExit:  # the signal came beside the block: it is known already
            raise
        except BaseException as error:
            if not self._told:
                raise
            end()
            raise BrokenOff from error  # also where a library has made something else of it
        finally:
            self._is_breakable = False

    def break_off(self) -> None:
        """To be called by the handler.

        Raises:
            BrokenOff: in the block, where there is one.
        """
        self._told = True
        if self._is_breakable:
            self._is_breakable = False
            raise BrokenOff
