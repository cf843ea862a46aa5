"""What to do about a study: a pure function of what was observed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.revision import revision
from hpstudy.api.study import Budget, Study
from hpstudy.storage.reading import StudySnapshot
from hpstudy.trials.budget import Next, judge
from hpstudy_operator.conditions import State, is_true, timestamp
from hpstudy_operator.groups import Finding
from hpstudy_operator.kube import Ref, Resource
from hpstudy_operator.observe import Snapshot, has_lingered, is_settled
from hpstudy_operator.plan import is_stale, make_plan
from hpstudy_operator.results import HELD_SECONDS, LOOK_SECONDS, is_held_up, plan_best, plan_final
from hpstudy_operator.stalls import first_stall, quiet_stall, storage_stall
from hpstudy_operator.status import build_status, last_movement
from hpstudy_operator.storages import StorageView

POLL_SECONDS = 5.0
"""Between two looks at a study that waits for something of which no event comes: a storage that is away, workers that
end."""
PENDING_SECONDS = 20.0
"""Between two looks at a study whose pods wait, for a queue or a node: they tell when they start, but not that they
have waited for too long. Hundreds may wait."""
RUNNING_SECONDS = 120.0
"""Between two looks at a study all of whose groups are ready: its trials, Jobs and pods tell by themselves. It repairs
what nobody tells of, such as a Service that somebody deleted, for six reads of the API server."""
RESYNC_SECONDS = 600.0
"""Every study is looked at so often even when nothing happens, in case an event was missed: two reads of the API server
for a study that is over."""
LIMIT_MARGIN = timedelta(seconds=5)
"""Workers notice by themselves that their time or their GPU hours are used up, and record it. Where none is there the
operator does, this much later: never while one that has just asked in time makes its trial, nor because its clock is
ahead of theirs."""
_SOON_SECONDS = 0.1
REFUSED_SECONDS = 30.0
"""Until an object that the API server refused is tried again: a quota may be raised without an event for us."""


@dataclass(frozen=True)
class Decision:
    """What to change. Deletions come first, the status last."""

    status: Mapping[str, Any]
    delete: tuple[Ref, ...] = ()
    apply: tuple[Resource, ...] = ()
    results: tuple[Resource, ...] = ()
    """What others take from the study: applied too, and no reason against the study where the API server refuses it."""
    requeue: float = RESYNC_SECONDS
    """Seconds until the next look, should no event come earlier."""


def decide(snapshot: Snapshot, now: datetime, *, image: str, refused: str | None = None) -> Decision:
    """Decide what a study needs.

    Args:
        image: of the workers, for a template that names none.
        refused: what the API server said against the objects decided on before.
    """
    decision = _decide(snapshot, now, image, refused)
    final = plan_final(snapshot, decision.status, now, image=image)
    status = {key: value for key, value in decision.status.items() if key != "onSuccess"}
    return replace(
        decision,
        status=status if final.record is None else {**status, "onSuccess": final.record},
        delete=(*decision.delete, *final.delete),
        results=(*plan_best(snapshot), *final.apply),
        requeue=min(decision.requeue, LOOK_SECONDS) if final.is_waiting else decision.requeue,
    )


def _decide(snapshot: Snapshot, now: datetime, image: str, refused: str | None) -> Decision:
    if is_settled(snapshot.resource, now):
        return Decision(snapshot.status, delete=snapshot.active_jobs)
    if snapshot.study is None or snapshot.storage is None:
        return _not_accepted(snapshot, snapshot.invalid, now, requeue=RESYNC_SECONDS)
    if snapshot.is_over:
        return _over(snapshot, now)
    if refused is not None:
        error = InvalidStudyError(reasons.INVALID_TEMPLATE, f"{refused}; correct workers.template")
        return _not_accepted(snapshot, error, now, requeue=REFUSED_SECONDS)
    if snapshot.storage.invalid is not None:
        return _not_accepted(snapshot, snapshot.storage.invalid, now, requeue=REFUSED_SECONDS)
    if snapshot.storage.snapshot is None:
        return _without_storage(snapshot, snapshot.storage, now)
    return _accepted(snapshot, snapshot.study, snapshot.storage, snapshot.storage.snapshot, now, image)


def _over(snapshot: Snapshot, now: datetime) -> Decision:
    """Its last trials are still counted, or its Job of onSuccess is to be made."""
    held_up = is_held_up(snapshot.status.get("onSuccess") or {})
    hanging = snapshot.active_jobs if has_lingered(snapshot.resource, now) else ()
    return Decision(build_status(snapshot, (), now), hanging, requeue=HELD_SECONDS if held_up else POLL_SECONDS)


def _not_accepted(snapshot: Snapshot, error: InvalidStudyError | None, now: datetime, *, requeue: float) -> Decision:
    """Start nothing. What runs goes on: it was made from a spec that was accepted."""
    assert error is not None
    states = [State("Accepted", "False", error.reason, error.message)]
    if snapshot.storage is not None:
        states.append(_storage_state(snapshot.storage))
    elif not any(condition["type"] == "StorageReady" for condition in snapshot.status.get("conditions", [])):
        states.append(State("StorageReady", "Unknown", reasons.NOT_STARTED, "not looked at yet"))
    states += _unfinished(snapshot, first_stall(snapshot, now))
    start = _start_time(snapshot, now)
    status = build_status(snapshot, states, now, startTime=start, workers=_workers(snapshot))
    return Decision(status, _to_suspend(snapshot), requeue=requeue)


def _without_storage(snapshot: Snapshot, storage: StorageView, now: datetime) -> Decision:
    stall = storage_stall(snapshot, storage, now) or first_stall(snapshot, now)
    states = [_accepted_state(), _storage_state(storage), *_unfinished(snapshot, stall)]
    status = build_status(snapshot, states, now, workers=_workers(snapshot))
    return Decision(status, _to_suspend(snapshot), requeue=POLL_SECONDS)


def _accepted(
    snapshot: Snapshot, study: Study, storage: StorageView, stored: StudySnapshot, now: datetime, image: str
) -> Decision:
    verdict = judge(stored, study.spec.budget, now - LIMIT_MARGIN)
    states = [_accepted_state(), _storage_state(storage)]
    if verdict.next in {Next.SUCCEEDED, Next.FAILED}:
        # A trial that a group still trains is waited for; one that nobody trains any more will not end.
        if not stored.counts.running or not snapshot.active_jobs:
            over = "Succeeded" if verdict.next is Next.SUCCEEDED else "Failed"
            return _finish(snapshot, states, over, Finding(verdict.reason, verdict.message), now)
        states += _unfinished(snapshot, first_stall(snapshot, now))
        status = build_status(snapshot, states, now, workers=_workers(snapshot))
        return Decision(status, _to_suspend(snapshot), requeue=POLL_SECONDS)
    if snapshot.is_suspended:
        status = build_status(
            snapshot, [*states, *_unfinished(snapshot, None)], now, completionTime=None, workers=_workers(snapshot)
        )
        at_rest = not snapshot.active_jobs and not any(group.ending_pods for group in snapshot.groups)
        calm = RESYNC_SECONDS if at_rest else POLL_SECONDS
        requeue = _until_limit(stored, study.spec.budget, now, calm)
        return Decision(status, _to_suspend(snapshot), requeue=requeue)

    moved = last_movement(snapshot, now)
    plan = make_plan(snapshot, study, storage.secret, verdict.next, image, moved)
    if plan.failure:
        others = tuple(
            Ref.to(group.job, "Job")
            for group in snapshot.groups
            if group.job and group.is_active and not group.is_failed  # which keeps its logs
        )
        return _finish(snapshot, states, "Failed", plan.failure, now, delete=others)
    stall = plan.stall or first_stall(snapshot, now) or quiet_stall(snapshot, study.spec, moved, now)
    states += _unfinished(snapshot, stall, leaving=_leaving(snapshot, study), will_start=plan.starts_workers)
    status = build_status(
        snapshot,
        states,
        now,
        startTime=_start_time(snapshot, now, will_start=plan.starts_workers),
        completionTime=None,
        workers=_workers(snapshot, study.spec.parallelism),
    )
    if plan.delete or plan.apply:
        calm = POLL_SECONDS
    elif snapshot.groups and all(group.is_ready for group in snapshot.groups):
        calm = RUNNING_SECONDS
    else:
        calm = PENDING_SECONDS
    requeue = _until_limit(stored, study.spec.budget, now, calm)
    return Decision(status, tuple(plan.delete), tuple(plan.apply), requeue=requeue)


def _until_limit(stored: StudySnapshot, budget: Budget, now: datetime, calm: float) -> float:
    """Seconds until the next look, which is not later than the end of the time or the GPU hours."""
    due = stored.spent.due(budget)
    if due is None:
        return calm
    return min(calm, max(_SOON_SECONDS, (due + LIMIT_MARGIN - now).total_seconds()))


def _finish(
    snapshot: Snapshot, states: list[State], over: str, finding: Finding, now: datetime, delete: tuple[Ref, ...] = ()
) -> Decision:
    other = {"Succeeded": "Failed", "Failed": "Succeeded"}[over]
    states = [
        *states,
        State("Running", "False", reasons.FINISHED, "the study is over"),
        State("Suspended", "False", reasons.FINISHED, "the study is over"),
        State("Stalled", "False", reasons.FINISHED, "the study is over"),
        State(over, "True", finding.reason, finding.message),
        State(
            other,
            "False",
            reasons.NOT_FAILED if other == "Failed" else reasons.NOT_FINISHED,
            f"the study {over.lower()}",
        ),
    ]
    completed = snapshot.status.get("completionTime") if is_true(snapshot.status, over) else None
    status = build_status(
        snapshot,
        states,
        now,
        completionTime=completed or timestamp(now),
        workers={"desired": 0, "ready": 0},
    )
    return Decision(status, delete, requeue=POLL_SECONDS)


def _accepted_state() -> State:
    return State("Accepted", "True", reasons.ACCEPTED, "the study can run as written")


def _storage_state(storage: StorageView) -> State:
    return State(
        "StorageReady",
        "True" if storage.reason == reasons.STORAGE_READY else "False",
        storage.reason,
        storage.message,
    )


def _unfinished(
    snapshot: Snapshot, stall: Finding | None, *, leaving: str = "", will_start: bool = False
) -> list[State]:
    """The conditions of a study that is not over.

    Args:
        leaving: what is to be said of groups that end.
    """
    return [
        *(_suspended(snapshot) if snapshot.is_suspended else _at_work(snapshot, stall, leaving, will_start)),
        State("Succeeded", "False", reasons.NOT_FINISHED, "the study is not over"),
        State("Failed", "False", reasons.NOT_FAILED, "the study has not failed"),
    ]


def _suspended(snapshot: Snapshot) -> list[State]:
    ending = sum(group.ending_pods for group in snapshot.groups)
    rest = f"; {ending} of its pods still end, and hand back what they train" if ending else ""
    return [
        State("Running", "False", reasons.SUSPENDED, f"the study is suspended{rest}"),
        State("Suspended", "True", reasons.SUSPENDED, "set spec.suspend to false, and the study goes on"),
        State("Stalled", "False", reasons.SUSPENDED, "the study is suspended"),
    ]


def _at_work(snapshot: Snapshot, stall: Finding | None, leaving: str, will_start: bool) -> list[State]:
    ready = sum(1 for group in snapshot.groups if group.is_ready)
    active = [group for group in snapshot.groups if group.is_active]
    if ready:
        message = f"{ready} of {len(active)} worker groups ready{leaving}"
        running = State("Running", "True", reasons.TRIALS_RUNNING, message)
    elif active or will_start:
        held = any(group.is_held for group in active)
        message = "the Jobs are suspended until they are admitted" if held else "no worker group is ready yet"
        running = State("Running", "False", reasons.WAITING_FOR_WORKERS, message)
    elif any(group.leftovers for group in snapshot.groups):
        message = "the pods that ran before still end; then others start"
        running = State("Running", "False", reasons.WAITING_FOR_WORKERS, message)
    else:
        running = State("Running", "False", reasons.NOT_STARTED, "the other conditions say what is missing")
    return [
        running,
        State("Suspended", "False", reasons.NOT_SUSPENDED, "the study is not suspended"),
        State("Stalled", "True", stall.reason, stall.message)
        if stall
        else State("Stalled", "False", reasons.PROGRESSING, "nothing holds the study up"),
    ]


def _leaving(snapshot: Snapshot, study: Study) -> str:
    """Groups that end once their trials have."""
    wanted, parallelism = revision(study.spec), study.spec.parallelism
    training = [group for group in snapshot.groups if group.index in snapshot.running_groups]
    removed = sum(1 for group in training if group.index >= parallelism)
    renewed = sum(1 for group in training if group.index < parallelism and is_stale(group, wanted))
    text = f"; {removed} end their trials and leave" if removed else ""
    return text + (f"; {renewed} end their trials and start again as the study is now" if renewed else "")


def _to_suspend(snapshot: Snapshot) -> tuple[Ref, ...]:
    """Jobs that a suspended study has no more; those that have ended keep their logs."""
    return snapshot.active_jobs if snapshot.is_suspended else ()


def _start_time(snapshot: Snapshot, now: datetime, *, will_start: bool = False) -> str | None:
    """When the first Job was made; a pass that made some and was then refused others did not write it down."""
    start: str | None = snapshot.status.get("startTime")
    started = will_start or any(group.job for group in snapshot.groups)
    return start or (timestamp(now) if started else None)


def _workers(snapshot: Snapshot, desired: int | None = None) -> dict[str, int]:
    ready = sum(1 for group in snapshot.groups if group.is_ready)
    if snapshot.is_suspended:
        desired = 0
    return {"desired": len(snapshot.groups) if desired is None else desired, "ready": ready}
