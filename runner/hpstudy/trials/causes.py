"""Why ranks ended, and which of them ended first: one rank's failure makes all others fail."""

from collections.abc import Iterable
from enum import IntEnum

from pydantic import BaseModel, ConfigDict

from hpstudy.storage.attributes import Failure


class Kind(IntEnum):
    """How much a rank's end says of the root cause, most first."""

    RAISED = 0
    """It raised an error of its own."""
    KILLED = 1
    """A signal ended it, or it left without a word."""
    SECONDARY = 2
    """It lost the connection to a peer: the peer has the cause, perhaps on another node."""


class Cause(BaseModel):
    """The end of one rank. ``at`` is in seconds since the epoch, ``rank`` is -1 where no rank had started."""

    model_config = ConfigDict(frozen=True)

    rank: int
    kind: Kind
    failure: Failure = Failure.ERROR
    message: str
    traceback: str = ""
    at: float
    invalid: str | None = None
    """The reason, where the error says that the study cannot run as written."""


def root_cause(causes: Iterable[Cause]) -> Cause | None:
    """The cause that explains the others: the earliest of the kind that says most."""
    return min(causes, key=lambda cause: (cause.kind, cause.at), default=None)
