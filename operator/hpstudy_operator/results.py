"""What a study leaves for others: the ConfigMap with its best trial, and the Job of onSuccess."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import Study
from hpstudy.report.best import documents, template_values
from hpstudy.storage.reading import StudySnapshot
from hpstudy_operator import names
from hpstudy_operator.conditions import Change, State, is_true, parse_time, shorten, timestamp
from hpstudy_operator.final_job import build_final_job
from hpstudy_operator.groups import Group, ended_container, last_words
from hpstudy_operator.kube import Ref, Resource
from hpstudy_operator.observe import Snapshot
from hpstudy_operator.plan import contains, name_taken

LOOK_SECONDS = 10.0
"""Between two looks at a Job of onSuccess that does not run: the cluster says nothing of a pod that still waits."""
HELD_SECONDS = 60.0
"""Between two attempts to make one that cannot be made: refused by a quota, say, or another Job has its name."""

Record = Mapping[str, Any]
"""status.onSuccess."""
_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class FinalPlan:
    """What the Job of onSuccess needs."""

    record: Record | None = None
    delete: tuple[Ref, ...] = ()
    apply: tuple[Resource, ...] = ()

    @property
    def is_waiting(self) -> bool:
        """For something that may come without an event."""
        return self.record is not None and self.record["state"] == "Pending" and not is_held_up(self.record)


def plan_best(snapshot: Snapshot) -> tuple[Resource, ...]:
    """The ConfigMap with the best trial where it says something new. One of somebody else's is never touched."""
    stored = snapshot.storage.snapshot if snapshot.storage else None
    if snapshot.study is None or stored is None or not stored.best:
        return ()
    wanted = build_best(snapshot.resource, snapshot.study, stored)
    live = snapshot.children.get(("ConfigMap", wanted["metadata"]["name"]))
    # By the whole: a hyperparameter that the best trial no longer has must go.
    same = live is not None and live.get("data") == wanted["data"] and contains(live, wanted)
    return () if same or name_taken(snapshot, "ConfigMap", wanted["metadata"]["name"]) else (wanted,)


def build_best(study: Resource, parsed: Study, stored: StudySnapshot) -> Resource:
    """The ConfigMap with the best trial."""
    metadata = study["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.best_name(metadata["name"]),
            "namespace": metadata["namespace"],
            "labels": names.labels(metadata["name"]),
            "ownerReferences": [names.owner(study)],
        },
        "data": documents(stored, parsed.spec),
    }


def plan_final(snapshot: Snapshot, status: Mapping[str, Any], now: datetime, *, image: str) -> FinalPlan:
    """Plan the Job of onSuccess.

    It is made once for a success: written down first, and made by the next pass. It is made anew when the study was
    changed, has succeeded again and either another trial is the best or the Job has failed or not started.

    Args:
        status: of the study, as it is about to be written.
        image: for workers that name none.
    """
    before: Record | None = snapshot.status.get("onSuccess")
    study, generation = snapshot.study, snapshot.generation
    wanted = study is not None and study.spec.on_success is not None and is_true(dict(status), "Succeeded", generation)
    stored = snapshot.storage.snapshot if snapshot.storage else None
    if wanted and stored is not None and (before is None or _is_outdated(before, stored, generation)):
        old = (Ref.to(snapshot.final.job, "Job"),) if snapshot.final and snapshot.final.job else ()
        return FinalPlan(_first_record(snapshot, stored, now), delete=old)
    if before is None:
        return FinalPlan()
    if snapshot.final is not None and snapshot.final.generation == before["observedGeneration"]:
        return FinalPlan(_look(before, snapshot.final, now))
    if before["state"] in _ENDED:
        return FinalPlan(before)  # its Job may be gone
    if "startTime" in before:
        return FinalPlan(_end(before, "Failed", "the Job was deleted before it ended", timestamp(now)))
    if not wanted or stored is None or snapshot.final is not None:  # one of before that is being removed
        return FinalPlan(before)
    assert study is not None
    return _make(snapshot, study, stored, before, now, image)


def is_held_up(record: Record) -> bool:
    """Whether the Job could not be made so far, for a reason that the record has."""
    return record.get("state") == "Pending" and "startTime" not in record and "message" in record


