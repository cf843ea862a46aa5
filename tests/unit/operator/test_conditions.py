"""Conditions and the events about them."""

from datetime import timedelta

import pytest

from hpstudy_operator.conditions import MAX_MESSAGE, State, changes, merge
from tests.unit.operator.objects import EARLIER, NOW


def test_the_transition_time_changes_with_the_status_alone() -> None:
    first = merge([], [State("Stalled", "True", "Unschedulable", "no node")], 1, EARLIER)
    second = merge(first, [State("Stalled", "True", "ImagePullFailed", "no image")], 2, NOW)
    third = merge(second, [State("Stalled", "False", "Progressing")], 2, NOW + timedelta(seconds=1))
    assert second[0]["lastTransitionTime"] == first[0]["lastTransitionTime"] == "2026-03-01T11:59:50Z"
    assert (second[0]["reason"], second[0]["observedGeneration"]) == ("ImagePullFailed", 2)
    assert third[0]["lastTransitionTime"] == "2026-03-01T12:00:01Z"


def test_what_is_not_mentioned_stays() -> None:
    first = merge([], [State("Accepted", "True", "Accepted"), State("Running", "True", "TrialsRunning")], 1, EARLIER)
    second = merge(first, [State("Accepted", "False", "InvalidSpec")], 2, NOW)
    assert second[1] == first[1]


def test_a_message_has_a_limit() -> None:
    (condition,) = merge([], [State("Failed", "True", "WorkerGroupFailed", "x" * 100_000)], 1, NOW)
    assert len(condition["message"]) == MAX_MESSAGE


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, State("Accepted", "True", "Accepted"), True),
        (None, State("Accepted", "False", "InvalidSpec"), True),
        (None, State("Failed", "False", "NotFailed"), False),
        (None, State("Stalled", "False", "Progressing"), False),
        (State("Accepted", "True", "Accepted"), State("Accepted", "True", "Accepted", "other words"), False),
        (State("Stalled", "False", "Progressing"), State("Stalled", "True", "Unschedulable"), True),
        (State("Stalled", "True", "Unschedulable"), State("Stalled", "True", "ImagePullFailed"), True),
        (State("Stalled", "True", "Unschedulable"), State("Stalled", "False", "Progressing"), True),
        (State("Running", "False", "NotStarted"), State("Running", "False", "WaitingForWorkers"), False),
        (State("Running", "False", "WaitingForWorkers"), State("Running", "True", "TrialsRunning"), True),
    ],
)
def test_an_event_tells_what_changed_and_nothing_twice(before: State | None, after: State, told: bool) -> None:
    old = merge([], [before] if before else [], 1, EARLIER)
    assert bool(changes(old, merge(old, [after], 1, NOW))) is told


def test_two_conditions_that_change_for_one_reason_are_one_event() -> None:
    running = merge(
        [], [State("Running", "True", "TrialsRunning"), State("Suspended", "False", "NotSuspended")], 1, EARLIER
    )
    both = [State("Running", "False", "Suspended", "2 pods end"), State("Suspended", "True", "Suspended", "go on")]
    (change,) = changes(running, merge(running, both, 2, NOW))
    assert change.state.message == "2 pods end"


@pytest.mark.parametrize(
    ("state", "warning"),
    [
        (State("Failed", "True", "WorkerGroupFailed"), True),
        (State("StorageReady", "False", "SecretNotFound"), True),
        (State("Succeeded", "True", "MaxTrialsReached"), False),
    ],
)
def test_trouble_is_a_warning(state: State, warning: bool) -> None:
    (change,) = changes([], merge([], [state], 1, NOW))
    assert change.warning is warning
