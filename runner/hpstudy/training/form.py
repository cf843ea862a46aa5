"""The forms of a trial."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hpstudy.api.study import StudySpec
from hpstudy.training.script import ScriptForm
from hpstudy.training.trial import Trial


class Form(Protocol):
    """What a trial is."""

    def prepare(self) -> None:
        """Import and load what all trials share. Runs once in the parent of all ranks: no CUDA, one thread.

        Raises:
            InvalidStudyError: the study cannot run as written.
        """

    def run(self, trial: Trial) -> Mapping[str, Any]:
        """Train one trial on this rank; returns its metrics by name (rank zero's count).

        Raises:
            optuna.TrialPruned: the trial obeyed a prune, on every rank at the same step.
        """


def load_form(spec: StudySpec, folder: Path) -> Form | ScriptForm:
    """The form of the study's trials; relative paths in it start at the folder."""
    # Imported here: the function form must not pay for transformers.
    if spec.trial.function is not None:
        from hpstudy.training.function import FunctionForm

        return FunctionForm(spec.trial.function, spec.objectives)
    if spec.trial.command is not None:
        from hpstudy.training.command import CommandForm

        return CommandForm(spec.trial.command, spec, folder)
    if spec.trial.script is not None:
        return ScriptForm(spec.trial.script, folder)
    from hpstudy.training.trainer import TransformersForm

    assert spec.trial.transformers is not None
    return TransformersForm(spec.trial.transformers, spec, folder)
