"""A check on the watches: what the API server lists now and a minute later must have been heard of in between.

kopf reconnects streams that fall silent and exits when one dies; this finds what neither notices, by its effect. It is
also the resync: a change that was missed is queued from here.
"""

from collections.abc import Set
from dataclasses import dataclass, field

from hpstudy_operator.kube import Resource
from hpstudy_operator.observe import Key

AUDIT_SECONDS = 60.0
"""Between two lists: the API server sends a bookmark a minute, so a stream in order is never silent for longer."""
MAX_MISSES = 3
"""Audits in a row in which the same change may be missing: three bookmarks' worth."""


@dataclass
class Audit:
    """Generations of the objects of one kind that the watch reported, against those that a list shows."""

    _heard: dict[Key, tuple[str, int]] = field(default_factory=dict)
    _misses: dict[Key, tuple[tuple[str, int], int]] = field(default_factory=dict)

    def hear(self, resource: Resource) -> None:
        """The watch reported an object."""
        self._heard[Key.of(resource)] = _version(resource)

    def forget(self, key: Key) -> None:
        """The watch reported that an object is gone."""
        self._heard.pop(key, None)

    @property
    def known(self) -> frozenset[Key]:
        """Objects that the watch reported."""
        return frozenset(self._heard)

    def compare(self, listed: list[Resource], before: Set[Key]) -> list[Key]:
        """Compare with a list; returns the objects of which the watch has not reported the latest generation.

        Args:
            before: what was known when the list was asked for: of that, what is not in it is gone.
        """
        current = {Key.of(resource): _version(resource) for resource in listed}
        missed = {key: version for key, version in current.items() if not self._knows(key, version)}
        self._misses = {key: (version, self._count(key, version) + 1) for key, version in missed.items()}
        self._heard = {key: version for key, version in self._heard.items() if key in current or key not in before}
        return list(missed)

    @property
    def deaf(self) -> list[Key]:
        """Objects with a change that the watch should have reported long ago."""
        return [key for key, (_, count) in self._misses.items() if count >= MAX_MISSES]

    def _knows(self, key: Key, version: tuple[str, int]) -> bool:
        uid, generation = self._heard.get(key, ("", 0))
        return uid == version[0] and generation >= version[1]

    def _count(self, key: Key, version: tuple[str, int]) -> int:
        before, count = self._misses.get(key, (version, 0))
        return count if before == version else 0


def _version(resource: Resource) -> tuple[str, int]:
    metadata = resource["metadata"]
    return metadata["uid"], int(metadata.get("generation", 0))  # pods have one since Kubernetes 1.33
