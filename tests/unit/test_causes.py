"""Which rank's end explains the others'."""

import pytest

from hpstudy.trials.causes import Cause, Kind, root_cause


def cause(rank: int, kind: Kind, at: float) -> Cause:
    return Cause(rank=rank, kind=kind, message="", at=at)


@pytest.mark.parametrize(
    ("causes", "rank"),
    [
        ([cause(0, Kind.RAISED, 2), cause(1, Kind.RAISED, 1)], 1),
        ([cause(0, Kind.SECONDARY, 1), cause(3, Kind.RAISED, 2)], 3),
        ([cause(0, Kind.SECONDARY, 1), cause(2, Kind.KILLED, 5)], 2),
        ([cause(1, Kind.KILLED, 1), cause(2, Kind.RAISED, 9)], 2),
        ([cause(1, Kind.SECONDARY, 1)], 1),
    ],
)
def test_the_root_cause_is_the_earliest_that_is_no_consequence(causes: list[Cause], rank: int) -> None:
    found = root_cause(causes)
    assert found is not None
    assert found.rank == rank


def test_no_causes_have_no_root() -> None:
    assert root_cause([]) is None
