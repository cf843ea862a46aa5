"""Hyperparameters as Ray Tune's searchers know them."""

from typing import Any
from urllib.parse import quote, unquote

from hpstudy.samplers.coordinates import Choices, Range


def domain(axis: Choices | Range) -> Any:
    """One of ``ray.tune``'s. Choices are text: to some searchers numbers have an order."""
    from ray import tune

    if isinstance(axis, Choices):
        return tune.choice(categories(axis))
    if axis.whole:
        integers = tune.lograndint if axis.log else tune.randint
        return integers(int(axis.low), int(axis.high) + 1)
    return (tune.loguniform if axis.log else tune.uniform)(axis.low, axis.high)


def categories(axis: Choices) -> list[str]:
    """The places of a choice."""
    return [str(place) for place in range(axis.count)]


def key(name: str) -> str:
    """The parameter's name as Ray allows it: a slash is its separator of nested ones."""
    return quote(name, safe="")


def name_of(key: str) -> str:
    """The parameter of a key."""
    return unquote(key)
