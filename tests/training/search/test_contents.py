"""What a user's objects hold is put back in the same objects."""

import random
import threading
from collections import Counter, deque
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch

from hpstudy.search.contents import Contents


def remembered(thing: Any, *, objects: bool = True, left: Any = ()) -> Contents:
    contents = Contents(left)
    contents.remember(thing, objects=objects)
    return contents


def test_what_is_nested_is_put_back_where_it_was() -> None:
    inner = SimpleNamespace(value=1)
    holder = SimpleNamespace(
        steps=[1, {"a": [inner]}], last=deque([1], maxlen=2), seen={1}, counts=Counter("ab"), pair=(inner, [3])
    )
    steps, first = holder.steps, holder.steps[1]["a"]
    contents = remembered(holder)
    for _ in range(2):
        inner.value = inner.more = 2
        first.append(5)
        holder.steps.clear()
        holder.last.extend([7, 8])
        holder.seen.add(2)
        holder.counts.update("a")
        holder.pair[1].clear()
        holder.steps, holder.new = None, True
        contents.restore()
        assert holder.steps is steps
        assert holder.steps[1]["a"] is first
        assert first == [inner]
        assert vars(inner) == {"value": 1}
        assert (holder.last, holder.last.maxlen, holder.seen, holder.pair[1]) == (deque([1]), 2, {1}, [3])
        assert holder.counts == Counter("ab")
        assert not hasattr(holder, "new")


@pytest.mark.parametrize("array", [numpy.arange(3.0), torch.arange(3.0), torch.ones(3, requires_grad=True)])
def test_so_are_arrays_and_tensors(array: Any) -> None:
    holder = SimpleNamespace(array=array)
    contents = remembered(holder)
    before = array.tolist()
    with torch.no_grad():
        array += 1
    contents.restore()
    assert holder.array is array
    assert array.tolist() == before


@pytest.mark.parametrize(
    ("generator", "draw"),
    [
        (torch.Generator().manual_seed(1), lambda generator: torch.rand((), generator=generator).item()),
        (numpy.random.default_rng(1), lambda generator: generator.random()),
        (numpy.random.RandomState(1), lambda generator: generator.random_sample()),
        (random.Random(1), lambda generator: generator.random()),
    ],
)
def test_so_are_random_generators(generator: Any, draw: Any) -> None:
    contents = remembered(SimpleNamespace(generator=generator), objects=False)
    drawn = draw(generator)
    contents.restore()
    assert draw(generator) == drawn


def test_objects_that_refer_to_one_another_are_no_trouble() -> None:
    first, second = SimpleNamespace(value=1), SimpleNamespace(value=1)
    first.other, second.other = second, first
    contents = remembered(first)
    first.value = second.value = 2
    contents.restore()
    assert (first.value, second.value) == (1, 1)


def test_what_lives_on_is_left_alone_with_all_that_it_holds() -> None:
    """A queue that others wait on, say."""
    lives = SimpleNamespace(items=[1], lock=threading.Lock(), part=SimpleNamespace(value=1))
    model = torch.nn.Linear(1, 1)
    model.note = [1]
    mine: list[int] = []
    holder = SimpleNamespace(lives=lives, several=[lives], model=model, mine=mine, value=1)
    contents = remembered(holder, left=[mine])
    lives.items.append(2)
    lives.part.value = 2
    holder.several.append(3)
    model.note.append(2)
    mine.append(2)
    holder.value = 2
    contents.restore()
    assert (lives.items, lives.part.value, model.note, mine) == ([1, 2], 2, [1, 2], [2])
    assert (holder.value, holder.several) == (1, [lives])


def test_without_objects_containers_alone_are() -> None:
    holder = SimpleNamespace(part=SimpleNamespace(value=1), names=["a"], array=numpy.zeros(1))
    contents = remembered(holder, objects=False)
    holder.part.value = 2
    holder.names.append("b")
    holder.array += 1
    contents.restore()
    assert (holder.part.value, holder.names, holder.array.tolist()) == (2, ["a"], [1.0])
