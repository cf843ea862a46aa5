"""Importing ``module:function`` of the user's."""

import importlib
from collections.abc import Callable
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError


def import_entry(entry: str, field: str) -> Callable[..., Any]:
    """Import a callable.

    Args:
        entry: ``module:function``.
        field: where the study names it, for the message.

    Raises:
        InvalidStudyError: the module cannot be imported, or has no such callable.
    """
    module_name, _, name = entry.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's code: anything may come out of it
        raise InvalidStudyError(
            reasons.IMPORT_FAILED,
            f"{field}: cannot import module {module_name!r} of {entry!r}: {type(error).__name__}: {error}",
        ) from error
    target = getattr(module, name, None)
    if not callable(target):
        what = "has no function" if target is None else "has no function, but another object, named"
        raise InvalidStudyError(reasons.IMPORT_FAILED, f"{field}: module {module_name!r} {what} {name!r}")
    return target  # type: ignore[no-any-return]
