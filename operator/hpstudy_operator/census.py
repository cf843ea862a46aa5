"""What the watches report, counted for Prometheus: studies, their trials, and workers that were replaced."""

from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hpstudy.api.status import CONDITION_TYPES, TrialCounts
from hpstudy_operator.groups import Group
from hpstudy_operator.kube import Resource
from hpstudy_operator.metrics import WORKER_RESTARTS
from hpstudy_operator.observe import Key

_STATES = tuple(name for name in TrialCounts.model_fields if name != "total")
_STATUSES = ("True", "False", "Unknown")
_INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(eq=False)  # the registry keeps collectors by identity
class Studies(Collector):
    """Studies and trials by state, from the statuses that the watch reports. Counted when somebody asks."""

    visible: bool = False
    """Whether this replica tells: two that do would be added up."""
    _seen: dict[Key, tuple[tuple[tuple[str, str], ...], tuple[int, ...]]] = field(default_factory=dict)
    """Of each study its conditions and its trials by ``_STATES``."""

    def hear(self, key: Key, change: str | None, study: Resource) -> None:
        """The watch reported a study; ``change`` is what happened to it, None when it was there before the watch."""
        if change == "DELETED":
            self._seen.pop(key, None)
            return
        status = study.get("status") or {}
        conditions = tuple((each["type"], each["status"]) for each in status.get("conditions", ()))
        trials = status.get("trials") or {}
        self._seen[key] = conditions, tuple(int(trials.get(state, 0)) for state in _STATES)

    def keep(self, keys: Set[Key]) -> None:
        """Forget all others."""
        self._seen = {key: value for key, value in self._seen.items() if key in keys}

    def collect(self) -> Iterator[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        if not self.visible:
            return
        seen = list(self._seen.items())
        namespaces = sorted({key.namespace for key, _ in seen})
        conditions: Counter[tuple[str, str, str]] = Counter()
        trials: Counter[tuple[str, str]] = Counter()
        for key, (own, counts) in seen:
            said = dict(own)
            conditions.update((key.namespace, name, said.get(name, "Unknown")) for name in CONDITION_TYPES)
            for state, count in zip(_STATES, counts, strict=True):
                trials[key.namespace, state] += count
        studies = GaugeMetricFamily(
            "hpstudy_studies",
            "Studies by what their conditions say; Unknown also where one says nothing.",
            labels=("namespace", "condition", "status"),
        )
        for labels in ((n, c, s) for n in namespaces for c in CONDITION_TYPES for s in _STATUSES):
            studies.add_metric(labels, conditions[labels])
        yield studies
        family = GaugeMetricFamily(
            "hpstudy_trials", "Trials by state, of the studies that exist.", labels=("namespace", "state")
        )
        for pair in ((n, s) for n in namespaces for s in _STATES):
            family.add_metric(pair, trials[pair])
        yield family


@dataclass
class Restarts:
    """Counts in WORKER_RESTARTS what starts in place of something else."""

    counting: bool = False
    """Whether this replica counts: two that do would be added up."""
    _pods: dict[str, dict[str, str]] = field(default_factory=dict)
    """The latest pod at each completion index of each Job, by their uids."""

    def hear_job(self, change: str | None, job: Resource) -> None:
        """The watch reported a Job; ``change`` is what happened to it, None when it was there before the watch."""
        if change == "DELETED":
            self._pods.pop(job["metadata"]["uid"], None)
        elif change == "ADDED" and self.counting and Group(0, job).attempt:
            WORKER_RESTARTS.labels("group").inc()

    def hear_pod(self, change: str | None, pod: Resource) -> None:
        """The watch reported a pod."""
        metadata: dict[str, Any] = pod["metadata"]
        owner = next((each["uid"] for each in metadata.get("ownerReferences", ()) if each["kind"] == "Job"), None)
        if owner is None or change not in {None, "ADDED"}:
            return
        pods, index = self._pods.setdefault(owner, {}), metadata["labels"].get(_INDEX, "")
        before = pods.setdefault(index, metadata["uid"])
        if change == "ADDED" and before != metadata["uid"]:
            pods[index] = metadata["uid"]
            if self.counting:
                WORKER_RESTARTS.labels("pod").inc()
