"""The worker groups as they should be, against those that are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.names import LABEL_GROUP
from hpstudy.api.revision import fingerprint, revision
from hpstudy.api.study import Study
from hpstudy.trials.budget import Next
from hpstudy_operator import builders, names
from hpstudy_operator.conditions import is_true, parse_time
from hpstudy_operator.groups import Finding, Group
from hpstudy_operator.kills import MAX_KILLS
from hpstudy_operator.kube import Ref, Resource
from hpstudy_operator.observe import Snapshot
from hpstudy_operator.storages import StorageView

MAX_ATTEMPTS = 3
"""How often a worker group is started again that ended before the study did, or whose pods failed while other groups
trained. Once heals a database that was restored from an older copy; a worker that is wrong about the end stays
wrong."""
LONG_LIFE = timedelta(days=1)
"""A Job that lived for longer before it gave up was no failed attempt: eleven failures in a row take about half an
hour, and a group that is at work in between may have that many in some weeks."""

MAX_ENDED_PODS = 50
"""Of one Job. It keeps the pods that it replaced for as long as it lives, which may be months, and every pass reads
them all: half a megabyte, by then. Four Jobs' worth of failures, so that none is forgotten that still counts."""


@dataclass
class Plan:
    """What the worker groups need."""

    delete: list[Ref] = field(default_factory=list)
    apply: list[Resource] = field(default_factory=list)
    stall: Finding | None = None
    """What the groups wait for."""
    failure: Finding | None = None
    """Why the study has failed."""

    @property
    def starts_workers(self) -> bool:
        """Whether a group is started."""
        return any(child["kind"] == "Job" for child in self.apply)


def make_plan(
    snapshot: Snapshot,
    study: Study,
    storage: StorageView,
    next_: Next,
    image: str,
    moved: datetime | None,
    idle: Mapping[int, datetime],
) -> Plan:
    """Plan the worker groups of a study that is not over.

    Args:
        storage: where the trials are.
        next_: what the budget says: ASK or WAIT.
        image: of the workers, for a template that names none.
        moved: when a trial last started or ended; None: none ever has.
        idle: since when groups with killed pods have begun no trial.
    """
    plan = Plan()
    wanted, asked = revision(study.spec), fingerprint(study.spec)
    groups = {group.index: group for group in snapshot.groups}
    config_map = builders.build_config_map(snapshot.resource)
    _apply_if_different(plan, snapshot, config_map, in_use=_is_of_generation(snapshot, config_map))
    for index in range(study.spec.parallelism):
        group = groups.get(index, Group(index, None))
        service = builders.build_service(snapshot.resource, index)
        name = service["metadata"]["name"]
        if taken := name_taken(snapshot, "Job", name):
            plan.stall = plan.stall or taken
            continue
        _apply_if_different(plan, snapshot, service, in_use=group.is_active)
        if (kills := group.kills(moved)) > builders.BACKOFF_LIMIT:
            # Between trials: what all of them share does not fit, and no failed trial will ever end the study.
            plan.failure = plan.failure or group.failure(kills)
            continue
        if index in idle and (kills := group.kills(idle[index])) > builders.BACKOFF_LIMIT:
            if kills > MAX_KILLS:
                plan.failure = plan.failure or group.failure(kills)
                continue
            plan.stall = plan.stall or group.failure(kills, what="begins no trial")
        is_stale = _is_stale(group, wanted) or group.storage not in {"", storage.identity}
        is_changed = group.fingerprint != asked or is_true(snapshot.status, "Suspended")
        attempt = _attempt_to_start(plan, snapshot, group, next_, is_stale, moved, is_changed=is_changed)
        if attempt is None:
            continue
        if group.job is not None:
            plan.delete.append(Ref.to(group.job, "Job"))
        if not group.has_live_pods:  # two pods of one rank must not meet
            plan.apply.append(
                builders.build_worker_job(
                    snapshot.resource,
                    index,
                    image=image,
                    storage=storage.secret,
                    identity=storage.identity,
                    revision=wanted,
                    fingerprint=asked,
                    attempt=attempt,
                )
            )
    _remove_surplus(plan, snapshot, study.spec.parallelism)
    plan.stall = plan.stall or name_taken(snapshot, "ConfigMap", names.best_name(study.metadata.name))
    return plan


