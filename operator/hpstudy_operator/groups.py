"""What the Job and the pods of a worker group say, in words."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from hpstudy.api import reasons
from hpstudy.api.exits import EXIT_INVALID, EXIT_PREEMPTED
from hpstudy_operator import names
from hpstudy_operator.builders import EXIT_KILLED
from hpstudy_operator.conditions import parse_time
from hpstudy_operator.kube import Resource
from hpstudy_operator.template import CONTAINER

POD_PATIENCE = timedelta(seconds=60)
"""A Job without a pod for longer than this is refused its pods: the Job controller makes them within a second or two,
and the cluster's own restart takes less than a minute."""
_WAITING = {
    "ErrImagePull": reasons.IMAGE_PULL_FAILED,
    "ImagePullBackOff": reasons.IMAGE_PULL_FAILED,
    "InvalidImageName": reasons.IMAGE_PULL_FAILED,
    "ErrImageNeverPull": reasons.IMAGE_PULL_FAILED,
    "CreateContainerConfigError": reasons.CONTAINER_FAILED,
    "CreateContainerError": reasons.CONTAINER_FAILED,
    "RunContainerError": reasons.CONTAINER_FAILED,
    "CrashLoopBackOff": reasons.CONTAINER_FAILED,
}
_ADVICE = {
    reasons.IMAGE_PULL_FAILED: "correct the image or the imagePullSecrets in workers.template",
    reasons.CONTAINER_FAILED: "correct the container in workers.template",
    reasons.UNSCHEDULABLE: "ask for less in workers.template, or add nodes",
}
# The kubelet says the same error in two ways by turns; a status that followed would be written for ever.
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*": (ErrImagePull: )?')
_CAMEL_CASE = re.compile(r"^[A-Z][A-Za-z0-9]{0,99}$")


@dataclass(frozen=True)
class Finding:
    """Something that a person should know."""

    reason: str
    message: str


