"""How a worker's pod ended, for the trial that it was running: what only the API server knows of."""

from collections.abc import Iterable

from hpstudy.api.exits import EXIT_PREEMPTED
from hpstudy.storage.attributes import Failure
from hpstudy.storage.ends import PodEnd
from hpstudy_operator.groups import disruption, ended_container, has_ended, last_words, worker_name
from hpstudy_operator.kube import Resource

_NODE_GONE = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})
"""Disruptions by which a pod went because its node had; in the others somebody wanted its place.
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions"""


def latest_end(pods: Iterable[Resource]) -> PodEnd | None:
    """How the pod ended that was the last to; None when none has, or none has said how."""
    ends = [end for end in map(pod_end, pods) if end is not None]
    return max(ends, key=lambda end: (end.at, end.uid), default=None)


def pod_end(pod: Resource) -> PodEnd | None:
    """How a pod ended; None while it runs, and where it ended well."""
    container, terminated = ended_container(pod)
    disrupted = disruption(pod)
    at = terminated.get("finishedAt") or (disrupted or {}).get("lastTransitionTime")
    if not has_ended(pod) or at is None:
        return None
    metadata = pod["metadata"]
    failure, message = Failure.LOST, ""
    if terminated.get("reason") == "OOMKilled" and container == worker_name(pod):
        failure, message = Failure.OOM, _out_of_memory(pod)
    elif disrupted is not None:
        failure = Failure.LOST if disrupted.get("reason") in _NODE_GONE else Failure.PREEMPTED
        words = disrupted.get("message") or disrupted.get("reason") or "it was in the way"
        message = f"pod {metadata['name']} was evicted: {words}"
    elif terminated.get("exitCode") == EXIT_PREEMPTED:
        failure, message = Failure.PREEMPTED, f"pod {metadata['name']} was told to stop"
    else:
        message = last_words(pod)
    return PodEnd(uid=metadata["uid"], failure=failure, message=message, at=at)


def _out_of_memory(pod: Resource) -> str:
    """Kubernetes kills all processes of the container together: memory.oom.group."""
    container = next(c for c in pod["spec"]["containers"] if c["name"] == worker_name(pod))
    limit = container.get("resources", {}).get("limits", {}).get("memory")
    if limit is None:
        return f"the worker of pod {pod['metadata']['name']} was killed: its node had no memory left (OOMKilled)"
    return (
        f"the worker of pod {pod['metadata']['name']} needed more memory than its limit of {limit} (OOMKilled); raise"
        " resources.limits.memory in workers.template"
    )
