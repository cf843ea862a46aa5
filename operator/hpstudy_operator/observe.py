"""What is: everything that a decision needs, read afresh."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.checkpoints import check_place
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.load import parse_study
from hpstudy.api.names import LABEL_FINAL, LABEL_GROUP, LABEL_STUDY
from hpstudy.api.revision import revision
from hpstudy.api.study import Study
from hpstudy.samplers.build import check_algorithms
from hpstudy.storage.ends import PodEnd
from hpstudy_operator import builders, names
from hpstudy_operator.conditions import is_true, parse_time
from hpstudy_operator.ends import latest_end
from hpstudy_operator.final_job import build_trial_balloon
from hpstudy_operator.groups import Group, has_ended
from hpstudy_operator.kube import Kube, Ref, RefusedError, Resource
from hpstudy_operator.storages import Storages, StorageView

QUIET = timedelta(minutes=30)
"""Without a trial that starts or ends, after which it is worth a query how long the longest took: data and models are
loaded within that, and most trials end."""
LINGER = timedelta(seconds=60)
"""How long a study that is over is still looked at: its workers end by themselves within seconds and keep their logs,
and a trial that was cut off is handed back within the pods' grace period. After that it costs nothing."""


@dataclass(frozen=True)
class Key:
    """A study's namespace and name."""

    namespace: str
    name: str

    @classmethod
    def of(cls, resource: Resource) -> "Key":
        """The key of an object; a study's, or that of another in its place."""
        return cls(resource["metadata"]["namespace"], resource["metadata"]["name"])

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Snapshot:
    """A study and all that was made for it, at one time."""

    resource: Resource
    """The HPStudy as the API server has it."""
    study: Study | None = None
    """The same, parsed; None when it is invalid."""
    invalid: InvalidStudyError | None = None
    storage: StorageView | None = None
    """None when nobody needs to look."""
    groups: tuple[Group, ...] = ()
    """Worker groups that exist, by index."""
    children: Mapping[tuple[str, str], Resource] = field(default_factory=dict)
    """Jobs, Services and ConfigMaps by kind and name: the study's own, and what else has a name that it needs."""
    final: Group | None = None
    """The Job of onSuccess with its pods, of which nobody needs to know more once its end is in the status."""

    @property
    def generation(self) -> int:
        """Of the spec."""
        return int(self.resource["metadata"]["generation"])

    @property
    def status(self) -> dict[str, Any]:
        """As it was last written."""
        return dict(self.resource.get("status") or {})

    @property
    def active_jobs(self) -> tuple[Ref, ...]:
        """Jobs that may run pods."""
        return tuple(Ref.to(group.job, "Job") for group in self.groups if group.job and group.is_active)

    @property
    def is_suspended(self) -> bool:
        """Somebody wants the study to stop for a while; also one that is not valid otherwise."""
        return bool(self.resource["spec"].get("suspend"))

    @property
    def running_groups(self) -> frozenset[int]:
        """Worker groups that train: the storage has running trials of theirs, and there are pods to run them."""
        stored = self.storage.snapshot.running_groups if self.storage and self.storage.snapshot else frozenset()
        return frozenset(group.index for group in self.groups if group.index in stored and group.has_live_pods)

    @property
    def is_over(self) -> bool:
        """The study succeeded or failed, as it is now written."""
        return is_over(self.resource)


def is_over(resource: Resource) -> bool:
    """Whether a study succeeded or failed, as it is now written."""
    status, generation = resource.get("status") or {}, resource["metadata"]["generation"]
    return is_true(status, "Succeeded", generation) or is_true(status, "Failed", generation)


def is_settled(resource: Resource, now: datetime) -> bool:
    """Whether a study has been over for long enough that only its Jobs matter, should one still be there."""
    return has_lingered(resource, now) and not awaits_final_job(resource)


def has_lingered(resource: Resource, now: datetime) -> bool:
    """Whether a study has been over for long enough for its workers to have ended."""
    completed = (resource.get("status") or {}).get("completionTime")
    return is_over(resource) and completed is not None and now > parse_time(completed) + LINGER


def awaits_final_job(resource: Resource) -> bool:
    """Whether a study has succeeded and its Job of onSuccess has still to be made."""
    status = resource.get("status") or {}
    if "onSuccess" not in resource["spec"] or not is_true(status, "Succeeded", resource["metadata"]["generation"]):
        return False
    record = status.get("onSuccess") or {}
    return "startTime" not in record and "completionTime" not in record


def observe(kube: Kube, storages: Storages, resource: Resource, now: datetime, *, image: str) -> Snapshot:
    """Read all that was made for a study, and what its storage says.

    Args:
        image: of the workers, for a template that names none.
    """
    key = Key.of(resource)
    selector = f"{LABEL_STUDY}={key.name}"
    if is_settled(resource, now):
        jobs, final = _split(resource, kube.select("Job", key.namespace, selector))
        return Snapshot(resource, groups=_groups(resource, jobs, []), final=_final(kube, resource, final))
    study, invalid = _parse(kube, resource)
    # The Jobs before the storage: a Job that was complete before its trials were counted has told all of them.
    jobs, final = _split(resource, kube.select("Job", key.namespace, selector))
    pods = kube.select("Pod", key.namespace, selector)
    children = {("Job", job["metadata"]["name"]): job for job in jobs}
    children |= {("Service", s["metadata"]["name"]): s for s in kube.select("Service", key.namespace, selector)}
    groups = _groups(resource, jobs, pods)
    if study is not None and (invalid := _try_out_workers(kube, resource, study, groups, image)):
        study = None
    if study is not None:
        children |= _by_name(kube, key, study, children)
    return Snapshot(
        resource=resource,
        study=study,
        invalid=invalid,
        storage=None
        if study is None
        else storages.look(
            study,
            int(resource["metadata"]["generation"]),
            _ends(groups),
            with_longest=_is_quiet(resource, now),
            with_begun=any(group.kills(None) for group in groups),
        ),
        groups=groups,
        children=children,
        final=_final(kube, resource, final),
    )


