"""The namespaces that are watched, where not all are. One may go, with the Role that was in it: the others go on.

kopf cannot see that, for want of a right on the cluster: it takes the names it is given for namespaces that are there,
and ends the process over one that it may not list. Here its set of them is kept true.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor

from kopf._cogs.structs.references import (
    Insights,
    NamespaceName,
)  # an argument of kopf.run, whose class it does not export

from hpstudy.api.study import KIND
from hpstudy_operator.kube import Kube

_log = logging.getLogger(__name__)

LOOK_SECONDS = 20.0
"""Between two looks: kopf tries for 54 s again what it is forbidden, and then gives up."""


class Namespaces:
    """Those that the operator is to watch, and those of them in which it may."""

    def __init__(self, kube: Kube, wanted: Sequence[str]) -> None:
        """
        Args:
            wanted: empty for all of the cluster.
        """
        self.insights = Insights()
        """What kopf watches. For the event loop's thread."""
        self._kube = kube
        self._wanted = tuple(wanted)

    def serves(self, namespace: str) -> bool:
        """Whether studies of the namespace are worked on."""
        return self._kube.namespaces is None or namespace in self._kube.namespaces

    async def look(self, threads: Executor) -> frozenset[str]:
        """See which are there; returns those that were there before and are no more.

        Raises:
            ApiError: the API server says something else than that one may not be listed.
            UnavailableError: it does not answer.
        """
        if not self._wanted:
            return frozenset()
        await self.insights.ready_namespaces.wait()  # or kopf would still add those that it was given
        found = await asyncio.get_running_loop().run_in_executor(threads, self._find)
        before = frozenset(self._kube.namespaces or ())
        for name in before.difference(found):
            _log.warning("namespace %s may not be listed: it is gone, or the Role in it; the others go on", name)
        for name in set(found) - before:
            _log.info("namespace %s is there again", name)
        self._kube.namespaces = found
        async with self.insights.revised:
            self.insights.namespaces.clear()
            self.insights.namespaces.update(map(NamespaceName, found))
            self.insights.revised.notify_all()
        return before.difference(found)

    def _find(self) -> tuple[str, ...]:
        return tuple(name for name in self._wanted if self._kube.may_list(KIND, name))
