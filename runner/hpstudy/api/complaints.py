"""What is wrong with a manifest, in words that say what to change."""

import difflib
import typing
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union

from pydantic import BaseModel, ValidationError

from hpstudy.api.fields import ENTRY_PATTERN, Duration

_DURATION = "a duration such as 90s, 1h30m or 500ms"
_FORMS = {Duration.PATTERN: _DURATION, ENTRY_PATTERN: "module:function"}


def describe(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """A line for each field that is wrong.

    Args:
        model: what was to be read.
    """
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        place = [str(part) for part in detail["loc"] if not _is_union_member(str(part))]
        path, given = ".".join(place), f"{detail['input']!r:.80}"
        if detail["type"] == "string_type" and path in lines:  # the last of what a choice may be
            lines[path] = f"{path}: must be a text, a number, true, false or null, got {given}"
        match detail["type"]:
            case "extra_forbidden":
                text = _unknown(place, model)
            case "missing":
                text = "required"
            case "value_error":
                text = str(detail["ctx"]["error"])
            case "model_type":
                text = f"must have fields ({', '.join(_fields(_at(place, model)))}), got {given}"
            case "string_type" if isinstance(detail["input"], int | float):
                text = f"must be {_DURATION if Duration in _at(place, model) else 'a text, in quotes'}, got {given}"
            case "string_pattern_mismatch" if detail["ctx"]["pattern"] in _FORMS:
                text = f"must be {_FORMS[detail['ctx']['pattern']]}, got {given}"
            case _:
                text = f"{_lower_first(detail['msg'])}, got {given}"
        # A union reports each member that did not fit: the first is what the field is for.
        lines.setdefault(path, f"{path or 'manifest'}: {text}")
    return list(lines.values())


def _unknown(place: Sequence[str], model: type[BaseModel]) -> str:
    *parent, name = place
    known = _fields(_at(parent, model))
    if parent and name in _fields(_at(parent[:-1], model)):
        return f"unknown field; it belongs beside {parent[-1]}, not below it"
    if close := difflib.get_close_matches(name, known, n=1):
        return f"unknown field; did you mean {close[0]}?"
    return f"unknown field; there are {', '.join(known)}" if known else "unknown field"


def _at(place: Sequence[str], model: type[BaseModel]) -> list[Any]:
    """The types that a field may have; none where any value goes."""
    kinds: list[Any] = [model]
    for part in place:
        kinds = [found for kind in kinds for found in _below(kind, part)]
    return kinds


def _below(kind: Any, part: str) -> Iterator[Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if part == (field.alias or name):
                yield from _members(field.annotation)
    elif typing.get_origin(kind) in (dict, list):
        yield from _members(typing.get_args(kind)[-1])


def _members(annotation: Any) -> Iterator[Any]:
    """The types of a union, without what is annotated to them."""
    if typing.get_origin(annotation) is Annotated:
        yield from _members(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) in (Union, UnionType):
        for member in typing.get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _fields(kinds: Sequence[Any]) -> list[str]:
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return [field.alias or name for kind in models for name, field in kind.model_fields.items()]


def _is_union_member(part: str) -> bool:
    """Pydantic names the members of a union in an error's path (low.int, low.float): no field of the user's."""
    return part in {"int", "float", "str", "bool", "constrained-int"} or part.startswith(("literal[", "function-"))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
