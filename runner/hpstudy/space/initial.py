"""``initialTrials``: hyperparameters that the user chose, as the storage records them."""

from typing import Any

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.space.dimensions import SearchSpace


def initial_parameters(spec: StudySpec, space: SearchSpace | None) -> list[dict[str, Any]]:
    """The values of each initial trial, typed.

    Args:
        space: None where a define-by-run function makes it up: the values are then checked when their trial runs.

    Raises:
        InvalidStudyError: a name that the space does not have, a value out of bounds, or one of a parameter that does
            not exist with the others given.
    """
    if space is None:
        return [dict(given) for given in spec.initial_trials]
    return [_encode(given, space, f"initialTrials[{i}]") for i, given in enumerate(spec.initial_trials)]


def _encode(given: dict[str, Any], space: SearchSpace, where: str) -> dict[str, Any]:
    encoded = {}
    for name, value in given.items():
        if name not in space:
            raise _invalid(
                f"{where}.{name}: the search space has no such parameter; it has {', '.join(space.distributions)}"
            )
        try:
            encoded[name] = space[name].encode(value)
        except (TypeError, ValueError) as error:
            raise _invalid(f"{where}.{error}") from None
    for name in encoded:
        for parent, allowed in space[name].when.items():
            if parent in encoded and space[parent].decode(encoded[parent]) not in allowed:
                raise _invalid(f"{where}.{name}: it exists only where {parent} is {' or '.join(map(str, allowed))}")
    return encoded


def _invalid(message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_INITIAL_TRIAL, message)
