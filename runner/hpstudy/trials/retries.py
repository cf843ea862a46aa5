"""Whether the parameters of a trial that failed run again."""

from collections.abc import Sequence

from hpstudy.api.retries import Retries
from hpstudy.storage.attributes import Failure


def has_retry(failure: Failure, earlier: Sequence[Failure], retries: Retries) -> bool:
    """Whether the class has retries left.

    Args:
        earlier: how the earlier runs of the same parameters ended. Each class has its own limit: a trial that was
            preempted three times may still be lost.
    """
    if failure is Failure.SUSPENDED:
        return True
    limit: int = getattr(retries, failure.name.lower())
    return earlier.count(failure) < limit


def give_up_message(message: str, runs: int) -> str:
    """What is recorded of a failed trial that does not run again, with how often its parameters ran."""
    return message if runs == 1 else f"{message}; given up after {runs} runs"
