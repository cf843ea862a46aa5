"""What a worker group tells a script."""

import json
from pathlib import Path

import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy.search.group import GroupEnvironment
from tests.support.builders import spec


def test_a_script_reads_what_its_group_wrote(tmp_path: Path) -> None:
    study = tmp_path / "study.json"
    manifest = {"apiVersion": "hpstudy.io/v1alpha1", "kind": "HPStudy", "metadata": {"name": "mine"}}
    study.write_text(json.dumps(manifest | {"spec": spec().model_dump(mode="json", by_alias=True)}))
    written = GroupEnvironment(study, "sqlite:///study.db", "mine", 2, tmp_path / "output", tmp_path)
    read = GroupEnvironment.from_environment(written.variables())
    assert read == written
    assert read is not None
    assert read.spec() == spec()


def test_a_script_by_itself_has_none() -> None:
    assert GroupEnvironment.from_environment({}) is None


def test_half_an_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudyError, match="HPSTUDY_STORAGE_URL"):
        GroupEnvironment.from_environment({"HPSTUDY_STUDY": str(tmp_path)})
