"""What a worker group tells a script that it launches: whose trials its search runs."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.load import parse_study
from hpstudy.api.names import REVISION_VARIABLE
from hpstudy.api.study import StudySpec

_STUDY = "HPSTUDY_STUDY"
_STORAGE_URL = "HPSTUDY_STORAGE_URL"
_STORED_NAME = "HPSTUDY_STORED_NAME"
_GROUP = "HPSTUDY_GROUP"
_OUTPUT = "HPSTUDY_OUTPUT"
_FOLDER = "HPSTUDY_FOLDER"
_EVENTS = "HPSTUDY_EVENTS"
_DRIVER = "HPSTUDY_DRIVER"
_GPUS = "HPSTUDY_GPUS"


@dataclass(frozen=True)
class GroupEnvironment:
    """The study that a script in a worker group works for. Every rank has it; rank zero alone opens the storage."""

    study: Path
    """The resolved study, as JSON."""
    storage_url: str
    stored_name: str
    """Name of the study in the storage."""
    group: int
    """Index of the worker group."""
    output: Path
    """Where the group's files go."""
    folder: Path
    """Where relative paths of the study start."""
    driver: str
    """Address of the group's driver, for rank zero."""
    events: int | None = None
    """Descriptor of the pipe to whoever watches the study."""
    gpus: int = 0
    """That the group holds."""
    revision: str = ""
    """Of what the group was made from, where an operator made it."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Read it; None where the script runs by itself.

        Raises:
            InvalidStudyError: only a part of it is there.
        """
        if _STUDY not in environment:
            return None
        try:
            return cls(
                study=Path(environment[_STUDY]),
                storage_url=environment[_STORAGE_URL],
                stored_name=environment[_STORED_NAME],
                group=int(environment[_GROUP]),
                output=Path(environment[_OUTPUT]),
                folder=Path(environment[_FOLDER]),
                driver=environment[_DRIVER],
                events=int(environment[_EVENTS]) if _EVENTS in environment else None,
                gpus=int(environment[_GPUS]),
                revision=environment.get(REVISION_VARIABLE, ""),
            )
        except (KeyError, ValueError) as error:
            raise InvalidStudyError(
                reasons.INVALID_SPEC,
                f"{_STUDY} is set, and the rest of a worker group's environment is not as it should be: {error}; "
                f"unset {_STUDY} to run the script by itself",
            ) from None

    def variables(self) -> dict[str, str]:
        """The environment of the script."""
        return {
            _STUDY: str(self.study),
            _STORAGE_URL: self.storage_url,
            _STORED_NAME: self.stored_name,
            _GROUP: str(self.group),
            _OUTPUT: str(self.output),
            _FOLDER: str(self.folder),
            _DRIVER: self.driver,
            _GPUS: str(self.gpus),
            **({} if self.events is None else {_EVENTS: str(self.events)}),
            REVISION_VARIABLE: self.revision,
        }

    def spec(self) -> StudySpec:
        """Read the study.

        Raises:
            InvalidStudyError: the file is missing or is no study.
        """
        try:
            return parse_study(json.loads(self.study.read_text())).spec
        except (OSError, ValueError) as error:
            raise InvalidStudyError(reasons.INVALID_SPEC, f"{_STUDY}: cannot read {self.study}: {error}") from None
