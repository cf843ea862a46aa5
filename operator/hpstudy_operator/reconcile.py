"""One pass over one study: observe, decide, apply."""

from collections.abc import Callable
from datetime import UTC, datetime

from hpstudy.api.study import KIND
from hpstudy_operator.apply import apply_children, apply_results, apply_status
from hpstudy_operator.decide import decide
from hpstudy_operator.deletion import Deletion, expiry, is_going
from hpstudy_operator.kube import Kube, Ref
from hpstudy_operator.logs import about
from hpstudy_operator.observe import Key, observe
from hpstudy_operator.storages import Storages

CHANGED_SECONDS = 0.2
"""Until the next pass when the study was changed during this one: at once, but not in a tight loop."""


class Reconciler:
    """Brings studies to what their specs say. Safe for many threads as long as each works on another key."""

    def __init__(
        self,
        kube: Kube,
        storages: Storages,
        deletion: Deletion,
        runner_image: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._storages = storages
        self._deletion = deletion
        self._runner_image = runner_image
        self._clock = clock

    def reconcile(self, key: Key) -> float | None:
        """Do one pass; returns the seconds until the next, or None when the study is gone."""
        now = self._clock()
        with about(key):
            resource = self._kube.get(KIND, key.namespace, key.name)
            if resource is None or is_going(resource):
                self._storages.forget(key.namespace, key.name)
            if resource is None:
                return None
            if is_going(resource):
                return self._deletion.advance(resource, now)
            if (expires := expiry(resource)) is not None and now >= expires:
                self._kube.delete(Ref.to(resource, KIND))
                return None
            if (held := self._deletion.prepare(resource)) is None:
                return CHANGED_SECONDS
            snapshot = observe(self._kube, self._storages, held, now, image=self._runner_image)
            if snapshot.storage is None:
                self._storages.forget(key.namespace, key.name)
            decision = decide(snapshot, now, image=self._runner_image)
            if refused := apply_children(self._kube, decision):
                decision = decide(snapshot, now, image=self._runner_image, refused=refused)
            decision = apply_results(self._kube, decision)
            written = apply_status(self._kube, snapshot, decision)
            if not written:
                return CHANGED_SECONDS
            return decision.requeue if expires is None else min(decision.requeue, (expires - now).total_seconds())