def _attempt_to_start(
    plan: Plan,
    snapshot: Snapshot,
    group: Group,
    next_: Next,
    is_stale: bool,
    moved: datetime | None,
    *,
    is_changed: bool,
) -> int | None:
    """Which attempt of the group to start now; None when there is nothing to start. A failed group fails the plan.

    Args:
        is_stale: the group was made from what it cannot take on while it runs.
        is_changed: the study asks something else of its workers than when the Job was made, or goes on after it was
            suspended.
    """
    if group.job is None:
        return None if group.leftovers else 0  # two pods of one rank must not meet
    if "deletionTimestamp" in group.job["metadata"]:
        return None
    if group.is_failed:
        if is_changed:
            return 0  # the study was corrected
        attempt = _attempt_after_failures(group, moved)
        if attempt is None:
            plan.failure = plan.failure or group.failure()
        return None if group.has_live_pods else attempt
    if group.is_complete:
        if group.has_live_pods:
            return None
        # Trials of other groups that fill the budget may still fail; without such a group nobody would notice.
        if next_ is Next.WAIT and snapshot.active_jobs:
            return None
        if is_changed:
            return 0  # the budget was raised
        if group.attempt < MAX_ATTEMPTS:
            return group.attempt + 1
        plan.failure = plan.failure or Finding(
            reasons.ENDED_EARLY,
            f"worker group {group.index} ended {group.attempt + 1} times as if the study were over, but the storage"
            " does not have its trials: check that the workers and the operator use the same database",
        )
        return None
    if group.index in snapshot.running_groups:
        return None  # it ends its trial first
    if is_stale:
        return 0
    return group.attempt if group.ended_pods > MAX_ENDED_PODS else None


def _attempt_after_failures(group: Group, moved: datetime | None) -> int | None:
    """Which attempt follows a Job that has given up; None: its pods failed in a row, which more of them would, too.

    Trials are known of the whole study, not of each group; therefore a group whose pods fail while others train is
    started again a few times only.
    """
    failures = group.failures()
    if group.job is None or not group.is_beyond_limit or not failures or moved is None or moved <= failures[0]:
        return None
    if failures[-1] - parse_time(group.job["metadata"]["creationTimestamp"]) > LONG_LIFE:
        return 0
    return group.attempt + 1 if group.attempt < MAX_ATTEMPTS else None


def _is_stale(group: Group, wanted: str) -> bool:
    """Whether a group was made from another spec, in what it cannot take on while it runs.

    Args:
        wanted: the revision of the spec as it is now.
    """
    return group.revision not in {"", wanted}


def leaving(snapshot: Snapshot, study: Study) -> str:
    """What is to be said of groups that end once their trials have."""
    wanted, parallelism = revision(study.spec), study.spec.parallelism
    training = [group for group in snapshot.groups if group.index in snapshot.running_groups]
    removed = sum(1 for group in training if group.index >= parallelism)
    renewed = sum(1 for group in training if group.index < parallelism and _is_stale(group, wanted))
    text = f"; {removed} end their trials and leave" if removed else ""
    return text + (f"; {renewed} end their trials and start again as the study is now" if renewed else "")


def _remove_surplus(plan: Plan, snapshot: Snapshot, parallelism: int) -> None:
    """Groups beyond the parallelism, which was lowered. One that trains ends its trial first."""
    for (kind, _), child in snapshot.children.items():
        if not names.is_owned(child, snapshot.resource) or kind not in {"Job", "Service"}:
            continue
        group = child["metadata"].get("labels", {}).get(LABEL_GROUP, "")
        if group.isdigit() and int(group) >= parallelism and int(group) not in snapshot.running_groups:
            plan.delete.append(Ref.to(child, kind))


def _apply_if_different(plan: Plan, snapshot: Snapshot, wanted: Resource, *, in_use: bool) -> None:
    """Apply what is not there, or not as it should be.

    Args:
        in_use: what another version of the operator made serves workers as it is: an upgrade leaves it alone.
    """
    kind, name = wanted["kind"], wanted["metadata"]["name"]
    if in_use and _version(snapshot.children.get((kind, name))) not in {None, _version(wanted)}:
        return
    if taken := name_taken(snapshot, kind, name):
        plan.stall = plan.stall or taken
    elif not contains(snapshot.children.get((kind, name)), wanted):
        plan.apply.append(wanted)


def _version(resource: Resource | None) -> str | None:
    """The version of the operator that made an object; None when there is none, or it does not say."""
    annotations = resource["metadata"].get("annotations", {}) if resource else {}
    return annotations.get(names.ANNOTATION_VERSION)


def _is_of_generation(snapshot: Snapshot, wanted: Resource) -> bool:
    """Whether an object is there that was made from the study as it is now."""
    live = snapshot.children.get((wanted["kind"], wanted["metadata"]["name"]))
    annotations = live["metadata"].get("annotations", {}) if live else {}
    return annotations.get(names.ANNOTATION_GENERATION) == str(snapshot.generation)


def name_taken(snapshot: Snapshot, kind: str, name: str) -> Finding | None:
    """Somebody else's object where ours should be: never overwritten, never adopted."""
    child = snapshot.children.get((kind, name))
    if child is None or names.is_owned(child, snapshot.resource):
        return None
    return Finding(
        reasons.NAME_TAKEN,
        f"{kind} {name!r} belongs to something else: an earlier study of this name that is still being removed, or"
        " another program; delete it or give the study another name",
    )


def contains(live: Any, wanted: Any) -> bool:
    """Whether the live object says all that we want; what the API server or others added does not matter."""
    if isinstance(wanted, dict):
        keys = wanted.keys() - {"apiVersion", "kind"}  # objects of a list do not say
        return isinstance(live, dict) and all(contains(live.get(key), wanted[key]) for key in keys)
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(contains(*pair) for pair in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)
