"""``{{ NAME }}`` in the arguments and variables of a command, and in the Job of onSuccess: hyperparameters and what a
trial is, as text."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hpstudy.api import reasons
from hpstudy.api.command import Command
from hpstudy.api.errors import InvalidStudyError
from hpstudy.space.dimensions import SearchSpace

TRIAL_PREFIX = "trial."
TRIAL_NAMES = tuple(
    TRIAL_PREFIX + name
    for name in ("number", "output_dir", "checkpoint_dir", "metrics", "parameters", "node_rank", "nodes")
)
"""What else than hyperparameters a template may name."""
_VARIABLE_PREFIX = "HPSTUDY_PARAM_"
_TEMPLATE = re.compile(r"\{\{\s*([^{}\s](?:[^{}]*[^{}\s])?)\s*\}\}")


def check_templates(command: Command, space: SearchSpace | None) -> None:
    """Check every template of a command.

    Args:
        space: None where a define-by-run function makes it up: then only the trial knows its hyperparameters.

    Raises:
        InvalidStudyError: a template is not well-formed or names nothing that a trial has, with the nearest name; or
            two hyperparameters have the same variable.
    """
    for field, text in _texts(command):
        check_text(field, text, space, TRIAL_NAMES, reasons.INVALID_COMMAND)
    _check_distinct(_names(space) or ())


def check_text(field: str, text: str, space: SearchSpace | None, own: Sequence[str], reason: str) -> None:
    """Check the templates of one text.

    Args:
        field: where the study has it.
        space: see :func:`check_templates`.
        own: what else than hyperparameters it may name.
        reason: of the error.

    Raises:
        InvalidStudyError: see :func:`check_templates`.
    """
    if "{{" in _TEMPLATE.sub("", text):
        raise InvalidStudyError(reason, f"{field}: a template is {{{{ NAME }}}} and nothing else, got {text!r:.200}")
    parameters = _names(space)
    for name in _TEMPLATE.findall(text):
        known = own if name.startswith(TRIAL_PREFIX) else None if parameters is None else [*parameters, *own]
        if known is not None and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise InvalidStudyError(reason, f"{field}: {name!r} is no hyperparameter of the search space; {hint}")


def fill(text: str, values: Mapping[str, str]) -> str | None:
    """The text with its templates replaced; None where it names a hyperparameter that the trial does not have."""
    if missing(text, values):
        return None
    return _TEMPLATE.sub(lambda match: values[match[1]], text)


def missing(text: str, values: Mapping[str, str]) -> list[str]:
    """What the text names and these values lack."""
    return [name for name in _TEMPLATE.findall(text) if name not in values]


def has_templates(text: str) -> bool:
    """Whether only a trial knows what the text is."""
    return _TEMPLATE.search(text) is not None


def as_texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Hyperparameters by name as a program gets them; those of a nested space by their path (optimizer.lr).

    Numbers are written so that they read back as the same number; true, false, null, lists and objects are JSON.
    """
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in _flat(parameters, ())
    }


def variable(name: str) -> str:
    """The environment variable of a hyperparameter: learning_rate is HPSTUDY_PARAM_LEARNING_RATE; what is no letter or
    digit of ASCII becomes an underscore."""
    return _VARIABLE_PREFIX + re.sub(r"[^A-Z0-9]", "_", name.upper())


def _texts(command: Command) -> list[tuple[str, str]]:
    arguments = [(f"trial.command.argv[{place}]", text) for place, text in enumerate(command.argv)]
    return arguments + [(f"trial.command.env.{name}", text) for name, text in command.env.items()]


def _names(space: SearchSpace | None) -> list[str] | None:
    return None if space is None else [_dotted(d.path or (d.name,)) for d in space.dimensions]


def _check_distinct(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if name.startswith(TRIAL_PREFIX):
            raise _invalid(
                f"searchSpace: {name}: names that begin with {TRIAL_PREFIX} are those of the trial; rename it"
            )
        if (other := seen.setdefault(variable(name), name)) != name:
            raise _invalid(
                f"searchSpace: {other} and {name} would both be the variable {variable(name)}; rename one of them"
            )


def _flat(value: Any, path: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not path):
        for key, child in value.items():
            yield from _flat(child, (*path, str(key)))
    else:
        yield _dotted(path), value


def _dotted(path: Iterable[Any]) -> str:
    return ".".join(map(str, path))


def _invalid(message: str) -> InvalidStudyError:
    return InvalidStudyError(reasons.INVALID_COMMAND, message)
