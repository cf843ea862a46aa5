"""From the backend of a study to the sampler and the pruner of a worker group."""

import importlib
from contextlib import suppress
from types import ModuleType

import optuna

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.space.dimensions import SearchSpace
from hpstudy.space.load import read_space


def check_algorithms(spec: StudySpec) -> None:
    """Check space, sampler and pruner as far as is possible where the study does not run.

    Raises:
        InvalidStudyError: an unknown name or option, a value that the algorithm refuses, or a space that is not
            well-formed or that the backend cannot express.
    """
    # A function of the user's can only be imported in the worker's image, and some engines are only there.
    space = None if spec.search_space.python else read_space(spec)
    if space is not None or spec.backend == "optuna":
        with suppress(ImportError):
            _backend(spec).build_sampler(spec, space)
    with suppress(ImportError):
        _backend(spec).build_pruner(spec)


def build_sampler(
    spec: StudySpec, space: SearchSpace | None, *, group: int = 0, trials: int = 0
) -> optuna.samplers.BaseSampler:
    """Make the sampler of one worker group.

    Args:
        space: None where a define-by-run function makes it up.
        group: index of the group.
        trials: trials that the study has already.

    Raises:
        InvalidStudyError: see :func:`check_algorithms`; or its package is not installed.
    """
    try:
        sampler: optuna.samplers.BaseSampler = _backend(spec).build_sampler(spec, space, group=group, trials=trials)
    except ImportError as error:
        raise InvalidStudyError(reasons.SAMPLER_FAILED, f"sampler: {error}") from None
    return sampler


def build_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """Make the pruner.

    Raises:
        InvalidStudyError: see :func:`build_sampler`.
    """
    try:
        pruner: optuna.pruners.BasePruner = _backend(spec).build_pruner(spec)
    except ImportError as error:
        raise InvalidStudyError(reasons.SAMPLER_FAILED, f"pruner: {error}") from None
    return pruner


def _backend(spec: StudySpec) -> ModuleType:
    """Each backend is a module with ``build_sampler(spec, space, *, group=0, trials=0)`` and ``build_pruner(spec)``,
    which imports its engine only when it builds."""
    return importlib.import_module(f"hpstudy.samplers.{spec.backend}")
