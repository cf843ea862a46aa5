"""Optuna's own samplers and pruners, by name."""

import difflib
import inspect
import types
import typing
import warnings
from typing import Any

import numpy
import optuna
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import Algorithm, StudySpec
from hpstudy.space.dimensions import SearchSpace

_DEFAULT_SAMPLER = Algorithm(name="TPESampler")
_NO_PRUNER = Algorithm(name="NopPruner")


def build_sampler(
    spec: StudySpec, space: SearchSpace | None, *, group: int = 0, trials: int = 0
) -> optuna.samplers.BaseSampler:
    """See ``samplers/build.py``.

    With the same seed, every group and every restart would propose the same first trials (optuna#4714), so ``group``
    and ``trials`` become part of the seed; the first start of group 0 takes it as is.
    """
    normal = [dimension.name for dimension in space.dimensions if dimension.normal] if space else []
    if normal:
        raise InvalidStudyError(
            reasons.INVALID_SPACE,
            f"searchSpace: {', '.join(normal)} has a normal distribution, which backend optuna does not sample from; "
            "give it a range",
        )
    algorithm = spec.sampler or _DEFAULT_SAMPLER
    seed = algorithm.options.get("seed")
    if isinstance(seed, int) and (group or trials):
        derived = int(numpy.random.SeedSequence([abs(seed), group, trials]).generate_state(1)[0])
        algorithm = algorithm.model_copy(update={"options": {**algorithm.options, "seed": derived}})
    sampler: optuna.samplers.BaseSampler = _build(
        algorithm, "sampler", optuna.samplers, optuna.samplers.BaseSampler, reasons.UNKNOWN_SAMPLER
    )
    return sampler


def build_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """See ``samplers/build.py``."""
    pruner: optuna.pruners.BasePruner = _build(
        spec.pruner or _NO_PRUNER, "pruner", optuna.pruners, optuna.pruners.BasePruner, reasons.UNKNOWN_PRUNER
    )
    return pruner


def _build(algorithm: Algorithm, kind: str, module: Any, base: Any, unknown: str) -> Any:
    known = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base and not name.startswith("_")
    }
    if algorithm.name not in known:
        raise InvalidStudyError(unknown, f"unknown {kind} {algorithm.name!r}{_hint(algorithm.name, known)}")
    factory = known[algorithm.name]
    options = _check_options(factory, algorithm, kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some are experimental: a choice of the user's, not news in every log
            return factory(**options)
    except (TypeError, ValueError) as error:
        raise InvalidStudyError(reasons.INVALID_OPTION, f"{kind} {algorithm.name}: {error}") from None


def _check_options(factory: type, algorithm: Algorithm, kind: str) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters
    options = dict(algorithm.options)
    for name, value in algorithm.options.items():
        where = f"{kind}.options.{name}"
        if name not in parameters:
            raise InvalidStudyError(
                reasons.INVALID_OPTION, f"{where}: {algorithm.name} has no such option{_hint(name, parameters)}"
            )
        # Optuna's classes keep what they are given and fail trials later: check against their own annotations.
        annotation = _annotation(factory, name)
        try:
            options[name] = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(
                value
            )
        except ValidationError as error:
            raise InvalidStudyError(
                reasons.INVALID_OPTION, f"{where}: {error.errors()[0]['msg'].lower()}, got {value!r}"
            ) from None
        except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
            continue
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in options
    ]
    if missing:
        raise InvalidStudyError(reasons.INVALID_OPTION, f"{kind}.options: {algorithm.name} needs {', '.join(missing)}")
    return options


def _annotation(factory: type, name: str) -> Any:
    function = inspect.unwrap(factory.__init__)  # type: ignore[misc]
    alone = types.SimpleNamespace(__annotations__={name: function.__annotations__.get(name, Any)})
    try:
        return typing.get_type_hints(alone, vars(inspect.getmodule(function)))[name]
    except NameError:  # imported for type checkers only
        return Any


def _hint(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"
