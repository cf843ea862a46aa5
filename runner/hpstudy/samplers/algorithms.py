"""Algorithms of a library, by class name and options: what every backend checks before it builds one."""

import difflib
import inspect
import types
import typing
import warnings
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import Algorithm


def build(algorithm: Algorithm, kind: str, module: Any, base: Any, unknown: str) -> Any:
    """Build the class of ``module`` that the algorithm names, with its options.

    Args:
        kind: "sampler" or "pruner", as errors call it.
        base: class that it must derive from.
        unknown: reason of the error where there is no such class.

    Raises:
        InvalidStudyError: an unknown name or option, or a value that the algorithm refuses.
    """
    known = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base and not name.startswith("_")
    }
    if algorithm.name not in known:
        raise InvalidStudyError(unknown, f"unknown {kind} {algorithm.name!r}{hint(algorithm.name, known)}")
    factory = known[algorithm.name]
    options = check_options(factory, algorithm, kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some are experimental: a choice of the user's, not news in every log
            return factory(**options)
    except (TypeError, ValueError) as error:
        raise InvalidStudyError(reasons.INVALID_OPTION, f"{kind} {algorithm.name}: {error}") from None


def check_options(factory: type, algorithm: Algorithm, kind: str) -> dict[str, Any]:
    """Check names and types of the options against the constructor's annotations; nothing is built.

    Returns:
        Its keyword arguments.
    """
    parameters = inspect.signature(factory).parameters
    options = dict(algorithm.options)
    for name, value in algorithm.options.items():
        where = f"{kind}.options.{name}"
        if name not in parameters:
            raise InvalidStudyError(
                reasons.INVALID_OPTION, f"{where}: {algorithm.name} has no such option{hint(name, parameters)}"
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


def hint(name: str, known: typing.Iterable[str]) -> str:
    """What to end the complaint about an unknown name with: the one that was meant, or all."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"
