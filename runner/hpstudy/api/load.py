"""Reading a manifest, with errors that a person can act on."""

import math
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hpstudy.api import reasons
from hpstudy.api.complaints import describe
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import Study


class _Loader(yaml.SafeLoader):
    """YAML as kubectl reads it. Its numbers are YAML 1.2's: in 1.1, which PyYAML reads, 1e-6 is a string because it has
    no dot. A key that is there twice is an error, and so are numbers that JSON does not have."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in keys:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value} is there twice", problem_mark=key.start_mark)
            keys.add((key.tag, key.value))
        return node

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value: float = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise yaml.MarkedYAMLError(problem=f"{node.value} is no finite number", problem_mark=node.start_mark)
        return value


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
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
    # As strict as an API server: it knows fields by their names in JSON alone, and makes no number of a text.
    try:
        return Study.model_validate(manifest, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidStudyError(reasons.INVALID_SPEC, "\n".join(describe(error, Study))) from None
