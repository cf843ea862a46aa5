"""Builders of what the API server and the storage would return, with everything that a test does not care about."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.load import parse_study
from hpstudy.api.revision import fingerprint, revision
from hpstudy.api.status import BestTrial, TrialCounts, WarmStartCounts
from hpstudy.api.workers import SecretKey
from hpstudy.storage.reading import Stop, StudySnapshot
from hpstudy_operator import builders
from hpstudy_operator.conditions import State, merge, timestamp
from hpstudy_operator.decide import Decision, decide
from hpstudy_operator.groups import Group
from hpstudy_operator.observe import Snapshot
from hpstudy_operator.storages import StorageView

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EARLIER = NOW - timedelta(seconds=10)
STUDY_UID = "5d1f9c00-0000-4000-8000-000000000001"
IMAGE = "runner:test"
SECRET = SecretKey(name="storage", key="url")


def at(minutes: float) -> str:
    """So many minutes ago."""
    return timestamp(NOW - timedelta(minutes=minutes))


def study(generation: int = 1, *, status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """An HPStudy with one objective, defaults and ten trials."""
    return {
        "apiVersion": "hpstudy.io/v1alpha1",
        "kind": "HPStudy",
        "metadata": {"name": "reviews", "namespace": "team", "uid": STUDY_UID, "generation": generation},
        "spec": {
            "objectives": [{"metric": "eval_f1", "direction": "maximize"}],
            "backend": "optuna",
            "searchSpace": {"parameters": {"lr": {"type": "float", "low": 0.001, "high": 0.1}}},
            "budget": {"maxTrials": 10, "maxFailedTrials": 3},
            "parallelism": 1,
            "trial": {"function": "train:objective"},
            "workers": {"nodes": 1, "processesPerNode": "auto"},
            **spec,
        },
        **({} if status is None else {"status": status}),
    }


def over(resource: dict[str, Any], condition: str, reason: str, *, completed: datetime) -> dict[str, Any]:
    """The study with a status that says it is over."""
    state = State(condition, "True", reason, "that is it")
    status = {
        "observedGeneration": resource["metadata"]["generation"],
        "startTime": "2026-03-01T11:00:00Z",
        "completionTime": completed.isoformat().replace("+00:00", "Z"),
        "conditions": merge([], [state], resource["metadata"]["generation"], completed),
    }
    return {**resource, "status": status}


def job(
    resource: dict[str, Any],
    group: int = 0,
    *,
    condition: str = "",
    message: str = "",
    attempt: int = 0,
    age: float = 10,
    **metadata: Any,
) -> dict[str, Any]:
    """The Job of a group, as the API server returns it; ``condition`` is Complete or Failed."""
    spec = parse_study(resource).spec
    of = {"revision": revision(spec), "fingerprint": fingerprint(spec)}
    made = builders.build_worker_job(resource, group, image=IMAGE, storage=SECRET, attempt=attempt, **of)
    made["metadata"] |= {
        "uid": f"job-{group}-{attempt}",
        "creationTimestamp": (NOW - timedelta(seconds=age)).isoformat(),
        **metadata,
    }
    conditions = [{"type": condition, "status": "True", "reason": "Because", "message": message}] if condition else []
    made["status"] = {"conditions": conditions}
    return made


def pod(of: dict[str, Any], *, phase: str = "Running", node: int = 0, **status: Any) -> dict[str, Any]:
    """A pod of a Job."""
    name = f"{of['metadata']['name']}-{node}-x"
    return {
        "metadata": {
            "name": name,
            "namespace": of["metadata"]["namespace"],
            "labels": of["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [{"uid": of["metadata"]["uid"]}],
        },
        "spec": of["spec"]["template"]["spec"],
        "status": {"phase": phase, **status},
    }


def ready_pod(of: dict[str, Any], node: int = 0) -> dict[str, Any]:
    """A pod whose containers run."""
    return pod(of, node=node, conditions=[{"type": "Ready", "status": "True"}])


def ended_pod(of: dict[str, Any], code: int, message: str = "", **terminated: Any) -> dict[str, Any]:
    """A pod whose worker ended with a code and a termination message."""
    state = {"exitCode": code, "message": message, "finishedAt": "2026-03-01T11:59:00Z", **terminated}
    status = {"name": "worker", "image": IMAGE, "state": {"terminated": state}}
    return pod(of, phase="Failed" if code else "Succeeded", containerStatuses=[status])


def waiting_pod(of: dict[str, Any], reason: str, message: str) -> dict[str, Any]:
    """A pod whose worker cannot start."""
    waiting = {"waiting": {"reason": reason, "message": message}}
    return pod(of, phase="Pending", containerStatuses=[{"name": "worker", "image": IMAGE, "state": waiting}])


def stored(
    *,
    best: tuple[BestTrial, ...] = (),
    front: int | None = None,
    hypervolume: float | None = None,
    warm_start: WarmStartCounts | None = None,
    stop: Stop | None = None,
    sampler: str | None = None,
    training: tuple[int, ...] = (),
    longest: float | None = None,
    begun: dict[int, int] | None = None,
    **counts: int,
) -> StorageView:
    """A storage that is ready and has these trials."""
    total = sum(counts.values())
    snapshot = StudySnapshot(
        counts=TrialCounts(total=total, **counts),
        best=best,
        front_size=front,
        last_failure="trial 3: out of luck" if counts.get("failed") else None,
        stop=stop,
        sampler=sampler,
        warm_start=warm_start,
        hypervolume=hypervolume,
        running_groups=frozenset(training),
        longest=longest,
        begun=begun or {},
    )
    return StorageView(SECRET, reasons.STORAGE_READY, "the storage is ready", snapshot)


def observed(
    resource: dict[str, Any],
    *jobs: dict[str, Any],
    pods: tuple[dict[str, Any], ...] = (),
    leftovers: tuple[dict[str, Any], ...] = (),
    storage: StorageView | None = None,
    **more: Any,
) -> Snapshot:
    """A snapshot of a valid study with its Services and ConfigMap in place."""
    groups = []
    children: dict[tuple[str, str], Any] = {}
    config = builders.build_config_map(resource)
    children["ConfigMap", config["metadata"]["name"]] = config
    for made in jobs:
        index = int(made["metadata"]["labels"]["hpstudy.io/group"])
        own = tuple(p for p in pods if p["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"])
        groups.append(Group(index, made, own))
        service = builders.build_service(resource, index)
        service["metadata"]["uid"] = f"service-{index}"
        children["Job", made["metadata"]["name"]] = made
        children["Service", service["metadata"]["name"]] = service
    if leftovers:
        groups.append(Group(0, None, (), leftovers))
    return Snapshot(
        resource=resource,
        study=parse_study(resource),
        storage=storage or stored(),
        groups=tuple(groups),
        children={**children, **more.pop("children", {})},
        **more,
    )


def decided(snapshot: Snapshot, **how: Any) -> Decision:
    """What the operator does about it."""
    return decide(snapshot, NOW, image=IMAGE, **how)


def condition(decision: Decision, name: str) -> tuple[str, str]:
    """Status and reason of a condition."""
    found = next(c for c in decision.status["conditions"] if c["type"] == name)
    return found["status"], found["reason"]


def message(decision: Decision, name: str) -> str:
    """Message of a condition."""
    return next(str(c["message"]) for c in decision.status["conditions"] if c["type"] == name)


def applied(decision: Decision) -> list[tuple[str, str]]:
    """Kinds and names of what is applied."""
    return [(child["kind"], child["metadata"]["name"]) for child in decision.apply]


def deleted(decision: Decision) -> list[tuple[str, str]]:
    """Kinds and names of what is deleted."""
    return [(reference.kind, reference.name) for reference in decision.delete]