@dataclass(frozen=True)
class Group:
    """A worker group as it is."""

    index: int
    job: Resource | None
    pods: tuple[Resource, ...] = ()
    """Pods of this Job."""
    leftovers: tuple[Resource, ...] = ()
    """Pods of an earlier Job of the group that have not ended."""

    @property
    def generation(self) -> int:
        """The study's generation that a Job of onSuccess was made from."""
        return int(self._annotation(names.ANNOTATION_GENERATION))

    @property
    def revision(self) -> str:
        """Of the spec that the Job was made from."""
        return self._annotation(names.ANNOTATION_REVISION, "")

    @property
    def fingerprint(self) -> str:
        """Of the spec that the Job was made for."""
        return self._annotation(names.ANNOTATION_FINGERPRINT, "")

    @property
    def storage(self) -> str:
        """The identity of the storage that the Job was made for; empty where nobody noted it."""
        return self._annotation(names.ANNOTATION_STORAGE, "")

    @property
    def attempt(self) -> int:
        """How often the group was started again."""
        return int(self._annotation(names.ANNOTATION_ATTEMPT))

    @property
    def is_complete(self) -> bool:
        """Every worker ended and said that the study is over."""
        return self._has("Complete") or self._has("SuccessCriteriaMet")

    @property
    def is_failed(self) -> bool:
        """The Job, or a worker that found the study invalid, has given up."""
        return bool(self._gave_up()) or self._invalid() is not None

    @property
    def is_beyond_limit(self) -> bool:
        """The Job has given up because of how many pods have failed since it was made."""
        return self._gave_up().get("reason") == "BackoffLimitExceeded" and self._invalid() is None

    @property
    def is_active(self) -> bool:
        """The Job exists and may run pods."""
        return self.job is not None and not self._has("Complete") and not self._has("Failed")

    @property
    def is_held(self) -> bool:
        """Held back, by Kueue for example."""
        return bool(self.job and self.job["spec"].get("suspend"))

    @property
    def is_ready(self) -> bool:
        """All pods of the group run."""
        return self.job is not None and self.ready_pods >= self.job["spec"]["completions"]

    @property
    def has_live_pods(self) -> bool:
        """Whether a process of the group may run."""
        return any(pod.get("status", {}).get("phase") == "Running" for pod in (*self.pods, *self.leftovers))

    @property
    def ending_pods(self) -> int:
        """Pods that have not ended, of this Job and of earlier ones."""
        return sum(1 for pod in (*self.pods, *self.leftovers) if not has_ended(pod))

    @property
    def ended_pods(self) -> int:
        """Pods of this Job that have ended."""
        return sum(1 for pod in self.pods if has_ended(pod))

    def kills(self, since: datetime | None) -> int:
        """Pods that were killed with SIGKILL after a moment, as one is that needs more memory than its limit. The Job
        replaces them for as long as it exists."""
        ends = (ended_container(pod)[1] for pod in self._ended_badly())
        # A container that was gone when its node came back was killed, for all that the kubelet knows, at no time.
        killed = (end.get("finishedAt") for end in ends if end["exitCode"] == EXIT_KILLED)
        return sum(1 for at in killed if since is None or (at is not None and parse_time(at) > since))

    def failures(self) -> list[datetime]:
        """When the pods failed that the Job counts: those of which nobody wanted the end."""
        failed = [pod for pod in self.pods if pod["status"].get("phase") == "Failed" and disruption(pod) is None]
        ends = [(ended_container(pod)[1], pod) for pod in failed]
        # A pod that its node did not take has no container.
        counted = (
            end.get("finishedAt") or pod["status"].get("startTime")
            for end, pod in ends
            if end.get("exitCode") not in {EXIT_KILLED, EXIT_PREEMPTED}
        )
        return sorted(parse_time(stamp) for stamp in counted if stamp)

    @property
    def ready_pods(self) -> int:
        """Pods that run."""
        return sum(1 for pod in self.pods if is_ready(pod))

    def failure(self, kills: int = 0, *, what: str = "failed") -> Finding:
        """Why the group has failed, from the worker's last words.

        Args:
            kills: of its pods, where they are the reason.
            what: it does, if it has not failed yet.
        """
        if invalid := self._invalid():
            return invalid
        condition = self._gave_up()
        how = condition.get("message") or condition.get("reason") or f"{kills} of its pods were killed"
        message = f"worker group {self.index} {what}: {how}"
        last = self._last_failed()
        return Finding(reasons.WORKER_GROUP_FAILED, f"{message}; {last_words(last)}" if last else message)

    def waiting(self) -> Finding | None:
        """Why a pod of the group cannot start."""
        findings = (_waiting(pod) for pod in self.pods)
        return next((finding for finding in findings if finding), None)

    def stall(self, now: datetime) -> Finding | None:
        """Why the group does not run, when it waits for something that may not come by itself."""
        if found := self.waiting():
            return found
        if not self.is_active or self.is_held or self.ready_pods:
            return None
        if failed := self._last_failed():
            return Finding(
                reasons.CONTAINER_FAILED, f"{last_words(failed)}; the Job starts it again, after a growing delay"
            )
        return self.missing(now)

    def missing(self, now: datetime) -> Finding | None:
        """That the cluster makes no pods for the Job."""
        if self.pods or not self.job or now - parse_time(self.job["metadata"]["creationTimestamp"]) <= POD_PATIENCE:
            return None
        name, namespace = self.job["metadata"]["name"], self.job["metadata"]["namespace"]
        return Finding(
            reasons.PODS_MISSING,
            f"the cluster makes no pods for Job {name!r}; kubectl -n {namespace} describe job {name} tells why",
        )

    def _invalid(self) -> Finding | None:
        for pod in self._ended_badly():
            container, terminated = ended_container(pod)
            if container == worker_name(pod) and terminated["exitCode"] == EXIT_INVALID:
                return _parse_verdict(terminated.get("message", "")) or Finding(
                    reasons.WORKER_GROUP_FAILED, last_words(pod)
                )
        return None

    def _ended_badly(self) -> Iterator[Resource]:
        return (pod for pod in self.pods if ended_container(pod)[1].get("exitCode") and disruption(pod) is None)

    def _last_failed(self) -> Resource | None:
        return max(self._ended_badly(), key=lambda pod: ended_container(pod)[1].get("finishedAt") or "", default=None)

    def _gave_up(self) -> Resource:
        """The condition that the Job has failed, or is about to once its pods have ended; empty when it has not."""
        return self._condition("Failed") or self._condition("FailureTarget") or {}

    def _annotation(self, key: str, otherwise: str = "0") -> str:
        annotations = self.job["metadata"].get("annotations", {}) if self.job else {}
        return str(annotations.get(key, otherwise))

    def _has(self, condition: str) -> bool:
        return self._condition(condition) is not None

    def _condition(self, name: str) -> Resource | None:
        conditions = (self.job or {}).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == name and c["status"] == "True"), None)


