"""Reading a manifest, with errors that a person can act on."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import Study


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: in YAML 1.1, which PyYAML reads, 1e-6 is a string because it has no dot."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_manifest(path: Path) -> Study:
    """Read one HPStudy from a YAML or JSON file.

    Raises:
        InvalidStudyError: the file is missing, is not YAML, holds no or several objects, or breaks the schema.
    """
    try:
        documents = [document for document in yaml.load_all(path.read_text(), _Loader) if document is not None]
    except OSError as error:
        raise InvalidStudyError(reasons.INVALID_SPEC, f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidStudyError(reasons.INVALID_SPEC, f"{path} is not YAML: {error}") from None
    if len(documents) != 1:
        raise InvalidStudyError(
            reasons.INVALID_SPEC, f"{path} must hold one HPStudy, it holds {len(documents)} objects"
        )
    return parse_study(documents[0])


def parse_study(manifest: Any) -> Study:
    """Check a manifest that is already parsed.

    Raises:
        InvalidStudyError: with one line for each field that is wrong.
    """
    try:
        return Study.model_validate(manifest)
    except ValidationError as error:
        raise InvalidStudyError(reasons.INVALID_SPEC, "\n".join(_describe(error))) from None


def _describe(error: ValidationError) -> list[str]:
    lines: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        path = ".".join(str(part) for part in detail["loc"] if not _is_union_member(str(part)))
        if detail["type"] == "string_type" and path in lines:  # the last of what a choice may be
            lines[path] = f"{path}: must be a text, a number, true, false or null, got {detail['input']!r:.80}"
        match detail["type"]:
            case "extra_forbidden":
                text = "unknown field"
            case "missing":
                text = "required"
            case "value_error":
                text = str(detail["ctx"]["error"])
            case _:
                text = f"{_lower_first(detail['msg'])}, got {detail['input']!r:.80}"
        # A union reports each member that did not fit: the first is what the field is for.
        lines.setdefault(path, f"{path or 'manifest'}: {text}")
    return list(lines.values())


def _is_union_member(part: str) -> bool:
    """Pydantic names the members of a union in an error's path (low.int, low.float): no field of the user's."""
    return part in {"int", "float", "str", "bool", "constrained-int"} or part.startswith(("literal[", "function-"))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
