"""The end of an HPStudy: after its time to live, and out of the storage where ``deletionPolicy`` says so.

Only ``Delete`` has a finalizer: with ``Retain`` a deletion waits for nobody. Everything is decided from the object
itself, so that an operator that was started anew goes on where the last one stopped.
"""

import logging
from datetime import datetime, timedelta

from sqlalchemy import inspect

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.names import LABEL_STUDY, stored_study_name
from hpstudy.api.study import KIND, Metadata
from hpstudy.storage.errors import OUTAGE_LIMIT, StorageUnreachableError, storage_errors
from hpstudy.storage.opening import open_engine
from hpstudy.storage.removal import remove_study
from hpstudy.storage.urls import check_in_cluster
from hpstudy_operator import names
from hpstudy_operator.apply import apply_status
from hpstudy_operator.conditions import Change, State, is_true, merge, parse_time, timestamp
from hpstudy_operator.decide import Decision
from hpstudy_operator.events import emit
from hpstudy_operator.groups import has_ended
from hpstudy_operator.kube import ApiError, Kube, Ref, Resource
from hpstudy_operator.observe import Snapshot, is_over
from hpstudy_operator.outages import Outages
from hpstudy_operator.results import is_held_up
from hpstudy_operator.tenants import TENANT_SECRET, Tenants, is_provided, secret_value

_log = logging.getLogger(__name__)

FINALIZER = "hpstudy.io/study-in-storage"
"""Holds an HPStudy with ``deletionPolicy: Delete`` until its trials are removed."""
PATIENCE = timedelta(seconds=OUTAGE_LIMIT)
"""From the deletion on: as long as workers wait for a database that is away. A pod of a node that is gone never ends,
and a database may never come back; nothing that somebody wants to be rid of waits for longer."""
FINAL_PATIENCE = timedelta(hours=1)
"""From a study's success on, for a Job of ``onSuccess`` that cannot be made, before the time to live counts: a quota
may be full for a while, and a mistake needs somebody to see it."""
START_PATIENCE = timedelta(days=1)
"""For the first pod of a Job of ``onSuccess`` to start, after which the time to live counts as if it had ended: a full
cluster may have no room for hours, and an image that is not there never comes. Not while a queue holds the Job."""
RETRY_SECONDS = 5.0
"""Between two attempts. A pod that ends is heard of at once."""


class _OutOfReachError(Exception):
    """The storage cannot be reached, and waiting would change nothing."""


def expiry(resource: Resource) -> datetime | None:
    """When an HPStudy is to be deleted: ``ttlSecondsAfterFinished`` after its end and that of the Job of ``onSuccess``,
    which is waited for in vain no longer than ``FINAL_PATIENCE`` to be made and ``START_PATIENCE`` to start; None for
    one that stays."""
    status, ttl = resource.get("status") or {}, resource["spec"].get("ttlSecondsAfterFinished")
    if ttl is None or not is_over(resource) or "completionTime" not in status:
        return None
    ended = parse_time(status["completionTime"])
    if "onSuccess" in resource["spec"] and is_true(status, "Succeeded"):
        record = status.get("onSuccess") or {}
        if is_held_up(record):
            ended += FINAL_PATIENCE
        elif "completionTime" in record:
            ended = max(ended, parse_time(record["completionTime"]))
        elif "waitingSince" in record:
            ended = max(ended, parse_time(record["waitingSince"]) + START_PATIENCE)
        else:
            return None
    return ended + timedelta(seconds=ttl)


def is_going(resource: Resource) -> bool:
    """Whether somebody has deleted it."""
    return "deletionTimestamp" in resource["metadata"]