def final_changes(before: Record | None, after: Record | None) -> list[Change]:
    """What is worth an event."""
    before = before or {}
    if after is None or after == before:
        return []
    job, trial, words = after["job"], after.get("trial"), after.get("message", "")
    found = []
    if "startTime" in after and after["startTime"] != before.get("startTime"):
        found.append(_change(reasons.ON_SUCCESS_CREATED, f"Job {job} runs with the hyperparameters of trial {trial}"))
    if after["state"] != before.get("state"):
        if after["state"] == "Succeeded":
            found.append(_change(reasons.ON_SUCCESS_SUCCEEDED, f"Job {job} has succeeded"))
        elif after["state"] == "Failed":
            found.append(_change(reasons.ON_SUCCESS_FAILED, words, warning=True))
    if after["state"] not in _ENDED and words and not before.get("message"):
        found.append(_change(reasons.ON_SUCCESS_WAITING, words, warning=True))
    return found


def _change(reason: str, message: str, *, warning: bool = False) -> Change:
    return Change(State("OnSuccess", "True", reason, message), warning)


def _is_outdated(before: Record, stored: StudySnapshot, generation: int) -> bool:
    if before["observedGeneration"] == generation:
        return False
    best = None if stored.winner is None else stored.winner.number
    return before.get("trial") != best or before["state"] in {"Pending", "Failed"}


def _first_record(snapshot: Snapshot, stored: StudySnapshot, now: datetime) -> Record:
    record = {
        "job": names.final_name(snapshot.resource["metadata"]["name"]),
        "state": "Pending",
        "observedGeneration": snapshot.generation,
    }
    if stored.winner is None:
        return _end(
            record, "Failed", "no trial is complete within the constraints: there is no best one", timestamp(now)
        )
    return {**record, "trial": stored.winner.number}


def _make(
    snapshot: Snapshot, study: Study, stored: StudySnapshot, before: Record, now: datetime, image: str
) -> FinalPlan:
    if found := name_taken(snapshot, "Job", before["job"]):
        return FinalPlan({**before, "message": found.message})
    if stored.winner is None:
        return FinalPlan(before)
    try:
        job = build_final_job(snapshot.resource, template_values(stored.winner, study.spec), image=image)
    except InvalidStudyError as error:
        return FinalPlan(_end(before, "Failed", error.message, timestamp(now)))
    return FinalPlan({**before, "trial": stored.winner.number}, apply=(job,))


def _look(before: Record, final: Group, now: datetime) -> Record:
    """What a Job that exists says."""
    assert final.job is not None
    record = {**before, "startTime": _utc(final.job["metadata"]["creationTimestamp"])}
    record.pop("message", None)
    waited = record.pop("waitingSince", timestamp(now))
    status = final.job.get("status", {})
    for condition in status.get("conditions", []):
        if condition["status"] == "True" and condition["type"] == "Complete":
            return _end(record, "Succeeded", None, condition.get("lastTransitionTime"))
        if condition["status"] == "True" and condition["type"] == "Failed":
            return _end(record, "Failed", _failure(final, condition), condition.get("lastTransitionTime"))
    if final.is_held:
        return {**record, "state": "Pending", "message": "the Job is suspended until it is admitted"}
    if status.get("ready") or status.get("succeeded"):
        record["state"] = "Running"
    elif record["state"] == "Pending" and not final.has_live_pods:
        record["waitingSince"] = waited
    if waiting := final.waiting() or final.missing(now):
        # The same words as of a worker's pod, but for where to mend it.
        record["message"] = shorten(waiting.message.replace("workers.template", "onSuccess.template"))
    return record


def _failure(final: Group, condition: Resource) -> str:
    how = condition.get("message") or condition.get("reason") or "it failed"
    ended = [pod for pod in final.pods if ended_container(pod)[1].get("exitCode")]
    last = max(ended, key=lambda pod: str(ended_container(pod)[1].get("finishedAt")), default=None)
    return f"{how}; {last_words(last)}" if last else str(how)


def _end(record: Record, state: str, message: str | None, at: str | None) -> Record:
    ended = {key: value for key, value in record.items() if key != "waitingSince"} | {"state": state}
    return (
        ended
        | ({} if message is None else {"message": shorten(message)})
        | ({} if at is None else {"completionTime": at})
    )


def _utc(stamp: str) -> str:
    return timestamp(parse_time(stamp))