def has_ended(pod: Resource) -> bool:
    """Whether no process of the pod runs any more."""
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def disruption(pod: Resource) -> Resource | None:
    """The condition of a pod that the cluster wanted gone: an eviction, a preemption, a lost node."""
    conditions = pod.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "DisruptionTarget" and c["status"] == "True"), None)


def is_ready(pod: Resource) -> bool:
    """Whether a pod runs, and is to go on."""
    conditions = pod.get("status", {}).get("conditions", [])
    return "deletionTimestamp" not in pod["metadata"] and any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )


def _waiting(pod: Resource) -> Finding | None:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"] or has_ended(pod):
        return None
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting", {})
        if reason := _WAITING.get(waiting.get("reason", "")):
            detail = _BACK_OFF.sub("", waiting.get("message", waiting["reason"]))
            subject = f"image {container.get('image')!r}" if reason == reasons.IMAGE_PULL_FAILED else "container"
            return Finding(reason, f"pod {name}, {subject}: {detail}; {_ADVICE[reason]}")
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            detail = condition.get("message", "no node fits")
            return Finding(reasons.UNSCHEDULABLE, f"pod {name}: {detail}; {_ADVICE[reasons.UNSCHEDULABLE]}")
    return None


def ended_container(pod: Resource) -> tuple[str, Resource]:
    """Name and state of the container that ended the pod: the worker if it failed, else the first that did. A sidecar
    never does."""
    status = pod.get("status", {})
    sidecars = {each["name"] for each in pod["spec"].get("initContainers", []) if each.get("restartPolicy") == "Always"}
    found: list[tuple[str, Resource]] = [
        (container["name"], container["state"]["terminated"])
        for container in [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
        if container.get("state", {}).get("terminated", {}).get("exitCode") and container["name"] not in sidecars
    ]
    worker = worker_name(pod)
    return next((item for item in found if item[0] == worker), found[0] if found else ("", {}))


def worker_name(pod: Resource) -> str:
    """Name of the container that runs trials."""
    containers = pod["spec"]["containers"]
    return str(containers[0]["name"] if containers else CONTAINER)  # the builder puts it first


def last_words(pod: Resource) -> str:
    """How and with which message the container ended that ended the pod."""
    container, terminated = ended_container(pod)
    detail = f" ({terminated['reason']})" if terminated.get("reason") not in {None, "Error"} else ""
    words = str(terminated.get("message", "")).strip()
    text = f"pod {pod['metadata']['name']}, container {container} ended with code {terminated['exitCode']}{detail}"
    return f"{text}: {words}" if words else text


def _parse_verdict(message: str) -> Finding | None:
    """What a worker leaves behind when the study is invalid: {"reason": …, "message": …}."""
    try:
        verdict = json.loads(message)
        reason, words = str(verdict["reason"]), str(verdict["message"])
    except (ValueError, TypeError, KeyError):
        return None
    return Finding(reason if _CAMEL_CASE.match(reason) else reasons.WORKER_GROUP_FAILED, words)