class Deletion:
    """What the deletion of studies needs. Safe for many threads as long as each works on another study."""

    def __init__(self, kube: Kube, tenants: Tenants, outages: Outages | None = None) -> None:
        self._kube = kube
        self._tenants = tenants
        self._outages = outages or Outages()

    def prepare(self, resource: Resource) -> Resource | None:
        """Give the study the finalizer that its policy wants, or take it away; before anything is in the storage.

        Returns:
            The study as it is then; None when it has changed meanwhile.
        """
        wanted = _wants_removal(resource)
        return resource if is_held(resource) == wanted else hold(self._kube, resource, wanted)

    def advance(self, resource: Resource, now: datetime) -> float | None:
        """Do what a study that was deleted still needs; returns the seconds until the next look, None when that is
        nothing: the garbage collector removes what was made for it."""
        if not is_held(resource):
            return None
        if not _wants_removal(resource):
            return self._release(resource)
        deadline = parse_time(resource["metadata"]["deletionTimestamp"]) + PATIENCE
        try:
            # Nobody may write afterwards: a worker that starts would make the study anew.
            if self._end_workers(resource) and now < deadline:
                return RETRY_SECONDS
            self._remove(resource)
        except _OutOfReachError as error:
            return self._release(resource, str(error))
        except (StorageUnreachableError, InvalidStudyError, ApiError) as error:
            if now >= deadline:
                return self._release(resource, f"it could not be removed for {PATIENCE}: {error}")
            self._tell_waiting(resource, error, deadline, now)
            return RETRY_SECONDS
        return self._release(resource)

    def _end_workers(self, resource: Resource) -> bool:
        """Delete the study's Jobs; whether one of them, or a pod, may still be there."""
        namespace, selector = resource["metadata"]["namespace"], f"{LABEL_STUDY}={resource['metadata']['name']}"
        jobs = [job for job in self._kube.select("Job", namespace, selector) if names.is_owned(job, resource)]
        for job in jobs:
            if not is_going(job):
                self._kube.delete(Ref.to(job, "Job"))
        pods = self._kube.select("Pod", namespace, selector)
        return bool(jobs) or any(not has_ended(pod) for pod in pods)

    def _remove(self, resource: Resource) -> None:
        metadata = resource["metadata"]
        namespace, spec = metadata["namespace"], resource["spec"]
        stored = stored_study_name(Metadata.model_validate(metadata))
        reference = (spec.get("storage") or {}).get("secretRef") or TENANT_SECRET.model_dump()
        secret = self._kube.get("Secret", namespace, reference["name"])
        if "storage" not in spec and (secret is None or is_provided(secret)):
            with self._outages.attempt(self._tenants.admin_url, namespace):
                self._tenants.remove_study(namespace, stored)
            return
        url = secret_value(secret, reference.get("key", TENANT_SECRET.key)) if secret else None
        if url is None:
            raise _OutOfReachError(f"there is no Secret {reference['name']!r} any more that says where it is")
        try:
            check_in_cluster(url)
            engine = open_engine(url)
        except InvalidStudyError as error:
            raise _OutOfReachError(f"Secret {reference['name']!r}: {error.message}") from None
        try:
            with self._outages.attempt(url), storage_errors(), engine.begin() as connection:
                if inspect(connection).has_table("studies"):
                    remove_study(connection, stored)
        finally:
            engine.dispose()

    def _tell_waiting(self, resource: Resource, error: Exception, deadline: datetime, now: datetime) -> None:
        message = (
            f"the study cannot be removed from the storage: {error}; it is tried again until {timestamp(deadline)}, "
            "then the trials stay there; with deletionPolicy: Retain nothing waits for it"
        )
        otherwise = reasons.REFUSED if isinstance(error, ApiError) else reasons.STORAGE_UNREACHABLE
        reason = error.reason if isinstance(error, InvalidStudyError) else otherwise
        state = State("StorageReady", "False", reason, message)
        status = dict(resource.get("status") or {})
        generation = int(resource["metadata"]["generation"])
        status["conditions"] = merge(status.get("conditions", []), [state], generation, now)
        apply_status(self._kube, Snapshot(resource), Decision(status))

    def _release(self, resource: Resource, left_because: str = "") -> float | None:
        if hold(self._kube, resource, False) is None:
            return RETRY_SECONDS  # changed meanwhile, or gone
        if left_because:
            stored = stored_study_name(Metadata.model_validate(resource["metadata"]))
            message = f"study {stored!r} stays in the storage: {left_because}; optuna delete-study removes it"
            emit(self._kube, resource, Change(State("Deleted", "True", reasons.STUDY_LEFT_IN_STORAGE, message), True))
        return None


def hold(kube: Kube, resource: Resource, wanted: bool) -> Resource | None:
    """Add our finalizer, or remove it; others' stay. None when the study has changed meanwhile, or is gone."""
    others = [name for name in resource["metadata"].get("finalizers", []) if name != FINALIZER]
    return kube.set_finalizers(KIND, resource, [*others, FINALIZER] if wanted else others)


def is_held(resource: Resource) -> bool:
    """Whether our finalizer is on the study."""
    return FINALIZER in resource["metadata"].get("finalizers", [])


def _wants_removal(resource: Resource) -> bool:
    return bool(resource["spec"].get("deletionPolicy") == "Delete")
