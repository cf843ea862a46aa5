"""The ``script`` form: a training script of the user's, whose hyperparameter search is the loop over the trials."""

import importlib
from pathlib import Path

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.trials import Script


class ScriptForm:
    """The script; relative paths start at the folder."""

    def __init__(self, script: Script, folder: Path) -> None:
        self.path = folder / script.path
        self.args = tuple(script.args)

    def prepare(self) -> None:
        """Look whether it is a script at all, and import what it will.

        Raises:
            InvalidStudyError: the file is missing, or is no Python.
        """
        try:
            compile(self.path.read_text(), str(self.path), "exec")
        except (OSError, SyntaxError, ValueError) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidStudyError(reasons.INVALID_SCRIPT, f"trial.script {self.path}: {text}") from None
        for name in ("transformers.trainer", "datasets", "hpstudy.search.api"):
            importlib.import_module(name)
