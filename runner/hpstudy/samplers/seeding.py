"""The generators of the whole process, for engines that have none of their own."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed numpy's and Python's generators, which are the user's too, and leave them as they were.

    Args:
        seed: below 2^32.
    """
    of_numpy, of_python = numpy.random.get_state(), random.getstate()
    numpy.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        numpy.random.set_state(of_numpy)
        random.setstate(of_python)
