"""From the search space of a study, in any of its forms, to the hyperparameters of a trial."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import optuna

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.entry import import_entry
from hpstudy.space.dimensions import Dimension, SearchSpace

Suggest = Callable[[optuna.Trial], dict[str, Any]]
"""Asks the sampler for the value of each parameter of the space; returns them as the trial gets them."""

FORMS = ("parameters", "optuna", "ray", "wandb", "sigopt")
"""Each is read by ``dimensions(native)`` of the module of its name."""


def read_space(spec: StudySpec) -> SearchSpace | None:
    """The space, or None where a define-by-run function makes it up trial by trial, or where only the script of the
    trials has it.

    Raises:
        InvalidStudyError: the form is not well-formed, its function cannot be imported or returns no space, or the
            backend cannot express it.
    """
    if spec.search_space is None:
        return None
    for form in FORMS:
        native = getattr(spec.search_space, form)
        if native is not None:
            space = SearchSpace(_dimensions(form, native))
            _check_backend(space, form, spec.backend, native)
            return space
    if spec.backend == "optuna":
        return None
    return SearchSpace(_dimensions(spec.backend, native_space(spec)))


def native_space(spec: StudySpec) -> Any:
    """The space in the backend's own form, where the study has it in that form; None otherwise.

    As in Transformers, a function of a backend other than Optuna is called once and returns the backend's own form.

    Raises:
        InvalidStudyError: the function cannot be imported, or raises.
    """
    if spec.search_space is None:
        return None
    entry = spec.search_space.python
    if entry is None or spec.backend == "optuna":
        return getattr(spec.search_space, spec.backend)
    try:
        return import_entry(entry, "searchSpace.python")(None)
    except InvalidStudyError:
        raise
    except Exception as error:  # the user's code
        raise InvalidStudyError(
            reasons.INVALID_SPACE, f"searchSpace.python {entry}: {type(error).__name__}: {error}"
        ) from error


def load_suggest(spec: StudySpec, space: SearchSpace | None) -> Suggest:
    """Make the function that suggests a trial's hyperparameters.

    Raises:
        InvalidStudyError: the function of a define-by-run space cannot be imported.
    """
    if space is not None:
        return lambda trial: space.nested(space.suggest(trial))
    assert spec.search_space is not None
    assert spec.search_space.python is not None
    entry = spec.search_space.python
    function = import_entry(entry, "searchSpace.python")

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        result = function(trial)
        if result is None:
            return trial.params
        if not isinstance(result, Mapping):
            raise TypeError(
                f"searchSpace.python {entry} returned {type(result).__name__}, "
                "it must return the hyperparameters by name"
            )
        return dict(result)

    return suggest


def _check_backend(space: SearchSpace, form: str, backend: str, native: Any) -> None:
    if form == "wandb" != backend:
        for key in ("method", "metric", "early_terminate"):
            if key in native:
                raise InvalidStudyError(
                    reasons.INVALID_SPACE,
                    f"searchSpace.wandb.{key}: backend {backend} goes by objectives, sampler and pruner; remove it, or "
                    "use backend wandb",
                )
    for dimension in space.dimensions:
        if dimension.only and backend != form:
            raise InvalidStudyError(
                reasons.INVALID_SPACE,
                f"searchSpace.{form}: {dimension.name} has {dimension.only}, which backend {backend} does not have: "
                f"leave it out, or use backend {form}",
            )


def _dimensions(form: str, native: Any) -> list[Dimension]:
    found: list[Dimension] = importlib.import_module(f"hpstudy.space.{form}").dimensions(native)
    return found
