"""Studies for tests: valid ones, from the fields that matter."""

from typing import Any

from hpstudy.api.load import parse_study
from hpstudy.api.study import Study, StudySpec


def manifest(name: str = "study", **spec: Any) -> dict[str, Any]:
    """A manifest with one float parameter and a function; fields of the spec by keyword, None removes one."""
    complete = {
        "objectives": [{"metric": "loss", "direction": "minimize"}],
        "searchSpace": {"parameters": {"x": {"type": "float", "low": -2, "high": 2}}},
        "trial": {"function": "trials_of_tests:square"},
    } | spec
    return {
        "apiVersion": "hpstudy.io/v1alpha1",
        "kind": "HPStudy",
        "metadata": {"name": name},
        "spec": {field: value for field, value in complete.items() if value is not None},
    }


def study(name: str = "study", **spec: Any) -> Study:
    """The same, parsed."""
    return parse_study(manifest(name, **spec))


def spec(**fields: Any) -> StudySpec:
    """Its spec."""
    return study(**fields).spec
