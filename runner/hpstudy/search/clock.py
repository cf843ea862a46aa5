"""A script's line to the driver of its worker group, which ends the ranks of a trial that takes too long."""

from typing import Protocol

from hpstudy.trials.channel import connect, shared_key
from hpstudy.trials.messages import Begin, Idle, send


class Clock(Protocol):
    """Counts the time that a trial takes."""

    def start(self, number: int) -> None:
        """A trial begins."""

    def stop(self) -> None:
        """It has ended, and is recorded."""


class NoClock:
    """A trial may take as long as it likes."""

    def start(self, number: int) -> None:
        """Nobody waits."""

    def stop(self) -> None:
        """Nobody waited."""


class DriverClock:
    """The driver's. A clock in the script's own process would stand still where the trial does.

    Args:
        address: the driver's on this node.
        storage_url: what both know.
    """

    def __init__(self, address: str, storage_url: str) -> None:
        self._link = connect(address, shared_key(storage_url))

    def start(self, number: int) -> None:
        """See ``Clock``."""
        send(self._link, Begin(number=number))

    def stop(self) -> None:
        """See ``Clock``."""
        send(self._link, Idle())
