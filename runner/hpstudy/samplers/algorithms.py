"""Algorithms of a library, by class name and options: what every backend checks before it builds one."""

import collections.abc
import difflib
import inspect
import types
import typing
import warnings
from collections.abc import Mapping
from typing import Any

import numpy
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.fields import Entry
from hpstudy.api.study import Algorithm
from hpstudy.entry import import_entry

Parts = Mapping[type, Any]
"""Options that are objects in Python: by their base class, the module that has the classes for them. A study writes
such an option as it writes the sampler itself, by name and options."""

_FOR_TYPE_CHECKERS = {
    "Callable": collections.abc.Callable,
    "Mapping": collections.abc.Mapping,
    "Sequence": collections.abc.Sequence,
    "np": numpy,
}
"""Names in annotations that a library imports only for type checkers."""


def build(
    algorithm: Algorithm,
    kind: str,
    module: Any,
    base: Any,
    unknown: str,
    *,
    parts: Parts | None = None,
    importing: bool = True,
) -> Any:
    """Build the class of ``module`` that the algorithm names, with its options.

    Args:
        kind: where the study names it, for errors: "sampler", "pruner", or an option of one.
        base: class that it must derive from.
        unknown: reason of the error where there is no such class.
        parts: options that are objects themselves.
        importing: False leaves the user's functions out; what is built is then good for nothing but to see that it can
            be built.

    Raises:
        InvalidStudyError: an unknown name or option, or a value that the algorithm refuses.
    """
    known = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and not inspect.isabstract(value)
        and value is not base
        and not name.startswith("_")
    }
    if algorithm.name not in known:
        raise InvalidStudyError(unknown, f"unknown {kind} {algorithm.name!r}{hint(algorithm.name, known)}")
    factory = known[algorithm.name]
    options = check_options(factory, algorithm, kind, parts=parts, importing=importing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some are experimental: a choice of the user's, not news in every log
            return factory(**options)
    except (TypeError, ValueError) as error:
        raise InvalidStudyError(reasons.INVALID_OPTION, f"{kind} {algorithm.name}: {error}") from None


def check_options(
    factory: type, algorithm: Algorithm, kind: str, *, parts: Parts | None = None, importing: bool = True
) -> dict[str, Any]:
    """Check names and types of the options against the constructor's annotations.

    Returns:
        Its keyword arguments, the parts and functions among them in place.
    """
    parameters = inspect.signature(factory).parameters
    options: dict[str, Any] = {}
    for name, value in algorithm.options.items():
        where = f"{kind}.options.{name}"
        if name not in parameters:
            raise InvalidStudyError(
                reasons.INVALID_OPTION, f"{where}: {algorithm.name} has no such option{hint(name, parameters)}"
            )
        # Libraries keep what they are given and fail trials later: check against their own annotations.
        annotation = _annotation(factory, name, parts or {})
        options[name] = _argument(value, annotation, where, parts or {}, importing)
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


def hint(name: str, known: typing.Iterable[str]) -> str:
    """What to end the complaint about an unknown name with: the one that was meant, or all."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"


def _argument(value: Any, annotation: Any, where: str, parts: Parts, importing: bool) -> Any:
    accepted = {typing.get_origin(member) or member for member in _members(annotation)}
    if value is None and types.NoneType in accepted:
        return None
    for base, module in parts.items():
        if base in accepted:
            part = _checked(value, Algorithm, where)
            return build(part, where, module, base, reasons.INVALID_OPTION, parts=parts, importing=importing)
    if collections.abc.Callable in accepted:
        entry: str = _checked(value, Entry, where)
        return import_entry(entry, where) if importing else len
    if numpy.ndarray in accepted:
        return numpy.asarray(_checked(value, list[list[float]], where))
    return _checked(value, annotation, where)


def _checked(value: Any, annotation: Any, where: str) -> Any:
    try:
        if inspect.isclass(annotation) and issubclass(annotation, Algorithm):
            return annotation.model_validate(value)
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "is_instance_of":
            text = f"takes a Python object ({first['ctx']['class']}), which a manifest cannot say; leave it out"
        elif annotation is Entry:
            text = f"takes a function, as module:function; got {value!r}"
        elif annotation is Algorithm:
            text = f"takes a name and options, {{name: …, options: {{…}}}}; got {value!r}"
        else:
            text = f"{first['msg'].lower()}, got {value!r}"
        raise InvalidStudyError(reasons.INVALID_OPTION, f"{where}: {text}") from None
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return value


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _annotation(factory: type, name: str, parts: Parts) -> Any:
    function = inspect.unwrap(factory.__init__)  # type: ignore[misc]
    alone = types.SimpleNamespace(__annotations__={name: function.__annotations__.get(name, Any)})
    names: dict[str, Any] = _FOR_TYPE_CHECKERS | {base.__name__: base for base in parts}
    names |= vars(inspect.getmodule(function))
    while True:
        try:
            return typing.get_type_hints(alone, names)[name]
        except NameError as error:  # another one imported for type checkers only: no value of a manifest is one
            if not error.name:
                raise
            names[error.name] = type(error.name, (), {})
