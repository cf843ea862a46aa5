"""Loading ``sigoptlite`` and ``libsigopt``, which are no longer maintained, beside the libraries of today."""

import contextlib
import functools
import importlib
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy

MISSING = "backend sigopt needs the extra sigopt (pip install 'hpstudy[sigopt]'): {}"


@dataclass(frozen=True)
class Engine:
    """Modules of the optimiser."""

    broker: types.ModuleType
    builders: types.ModuleType
    containers: types.ModuleType
    errors: types.ModuleType
    models: types.ModuleType
    random_search: types.ModuleType
    sources: types.ModuleType
    threads: Any
    """threadpoolctl's controller of the linear algebra."""


@functools.cache
def load() -> Engine:
    """Import the optimiser.

    Raises:
        ImportError: it is not installed; the message says how.
    """
    try:
        with warnings.catch_warnings(), _quasi_random_sequences():
            warnings.simplefilter("ignore", DeprecationWarning)  # it imports from places that numpy moved
            engine = Engine(
                broker=importlib.import_module("sigoptlite.broker"),
                builders=importlib.import_module("sigoptlite.builders"),
                containers=importlib.import_module("libsigopt.aux.adapter_info_containers"),
                errors=importlib.import_module("libsigopt.aux.errors"),
                models=importlib.import_module("sigoptlite.models"),
                random_search=importlib.import_module("libsigopt.views.rest.random_search_next_points"),
                sources=importlib.import_module("sigoptlite.sources"),
                threads=importlib.import_module("threadpoolctl").ThreadpoolController(),
            )
            failures: Any = importlib.import_module("libsigopt.compute.probabilistic_failures")
            multimetric: Any = importlib.import_module("libsigopt.compute.misc.multimetric")
    except ImportError as error:
        raise ImportError(MISSING.format(error)) from None
    # It calls numpy.product, which numpy 2 has not. It alone is given it, numpy stays as it is.
    failures.numpy = _NumpyWithProduct()
    # With two metrics it draws the sequence of their weights from the system's entropy, anew at each proposal. One
    # fixed sequence is as good, and proposals can be had again.
    multimetric.generate_halton_points = functools.partial(multimetric.generate_halton_points, seed=0)
    # It logs all that it is told, at each proposal.
    logging.getLogger("libsigopt").setLevel(logging.WARNING)
    return engine


@contextlib.contextmanager
def _quasi_random_sequences() -> Iterator[None]:
    """Give it scipy's sequences in place of those of qmcpy 1.2, a library that needs a compiler to be installed."""
    qmc = importlib.import_module("scipy.stats.qmc")
    there = sys.modules.get("qmcpy")
    sequences: Any = types.SimpleNamespace(
        Halton=functools.partial(_Sequence, qmc.Halton), Sobol=functools.partial(_Sequence, qmc.Sobol)
    )
    sys.modules["qmcpy"] = sequences
    try:
        yield
    finally:
        del sys.modules["qmcpy"]
        if there is not None:
            sys.modules["qmcpy"] = there


class _Sequence:
    """A randomised sequence in the unit cube, as qmcpy's.

    Args:
        kind: class of ``scipy.stats.qmc``.
        seed: of the randomisation; drawn from numpy's own generator where it is None.
    """

    def __init__(self, kind: Any, dimension: int, seed: int | None, **_: Any) -> None:
        self._engine = kind(dimension, scramble=True, rng=numpy.random.randint(2**31) if seed is None else seed)

    def gen_samples(self, n_min: int, n_max: int) -> Any:
        """Points n_min to n_max, shape (n_max - n_min, dimension)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a Sobol sequence is balanced at powers of two
            return self._engine.fast_forward(n_min).random(n_max - n_min)


class _NumpyWithProduct:
    product = staticmethod(numpy.prod)

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy, name)
