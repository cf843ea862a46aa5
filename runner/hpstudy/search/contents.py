"""What a user's objects hold, remembered and put back in place: whoever else refers to them sees it, too."""

import enum
import functools
import random
import types
from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import datasets
import numpy
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

_ATOMS = (
    *(bool, int, float, complex, str, bytes, range, type, enum.Enum, functools.partial, torch.dtype, torch.device),
    *(types.NoneType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType),
)
_LEFT = (
    *(torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler),
    *(torch.utils.data.Dataset, torch.utils.data.DataLoader, datasets.Dataset, datasets.IterableDataset),
    *(Accelerator, AcceleratorState, GradientState, PartialState),
    *(PreTrainedTokenizerBase, Trainer, TrainingArguments),
)
"""Models, data, and what has a state of its own that is not the user's."""
_ALONE = _ATOMS + _LEFT


class Contents:
    """Contents of containers, of arrays and tensors, of random generators, and of plain objects, however they are
    nested. Each object stays the same one. What holds a lock, a thread or an open file lives on, and is left alone.

    Args:
        left: objects that are left alone, too.
    """

    def __init__(self, left: Iterable[Any]) -> None:
        self._left = {id(each): each for each in left}
        self._kept: dict[int, tuple[Any, Callable[[], Any]]] = {}

    def remember(self, thing: Any, *, objects: bool, but: Collection[str] = ()) -> None:
        """Remember an object's attributes, and what they hold.

        Args:
            objects: also of objects that are no containers.
            but: attributes of which the value alone is remembered, not what it holds.
        """
        self._kept[id(thing)] = thing, partial(_refill, vars(thing), dict(vars(thing)))
        for name, value in dict(vars(thing)).items():
            if name not in but:
                self._walk(value, objects)

    def restore(self) -> None:
        """Put all of it back."""
        for _, put in self._kept.values():
            put()

    def _walk(self, value: Any, objects: bool) -> bool:
        """Remember what it holds; whether it can be put back at all."""
        if isinstance(value, _ALONE) or id(value) in self._left or id(value) in self._kept:
            return True
        if isinstance(value, tuple):
            return self._walk_all(value, objects)
        if isinstance(value, dict | list | set | deque):
            self._kept[id(value)] = value, _putter_of_container(value)
            self._walk_all(value.values() if isinstance(value, dict) else value, objects)
            return True
        put = _putter_of_generator(value)
        if put is None and objects:
            put = _putter_of_array(value)
        if put is not None:
            self._kept[id(value)] = value, put
            return True
        if not objects:
            return True
        if _lives(value):
            return False
        if not hasattr(value, "__dict__"):
            return True
        known = len(self._kept)
        self._kept[id(value)] = value, partial(_refill, vars(value), dict(vars(value)))
        if self._walk_all(vars(value).values(), objects):
            return True
        while len(self._kept) > known:
            self._kept.popitem()
        return False

    def _walk_all(self, values: Iterable[Any], objects: bool) -> bool:
        found = [self._walk(each, objects) for each in list(values)]
        return all(found)


def _putter_of_container(value: Any) -> Callable[[], Any]:
    if isinstance(value, dict):
        return partial(_refill, value, dict(value))
    return partial(_refill, value, set(value)) if isinstance(value, set) else partial(_extend, value, list(value))


def _putter_of_array(value: Any) -> Callable[[], Any] | None:
    """None for anything else, and so below."""
    if isinstance(value, numpy.ndarray):
        return partial(_overwrite, value, value.copy())
    return partial(_overwrite, value, value.detach().clone()) if isinstance(value, torch.Tensor) else None


def _putter_of_generator(value: Any) -> Callable[[], Any] | None:
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, numpy.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    if isinstance(value, numpy.random.RandomState):
        return partial(value.set_state, value.get_state())
    return partial(value.setstate, value.getstate()) if isinstance(value, random.Random) else None


def _refill(container: Any, content: Any) -> None:
    container.clear()
    container.update(content)


def _extend(container: Any, content: list[Any]) -> None:
    container.clear()
    container.extend(content)


def _overwrite(array: Any, content: Any) -> None:
    if isinstance(array, torch.Tensor):
        with torch.no_grad():
            array.copy_(content)
    elif array.flags.writeable:
        array[...] = content


def _lives(value: Any) -> bool:
    """Whether it is more than its attributes: a lock, an open file, a socket, a generator. Those say that they cannot
    be copied."""
    try:
        value.__reduce_ex__(4)
    except Exception:
        return True
    return False
