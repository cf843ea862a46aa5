"""A program that cannot run is refused before the first trial, with what to change."""

from pathlib import Path
from typing import Any

import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.form import load_form
from tests.support.builders import spec


@pytest.mark.parametrize(
    ("program", "folder", "complaint"),
    [
        ("pyton", ".", "there is no program 'pyton' to run in '.' of {}; correct argv or workingDir"),
        ("sh", "absent", "there is no folder 'absent' of {} to run in; correct workingDir"),
        ("./mine.sh", ".", "'./mine.sh' in '.' of {} is not executable; chmod +x it, or name its interpreter first"),
        ("mine.sh", ".", "there is no program 'mine.sh' to run, but a file of that name in '.' of {}; write ./mine.sh"),
        (
            "sh mine.sh",
            ".",
            "no program 'sh mine.sh' to run in '.' of {}; argv has each argument as an item of its own",
        ),
    ],
)
def test_what_cannot_run_is_refused(tmp_path: Path, program: str, folder: str, complaint: str) -> None:
    (tmp_path / "mine.sh").write_text("echo loss=1\n")
    form: Any = load_form(spec(trial={"command": {"argv": [program], "workingDir": folder}}), tmp_path)
    with pytest.raises(InvalidStudyError) as refusal:
        form.prepare()
    form._agent._process.wait(10)
    assert refusal.value.reason == "InvalidCommand"
    assert complaint.format(tmp_path) in refusal.value.message
