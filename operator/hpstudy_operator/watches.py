"""The watches by what they report: whether they have told of everything that exists, and go on telling."""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

from hpstudy.api.names import LABEL_STUDY
from hpstudy.api.study import KIND
from hpstudy_operator.audit import Audit
from hpstudy_operator.kube import Kube, Resource
from hpstudy_operator.observe import Key

_log = logging.getLogger(__name__)
_SELECTORS = {KIND: "", "Job": LABEL_STUDY, "Pod": LABEL_STUDY}
"""What is watched, and by which label."""
_TOLD = 3
"""Objects that a line in the log names."""


def study_of(child: Mapping[str, Any]) -> Key:
    """The study that an object was made for."""
    return Key(child["metadata"]["namespace"], child["metadata"]["labels"][LABEL_STUDY])


class Watches:
    """An audit for each kind that is watched. For the event loop's thread; the lists are made in another."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._audits = {kind: Audit() for kind in _SELECTORS}
        self.have_told_all = False
        """Whether once nothing was missing: what was there at the start has been heard of."""

    def hear(self, kind: str, change: str | None, resource: Resource) -> None:
        """A watch reported an object; ``change`` is what happened to it, None when it was there before."""
        if change == "DELETED":
            self._audits[kind].forget(Key.of(resource))
        else:
            self._audits[kind].hear(resource)

    @property
    def studies(self) -> frozenset[Key]:
        """Studies that exist, as far as was heard."""
        return self._audits[KIND].known

    async def audit(self, threads: Executor) -> set[Key]:
        """Compare with what the API server lists; returns the studies of which the watches have not told something.

        Raises:
            ApiError: the API server refuses to list.
            UnavailableError: it does not answer.
        """
        before = {kind: audit.known for kind, audit in self._audits.items()}
        missed = set()
        for kind, listed in (await asyncio.get_running_loop().run_in_executor(threads, self._list)).items():
            studies = {Key.of(each): Key.of(each) if kind == KIND else study_of(each) for each in listed}
            missed |= {studies[key] for key in self._audits[kind].compare(listed, before[kind])}
        self.have_told_all = self.have_told_all or not missed
        for kind, audit in self._audits.items():
            if deaf := audit.deaf:
                names = ", ".join(map(str, deaf[:_TOLD]))
                _log.error("the watch of %s does not report %d of them, among them %s", kind, len(deaf), names)
        return missed

    @property
    def problem(self) -> str:
        """What is wrong with them; empty when nothing is."""
        deaf = [kind for kind, audit in self._audits.items() if audit.deaf]
        return f"the watch does not report what happens to objects of kind {', '.join(deaf)}" if deaf else ""

    def _list(self) -> dict[str, list[Resource]]:
        return {kind: self._kube.list_metadata(kind, selector) for kind, selector in _SELECTORS.items()}
