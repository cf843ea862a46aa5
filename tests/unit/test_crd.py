"""The generated CRD; its rules are tried on a real API server in tests/api."""

from pathlib import Path
from typing import Any

from hpstudy.api.crd import crd, render

ROOT = Path(__file__).parents[2]


def test_the_file_is_what_the_types_say() -> None:
    assert (ROOT / "crds" / "hpstudy.io_hpstudies.yaml").read_text() == render()


def walk(schema: dict[str, Any]) -> list[dict[str, Any]]:
    children = [*schema.get("properties", {}).values()]
    children += [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    return [schema, *(found for child in children for found in walk(child))]


def test_every_field_of_spec_and_status_is_described() -> None:
    properties = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for part in ("spec", "status"):
        for schema in walk(properties[part]):
            for name, child in schema.get("properties", {}).items():
                assert child.get("description"), f"{name} is not described"


def test_the_schema_is_structural() -> None:
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in walk(schema):
        assert not {"$ref", "anyOf", "oneOf", "allOf", "const", "title"} & set(part)
        untyped = part.get("x-kubernetes-preserve-unknown-fields") or part.get("x-kubernetes-int-or-string")
        assert "type" in part or untyped
