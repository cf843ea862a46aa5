"""The generators of the whole process, for libraries that have none of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Seed numpy's generator, and leave it as it was.

    Args:
        seed: below 2^32.
    """
    before = numpy.random.get_state()
    numpy.random.seed(seed)
    try:
        yield
    finally:
        numpy.random.set_state(before)
