"""What holds a study up that is not over, in the words of who does."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from hpstudy.api import reasons
from hpstudy.api.study import StudySpec
from hpstudy_operator.conditions import parse_time, timestamp
from hpstudy_operator.groups import Finding, Group, has_ended, is_ready
from hpstudy_operator.kube import EXCEEDED, RefusedError, Resource
from hpstudy_operator.observe import QUIET, Snapshot
from hpstudy_operator.storages import StorageView

STORAGE_PATIENCE = timedelta(seconds=60)
"""A database that is away for less holds nothing up: workers try again, and most trials take longer."""
READY_PATIENCE = timedelta(minutes=6)
"""For a pod that has a node to be ready, and for one whose time to end is over to be gone: most images are there within
that, and the cluster itself gives a node that is lost five minutes before it deletes the pods."""
TIMEOUT_PATIENCE = timedelta(minutes=10)
"""After trialTimeout a driver ends its trial within seconds; then the next is asked for, or a pod is replaced."""
LONGEST_TIMES = 5
"""A trial may well take several times as long as any before it (ten epochs after two); five times, and a look at its
log is worth the while."""
TOLD = 3
"""Other pods that are named."""


def first_stall(snapshot: Snapshot, now: datetime) -> Finding | None:
    """What the pods of a worker group wait for."""
    stalls = (group.stall(now) or _pod_stall(group, now) for group in snapshot.groups)
    return next((stall for stall in stalls if stall), None)


def refused_stall(refused: Sequence[RefusedError]) -> Finding | None:
    """What the API server does not take."""
    if not refused:
        return None
    first = refused[0]
    is_quota = first.status == 403 and EXCEEDED in str(first)
    others = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
    return Finding(
        reasons.QUOTA_EXCEEDED if is_quota else reasons.REFUSED, f"{refusal(first)}{others}; it is tried again"
    )


def refusal(error: RefusedError) -> str:
    """What the API server has against an object."""
    return f"{error.kind} {error.name!r} is refused: {error}"


def ending_stall(snapshot: Snapshot, now: datetime) -> Finding | None:
    """Pods of a suspended study that do not end, and hold what they have."""
    stuck = [
        (pod, since)
        for group in snapshot.groups
        for pod in (*group.pods, *group.leftovers)
        if "deletionTimestamp" in pod["metadata"] and (since := _stuck_since(pod, now))
    ]
    if not stuck:
        return None
    first, *others = stuck
    finding = _stuck(*first)
    if not others:
        return finding
    more = [pod["metadata"]["name"] for pod, _ in others]
    named = ", ".join(more[:TOLD]) + (f" and {len(more) - TOLD} more" if len(more) > TOLD else "")
    return Finding(finding.reason, f"{finding.message}; so it is with {named}")


def _pod_stall(group: Group, now: datetime) -> Finding | None:
    """A pod that neither starts nor ends, which holds its group up: also one of a Job that is gone."""
    if group.is_ready:
        return None
    for pod in (*group.pods, *group.leftovers):
        if since := _stuck_since(pod, now):
            return _stuck(pod, since)
    return None


def _stuck_since(pod: Resource, now: datetime) -> datetime | None:
    since = None if has_ended(pod) or is_ready(pod) else _unready_since(pod)
    return since if since is not None and now - since > READY_PATIENCE else None


def _stuck(pod: Resource, since: datetime) -> Finding:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    doing = "ending" if "deletionTimestamp" in pod["metadata"] else "starting"
    where = f" on node {node}" if (node := pod["spec"].get("nodeName")) else ""
    return Finding(
        reasons.PODS_NOT_READY,
        f"pod {name} has been {doing} since {timestamp(since)}{where};"
        f" kubectl -n {namespace} describe pod {name} tells why",
    )


def _unready_since(pod: Resource) -> datetime | None:
    """Since when a pod should be gone, or ready; None: it has no node yet."""
    if deletion := pod["metadata"].get("deletionTimestamp"):
        return parse_time(deletion)  # the end of its grace period
    conditions = {condition["type"]: condition for condition in pod.get("status", {}).get("conditions", [])}
    if conditions.get("PodScheduled", {}).get("status") != "True":
        return None
    # It may have been ready once. A kubelet that is away says nothing of a new pod.
    changed = (conditions.get("Ready") or conditions["PodScheduled"]).get("lastTransitionTime")
    return parse_time(changed) if changed else None


def storage_stall(snapshot: Snapshot, storage: StorageView, now: datetime) -> Finding | None:
    """A storage that has not been ready for a while."""
    since = _since(snapshot, "StorageReady", "False")
    if since is None or now - since < STORAGE_PATIENCE:
        return None
    return Finding(storage.reason, storage.message)


def quiet_stall(snapshot: Snapshot, spec: StudySpec, moved: datetime | None, now: datetime) -> Finding | None:
    """Workers that are ready while no trial starts or ends.

    Args:
        moved: when one last did.
    """
    ready = _since(snapshot, "Running", "True")
    stored = snapshot.storage.snapshot if snapshot.storage else None
    if ready is None or stored is None or not any(group.is_ready for group in snapshot.groups):
        return None
    quiet = now - max(ready, moved or ready)
    if not stored.counts.running:
        if quiet < QUIET:
            return None
        return Finding(
            reasons.NO_TRIAL_STARTED,
            f"the workers are ready, and none has asked for a trial for {_words(QUIET)} or more: they may still load"
            f" their data, or hang; {_logs(snapshot)}",
        )
    if spec.trial_timeout is not None:
        limit = timedelta(seconds=spec.trial_timeout.seconds) + TIMEOUT_PATIENCE
        expected = f"trialTimeout is {spec.trial_timeout}"
    elif stored.longest is not None:
        limit = max(QUIET, LONGEST_TIMES * timedelta(seconds=stored.longest))
        expected = f"the longest so far took {_words(timedelta(seconds=stored.longest))}"
    else:
        return None  # nobody knows how long a trial takes
    if quiet < limit:
        return None
    advice = "" if spec.trial.script is not None else "; trialTimeout ends trials that hang"
    return Finding(
        reasons.TRIALS_OVERDUE,
        f"no trial has started or ended for {_words(limit)} or more, and {expected}: {_logs(snapshot)}{advice}",
    )


def _logs(snapshot: Snapshot) -> str:
    metadata = snapshot.resource["metadata"]
    return f"see kubectl -n {metadata['namespace']} logs -l hpstudy.io/study={metadata['name']}"


def _since(snapshot: Snapshot, kind: str, status: str) -> datetime | None:
    """Since when a condition has been as it is."""
    conditions = snapshot.status.get("conditions", [])
    found = next((c for c in conditions if c["type"] == kind and c["status"] == status), None)
    return parse_time(found["lastTransitionTime"]) if found else None


def _words(length: timedelta) -> str:
    minutes = round(length.total_seconds() / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
