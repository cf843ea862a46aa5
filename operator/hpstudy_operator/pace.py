"""When to look at a study of which its storage told: soon, and not too often, however often it tells."""

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

SETTLE_SECONDS = 0.2
"""Until the look: the end of a trial is mostly followed by the start of the next, and one look sees both."""
APART_SECONDS = 0.5
"""Between two looks for this reason: trials of milliseconds, and notifications that somebody forged, cost no more."""
_MANY = 10_000


class Pace(Generic[K]):
    """The planned looks, by key."""

    def __init__(self) -> None:
        self._planned: dict[K, float] = {}

    def delay(self, key: K, now: float) -> float | None:
        """Seconds until the look; None when one is planned already."""
        planned = self._planned.get(key, -math.inf)
        if planned > now:
            return None
        if len(self._planned) > _MANY:
            self._planned = {key: at for key, at in self._planned.items() if at > now - APART_SECONDS}
        self._planned[key] = at = max(now + SETTLE_SECONDS, planned + APART_SECONDS)
        return at - now
