"""What the operator does about a study whose time or GPU hours end."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.storage.limits import Spent
from hpstudy_operator.builders import build_worker_job, check_template
from hpstudy_operator.decide import LIMIT_MARGIN, PENDING_SECONDS
from hpstudy_operator.storages import StorageView
from tests.unit.operator.objects import (
    IMAGE,
    NOW,
    SECRET,
    condition,
    decided,
    job,
    observed,
    ready_pod,
    stored,
    study,
)

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
GPUS = {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"nvidia.com/gpu": 4}}}]}}


def spent(view: StorageView, **used: Any) -> StorageView:
    assert view.snapshot is not None
    return replace(view, snapshot=replace(view.snapshot, spent=Spent(**used)))


def recorded(view: StorageView, reason: str) -> StorageView:
    assert view.snapshot is not None
    return replace(view, snapshot=replace(view.snapshot, limit=reason))


@pytest.mark.parametrize(
    ("age", "requeue"),
    [
        (timedelta(), PENDING_SECONDS),
        (HOUR - 2 * SECOND, 7.0),
        (HOUR + LIMIT_MARGIN - 2 * SECOND, 2.0),
        (HOUR + LIMIT_MARGIN - 0.5 * SECOND, 0.5),
    ],
)
def test_the_next_look_is_not_later_than_the_deadline(age: timedelta, requeue: float) -> None:
    resource = study(budget={"maxTrials": 10, "timeout": "1h"})
    storage = spent(stored(complete=3), began=NOW - age)
    decision = decided(observed(resource, job(resource), storage=storage))
    assert condition(decision, "Succeeded")[0] == "False"
    assert decision.requeue == pytest.approx(requeue)


@pytest.mark.parametrize(("complete", "over"), [(3, "Succeeded"), (0, "Failed")])
def test_without_a_worker_the_deadline_ends_the_study_a_little_later(complete: int, over: str) -> None:
    resource = study(budget={"maxTrials": 10, "timeout": "1h"})
    storage = spent(stored(complete=complete, preempted=1), began=NOW - HOUR - LIMIT_MARGIN)
    decision = decided(observed(resource, job(resource), storage=storage))
    assert condition(decision, over) == ("True", reasons.TIMEOUT_REACHED)


def test_what_a_worker_recorded_counts_at_once_and_its_running_trial_is_waited_for() -> None:
    resource = study(budget={"maxTrials": 10, "timeout": "1h"})
    made = job(resource)
    running = recorded(spent(stored(complete=3, running=1), began=NOW - HOUR + SECOND), reasons.TIMEOUT_REACHED)
    decision = decided(observed(resource, made, pods=(ready_pod(made),), storage=running))
    assert condition(decision, "Succeeded")[0] == "False"
    done = recorded(spent(stored(complete=4), began=NOW - HOUR + SECOND), reasons.TIMEOUT_REACHED)
    decision = decided(observed(resource, made, pods=(ready_pod(made),), storage=done))
    assert condition(decision, "Succeeded") == ("True", reasons.TIMEOUT_REACHED)


def test_gpu_hours_are_looked_at_when_the_running_trials_will_have_used_them_up() -> None:
    resource = study(budget={"maxTrials": 10, "gpuHours": 8}, workers={"template": GPUS})
    storage = stored(complete=3, running=1)
    half = spent(storage, gpu_seconds=4 * 3600, gpus=4, since=NOW - HOUR + 2 * SECOND - LIMIT_MARGIN)
    assert decided(observed(resource, job(resource), storage=half)).requeue == pytest.approx(2)
    used = spent(stored(complete=3), gpu_seconds=8 * 3600)
    assert condition(decided(observed(resource, job(resource), storage=used)), "Succeeded") == (
        "True",
        reasons.GPU_HOURS_REACHED,
    )


def test_gpu_hours_without_gpus_are_refused() -> None:
    budget = {"maxTrials": 10, "gpuHours": 8}
    check_template(study(budget=budget, workers={"template": GPUS}))
    with pytest.raises(InvalidStudyError, match=r"budget\.gpuHours: the worker container .* has no limit of GPUs"):
        check_template(study(budget=budget))


@pytest.mark.parametrize("trial", [{"function": "train:objective"}, {"command": {"argv": ["train"]}}])
def test_the_worker_is_told_the_gpus_of_its_pod(trial: dict[str, Any]) -> None:
    """Those of a program are in another container than it is."""
    made = build_worker_job(study(trial=trial, workers={"template": GPUS}), 0, image=IMAGE, storage=SECRET)
    arguments = made["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--gpus") + 1] == "4"