def _is_quiet(resource: Resource, now: datetime) -> bool:
    moved = (resource.get("status") or {}).get("lastTrialTime")
    return moved is not None and now - parse_time(moved) > QUIET


def _parse(kube: Kube, resource: Resource) -> tuple[Study | None, InvalidStudyError | None]:
    try:
        study = parse_study(resource)
        check_algorithms(study.spec)
        check_place(study.spec.checkpoints)
        builders.check_template(resource)
        if study.spec.on_success is not None:
            _try_out(kube, resource)
    except InvalidStudyError as error:
        return None, error
    return study, None


def _try_out_workers(
    kube: Kube, resource: Resource, study: Study, groups: Iterable[Group], image: str
) -> InvalidStudyError | None:
    """Why the Jobs of worker groups cannot be made, if so: asked before those that run are told that the study has
    changed. Where they are made from what is written now, nothing is to be asked: policies may be newer than they."""
    is_accepted = is_true(resource.get("status") or {}, "Accepted", resource["metadata"]["generation"])
    revisions = {group.revision for group in groups if group.is_active}
    if is_accepted or revisions == {revision(study.spec)}:
        return None
    try:
        kube.try_out(builders.build_worker_balloon(resource, image=image))
    except RefusedError as error:
        message = f"the Job of a worker group is refused: {error}"
        if error.status == 403:
            return InvalidStudyError(reasons.REFUSED, message)
        return InvalidStudyError(reasons.INVALID_TEMPLATE, f"{message}; correct workers.template")
    return None


def _try_out(kube: Kube, resource: Resource) -> None:
    """See that the Job of onSuccess can be made, before anything is run for it.

    Raises:
        InvalidStudyError: the API server would not take it.
    """
    balloon = build_trial_balloon(resource)
    if is_true(resource.get("status") or {}, "Accepted", resource["metadata"]["generation"]):
        return
    try:
        kube.try_out(balloon)
    except RefusedError as error:
        raise InvalidStudyError(reasons.INVALID_ON_SUCCESS, f"onSuccess.template: {error}") from None


def _by_name(
    kube: Kube, key: Key, study: Study, known: Mapping[tuple[str, str], Resource]
) -> dict[tuple[str, str], Resource]:
    """What has a name that the study needs, although it does not have its labels: it must not be overwritten."""
    groups = [names.group_name(key.name, index) for index in range(study.spec.parallelism)]
    wanted = [("ConfigMap", names.config_name(key.name)), ("ConfigMap", names.best_name(key.name))]
    wanted += [(kind, group) for group in groups for kind in ("Service", "Job")]
    if study.spec.on_success is not None:
        wanted.append(("Job", names.final_name(key.name)))
    found = {}
    for kind, name in wanted:
        if (kind, name) not in known and (resource := kube.get(kind, key.namespace, name)):
            found[kind, name] = resource
    return found


def _split(study: Resource, jobs: list[Resource]) -> tuple[list[Resource], Resource | None]:
    """The Jobs of worker groups, and that of onSuccess."""
    final = [job for job in jobs if LABEL_FINAL in job["metadata"]["labels"]]
    own = (job for job in final if names.is_owned(job, study))
    return [job for job in jobs if job not in final], next(own, None)


def _final(kube: Kube, study: Resource, job: Resource | None) -> Group | None:
    if job is None:
        return None
    ended = ((study.get("status") or {}).get("onSuccess") or {}).get("completionTime")
    selector = f"{LABEL_FINAL}={study['metadata']['name']}"
    pods = [] if ended else kube.select("Pod", job["metadata"]["namespace"], selector)
    return Group(-1, job, tuple(pod for pod in pods if names.is_owned(pod, job)))


def _groups(study: Resource, jobs: list[Resource], pods: list[Resource]) -> tuple[Group, ...]:
    """Jobs of this very study with their pods, and pods whose Job is gone."""
    by_index = {_index(job): job for job in jobs if names.is_owned(job, study)}
    own: dict[int, list[Resource]] = {index: [] for index in by_index}
    leftovers: dict[int, list[Resource]] = {}
    for pod in pods:
        index = _index(pod)
        if index in by_index and names.is_owned(pod, by_index[index]):
            own[index].append(pod)
        elif not has_ended(pod):
            leftovers.setdefault(index, []).append(pod)
    return tuple(
        Group(index, by_index.get(index), tuple(own.get(index, ())), tuple(leftovers.get(index, ())))
        for index in sorted({*own, *leftovers})
    )


def _ends(groups: Iterable[Group]) -> dict[int, PodEnd]:
    """How the latest pod of each group ended."""
    found = {group.index: latest_end(group.pods) for group in groups}
    return {index: end for index, end in found.items() if end is not None}


def _index(resource: Resource) -> int:
    try:
        return int(resource["metadata"]["labels"][LABEL_GROUP])
    except (KeyError, ValueError):
        return -1  # somebody gave it our label
