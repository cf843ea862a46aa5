"""When to look at a study of which its storage told."""

from itertools import pairwise

from hpstudy_operator import pace
from hpstudy_operator.pace import APART_SECONDS, SETTLE_SECONDS, Pace


def looks(told: list[float]) -> list[float]:
    """When a study is looked at that was told of at these times."""
    planned = Pace[str]()
    return [now + delay for now in told if (delay := planned.delay("a", now)) is not None]


def test_the_end_of_a_trial_and_the_start_of_the_next_are_one_look() -> None:
    assert looks([10.0, 10.05, 10.19]) == [10.0 + SETTLE_SECONDS]


def test_what_comes_after_the_look_is_another() -> None:
    assert len(looks([10.0, 10.0 + SETTLE_SECONDS])) == 2


def test_a_storm_is_bounded_and_its_end_is_looked_at() -> None:
    told = [number / 1000 for number in range(10_000)]
    planned = looks(told)
    assert len(planned) <= 1 + 10 / APART_SECONDS
    assert planned[-1] >= told[-1], "or the last trial would not be seen"
    assert min(later - earlier for earlier, later in pairwise(planned)) >= APART_SECONDS - 1e-9


def test_keys_do_not_wait_for_one_another_and_are_forgotten() -> None:
    planned = Pace[int]()
    for number in range(3 * pace._MANY):
        assert planned.delay(number, now=float(number)) is not None
    assert len(planned._planned) <= pace._MANY + 1
