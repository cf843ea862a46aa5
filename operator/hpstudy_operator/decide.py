"""What to do about a study: a pure function of what was observed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import Budget, Study
from hpstudy.storage.reading import StudySnapshot
from hpstudy.trials.budget import Next, judge
from hpstudy_operator.conditions import State, is_true, parse_time, timestamp
from hpstudy_operator.groups import Finding
from hpstudy_operator.kills import kill_records
from hpstudy_operator.kube import Ref, RefusedError, Resource
from hpstudy_operator.observe import Snapshot, has_lingered, is_settled
from hpstudy_operator.plan import leaving, make_plan
from hpstudy_operator.results import HELD_SECONDS, LOOK_SECONDS, is_held_up, plan_best, plan_final
from hpstudy_operator.stalls import first_stall, quiet_stall, refusal, refused_stall, storage_stall
from hpstudy_operator.states import accepted_state, storage_state, unfinished_states
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
"""Until an object that the API server refused is tried again: a quota may be raised, or a policy changed, without an
event for us."""


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


def decide(snapshot: Snapshot, now: datetime, *, image: str, refused: Sequence[RefusedError] = ()) -> Decision:
    """Decide what a study needs.

    Args:
        image: of the workers, for a template that names none.
        refused: what the API server does not take of the objects decided on before.
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


def _decide(snapshot: Snapshot, now: datetime, image: str, refused: Sequence[RefusedError]) -> Decision:
    if is_settled(snapshot.resource, now):
        return Decision(snapshot.status, delete=snapshot.active_jobs)
    if snapshot.study is None or snapshot.storage is None:
        is_refused = snapshot.invalid is not None and snapshot.invalid.reason == reasons.REFUSED
        requeue = REFUSED_SECONDS if is_refused else RESYNC_SECONDS
        return _not_accepted(snapshot, snapshot.invalid, now, requeue=requeue)
    if snapshot.is_over:
        return _over(snapshot, now)
    if wrong := next((error for error in refused if error.kind == "Job" and error.status != 403), None):
        invalid = InvalidStudyError(reasons.INVALID_TEMPLATE, f"{refusal(wrong)}; correct workers.template")
        return _not_accepted(snapshot, invalid, now, requeue=REFUSED_SECONDS)
    if snapshot.storage.invalid is not None:
        return _not_accepted(snapshot, snapshot.storage.invalid, now, requeue=REFUSED_SECONDS)
    if snapshot.storage.snapshot is None:
        return _without_storage(snapshot, snapshot.storage, now)
    return _accepted(snapshot, snapshot.study, snapshot.storage, snapshot.storage.snapshot, now, image, refused)


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
        states.append(storage_state(snapshot.storage))
    elif not any(condition["type"] == "StorageReady" for condition in snapshot.status.get("conditions", [])):
        states.append(State("StorageReady", "Unknown", reasons.NOT_STARTED, "not looked at yet"))
    states += unfinished_states(snapshot, first_stall(snapshot, now), now)
    start = _start_time(snapshot, now)
    status = build_status(snapshot, states, now, startTime=start, workers=_workers(snapshot))
    return Decision(status, _to_suspend(snapshot), requeue=requeue)


def _without_storage(snapshot: Snapshot, storage: StorageView, now: datetime) -> Decision:
    stall = storage_stall(snapshot, storage, now) or first_stall(snapshot, now)
    states = [accepted_state(), storage_state(storage), *unfinished_states(snapshot, stall, now)]
    status = build_status(snapshot, states, now, workers=_workers(snapshot))
    return Decision(status, _to_suspend(snapshot), requeue=POLL_SECONDS)


def _accepted(
    snapshot: Snapshot,
    study: Study,
    storage: StorageView,
    stored: StudySnapshot,
    now: datetime,
    image: str,
    refused: Sequence[RefusedError],
) -> Decision:
    verdict = judge(stored, study.spec.budget, now - LIMIT_MARGIN)
    states = [accepted_state(), storage_state(storage)]
    if verdict.next in {Next.SUCCEEDED, Next.FAILED}:
        # A trial that a group still trains is waited for; one that nobody trains any more will not end.
        if not stored.counts.running or not snapshot.active_jobs:
            over = "Succeeded" if verdict.next is Next.SUCCEEDED else "Failed"
            return _finish(snapshot, states, over, Finding(verdict.reason, verdict.message), now)
        states += unfinished_states(snapshot, first_stall(snapshot, now), now)
        status = build_status(snapshot, states, now, workers=_workers(snapshot))
        return Decision(status, _to_suspend(snapshot), requeue=POLL_SECONDS)
    if snapshot.is_suspended:
        status = build_status(
            snapshot,
            [*states, *unfinished_states(snapshot, None, now)],
            now,
            completionTime=None,
            workers=_workers(snapshot),
        )
        at_rest = not snapshot.active_jobs and not any(group.ending_pods for group in snapshot.groups)
        calm = RESYNC_SECONDS if at_rest else POLL_SECONDS
        requeue = _until_limit(stored, study.spec.budget, now, calm)
        return Decision(status, _to_suspend(snapshot), requeue=requeue)

    moved = last_movement(snapshot, now)
    killed = kill_records(snapshot, moved, now)
    idle = {record["group"]: parse_time(record["since"]) for record in killed or ()}
    plan = make_plan(snapshot, study, storage, verdict.next, image, moved, idle)
    if plan.failure:
        others = tuple(
            Ref.to(group.job, "Job")
            for group in snapshot.groups
            if group.job and group.is_active and not group.is_failed  # which keeps its logs
        )
        return _finish(snapshot, states, "Failed", plan.failure, now, delete=others)
    stall = refused_stall(refused) or plan.stall or first_stall(snapshot, now)
    stall = stall or quiet_stall(snapshot, study.spec, moved, now)
    will_start = plan.starts_workers and not refused  # those that were made tell by themselves
    states += unfinished_states(snapshot, stall, now, leaving=leaving(snapshot, study), will_start=will_start)
    status = build_status(
        snapshot,
        states,
        now,
        startTime=_start_time(snapshot, now, will_start=will_start),
        completionTime=None,
        workers=_workers(snapshot, study.spec.parallelism),
        killedGroups=killed,
    )
    if refused:
        calm = REFUSED_SECONDS
    elif plan.delete or plan.apply:
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
        killedGroups=None,
    )
    return Decision(status, delete, requeue=POLL_SECONDS)


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
