"""HPStudy: hyperparameter studies of PyTorch and Hugging Face training.

What code that runs inside a trial imports::

    from hpstudy import Trial, TrialPruned

    def objective(trial: Trial) -> float:
        ...
"""

from typing import TYPE_CHECKING, Any

from hpstudy._version import __version__

if TYPE_CHECKING:
    from optuna import TrialPruned

    from hpstudy.training.trial import Trial

__all__ = ["Trial", "TrialPruned", "__version__"]


def __getattr__(name: str) -> Any:
    """Imported on use: torch and Optuna take seconds, which the command line does not have."""
    if name == "Trial":
        from hpstudy.training.trial import Trial

        return Trial
    if name == "TrialPruned":
        from optuna import TrialPruned

        return TrialPruned
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
