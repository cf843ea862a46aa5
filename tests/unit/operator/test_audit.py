"""The check that the watches hear what happens."""

from typing import Any

from hpstudy_operator.audit import MAX_MISSES, Audit
from hpstudy_operator.observe import Key
from tests.unit.operator.objects import study

REVIEWS = Key("team", "reviews")


def recreated() -> dict[str, Any]:
    resource = study()
    resource["metadata"]["uid"] = "another"
    return resource


def test_what_was_heard_is_not_missed() -> None:
    audit = Audit()
    audit.hear(study(generation=2))
    assert audit.compare([study(generation=2)], audit.known) == []
    assert audit.compare([study(generation=1)], audit.known) == []  # the list may be older than the watch


def test_a_change_or_a_successor_that_was_not_heard_is_missed() -> None:
    audit = Audit()
    audit.hear(study())
    assert audit.compare([study(generation=2)], audit.known) == [REVIEWS]
    assert audit.compare([recreated()], audit.known) == [REVIEWS]


def test_the_watch_is_deaf_when_the_same_change_stays_missing() -> None:
    audit = Audit()
    for _ in range(MAX_MISSES):
        assert audit.deaf == []
        audit.compare([study()], audit.known)
    assert audit.deaf == [REVIEWS]
    audit.hear(study())
    audit.compare([study()], audit.known)
    assert audit.deaf == []


def test_a_watch_that_lags_behind_new_changes_is_not_deaf() -> None:
    audit = Audit()
    for generation in range(1, 10):
        audit.compare([study(generation=generation)], audit.known)
    assert audit.deaf == []


def test_studies_that_are_gone_are_forgotten() -> None:
    audit = Audit()
    audit.hear(study())
    audit.compare([], audit.known)
    assert audit.compare([study()], audit.known) == [REVIEWS]


def test_what_was_heard_while_the_list_was_made_is_kept() -> None:
    audit = Audit()
    before = audit.known
    audit.hear(study())
    audit.compare([], before)
    assert audit.compare([study()], audit.known) == []
