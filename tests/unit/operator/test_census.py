"""What is counted of what the watches report."""

from typing import Any

import pytest

from hpstudy_operator.census import Restarts, Studies
from hpstudy_operator.metrics import RECONCILE_ERRORS, REGISTRY, reconciling
from hpstudy_operator.observe import Key
from tests.unit.operator.objects import job, study


def reported(name: str, *true: str, **trials: int) -> tuple[Key, None, dict[str, Any]]:
    conditions = [{"type": each, "status": "True"} for each in true]
    return Key("team", name), None, study(status={"conditions": conditions, "trials": trials})


def counted(studies: Studies) -> dict[tuple[str, ...], float]:
    """What is not 0."""
    samples = (sample for family in studies.collect() for sample in family.samples)
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.value}


def restarts(kind: str) -> float:
    return REGISTRY.get_sample_value("hpstudy_worker_restarts_total", {"kind": kind}) or 0.0


def test_studies_are_counted_by_condition_and_trials_by_state() -> None:
    studies = Studies(visible=True)
    studies.hear(*reported("a", "Accepted", "Running", total=7, complete=4, running=2, failed=1))
    studies.hear(*reported("b", "Accepted", "Running", total=1, complete=1))
    studies.hear(*reported("b", "Accepted", "Succeeded", total=3, complete=3))
    studies.hear(Key("other", "c"), "ADDED", study())
    found = counted(studies)
    assert found["team", "Accepted", "True"] == 2
    assert found["team", "Running", "True"] == found["team", "Running", "Unknown"] == 1
    assert found["other", "Accepted", "Unknown"] == 1
    assert {labels: n for labels, n in found.items() if len(labels) == 2} == {
        ("team", "complete"): 7,
        ("team", "running"): 2,
        ("team", "failed"): 1,
    }


def test_studies_that_are_gone_count_no_more_whether_the_watch_said_so_or_not() -> None:
    studies = Studies(visible=True)
    for name in "abc":
        studies.hear(*reported(name, "Running"))
    studies.hear(Key("team", "a"), "DELETED", study())
    studies.keep({Key("team", "b")})
    assert counted(studies)["team", "Running", "True"] == 1


def test_a_replica_that_stands_by_tells_no_counts() -> None:
    studies = Studies()
    studies.hear(*reported("a", "Running"))
    assert counted(studies) == {}
    studies.visible = True
    assert counted(studies)["team", "Running", "True"] == 1


def pod(uid: str, index: int = 0, owner: str = "job-0") -> dict[str, Any]:
    return {
        "metadata": {
            "uid": uid,
            "labels": {"batch.kubernetes.io/job-completion-index": str(index)},
            "ownerReferences": [{"kind": "Job", "uid": owner}],
        }
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([(None, pod("a")), (None, pod("b")), ("MODIFIED", pod("a")), ("ADDED", pod("c", 1))], 0),
        ([("ADDED", pod("a")), ("ADDED", pod("b", 1)), ("MODIFIED", pod("b", 1))], 0),
        ([("ADDED", pod("a")), ("ADDED", pod("b")), ("MODIFIED", pod("a")), ("ADDED", pod("c"))], 2),
        ([("ADDED", pod("a")), ("ADDED", pod("b", owner="job-1"))], 0),
        ([(None, pod("a")), ("ADDED", pod("b"))], 1),
    ],
)
def test_a_pod_in_the_place_of_another_is_a_restart(changes: list[tuple[str | None, Any]], expected: int) -> None:
    before, seen = restarts("pod"), Restarts(counting=True)
    for change, resource in changes:
        seen.hear_pod(change, resource)
    assert restarts("pod") - before == expected


def test_a_group_that_is_started_again_is_a_restart_once() -> None:
    before, seen = restarts("group"), Restarts(counting=True)
    seen.hear_job("ADDED", job(study()))
    again = job(study(), attempt=1)
    for change in ("ADDED", "MODIFIED", "DELETED", None):
        seen.hear_job(change, again)
    assert restarts("group") - before == 1


def test_a_pass_that_fails_is_counted_by_its_error() -> None:
    with pytest.raises(ZeroDivisionError), reconciling():
        raise ZeroDivisionError
    assert RECONCILE_ERRORS.labels("ZeroDivisionError")._value.get() == 1
