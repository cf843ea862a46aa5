"""From the backend of a study to the sampler and the pruner of a worker group."""

import importlib
from contextlib import suppress
from types import ModuleType

import optuna

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers import optuna as _optuna
from hpstudy.samplers.terminator import StopRule
from hpstudy.space.dimensions import SearchSpace
from hpstudy.space.initial import initial_parameters
from hpstudy.space.job_template import check_job_template
from hpstudy.space.load import read_space
from hpstudy.space.templates import check_templates


def check_algorithms(spec: StudySpec) -> None:
    """Check space, sampler, pruner, stopWhen, initial trials and all templates as far as is possible where the study
    does not run.

    Raises:
        InvalidStudyError: an unknown name or option, a value that the algorithm refuses, or a space that is not
            well-formed or that the backend cannot express.
    """
    # What the user wrote can only be imported in the worker's image, and some engines are only there.
    space = None if spec.search_space is None or spec.search_space.python else read_space(spec)
    if spec.backend == "optuna":
        with suppress(ImportError):
            _optuna.check_sampler(spec, space)
    elif space is not None:
        with suppress(ImportError):
            _backend(spec).build_sampler(spec, space)
    with suppress(ImportError):
        _backend(spec).build_pruner(spec)
    if spec.stop_when is not None:
        with suppress(ImportError):
            StopRule(spec.stop_when)
    if spec.warm_start_from and spec.search_space is None:
        raise InvalidStudyError(
            reasons.INVALID_WARM_START,
            "warmStartFrom: the space of a script has no bounds to check other trials by; give searchSpace",
        )
    if spec.warm_start_from and space is None and spec.backend == "optuna":
        raise InvalidStudyError(
            reasons.INVALID_WARM_START,
            "warmStartFrom: what searchSpace.python makes up trial by trial has no bounds to check other trials by; "
            "give the space in another form",
        )
    if space is not None:
        initial_parameters(spec, space)
    if spec.trial.command is not None:
        check_templates(spec.trial.command, space)
    if spec.on_success is not None:
        check_job_template(spec, space)


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
