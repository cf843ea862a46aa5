"""HPStudy: hyperparameter studies of PyTorch and Hugging Face training.

What code that runs inside a trial imports::

    from hpstudy import Trial, TrialPruned, TrialStopped

    def objective(trial: Trial) -> float:
        ...

and what a script of the user's own calls::

    from hpstudy import hyperparameter_search

    best_run = hyperparameter_search(trainer, n_trials=20)
"""

from typing import TYPE_CHECKING, Any

from hpstudy._version import __version__

if TYPE_CHECKING:
    from optuna import TrialPruned

    from hpstudy.search.api import hyperparameter_search
    from hpstudy.training.trial import Trial, TrialStopped

__all__ = ["Trial", "TrialPruned", "TrialStopped", "__version__", "hyperparameter_search"]


def __getattr__(name: str) -> Any:
    """Imported on use: torch and Optuna take seconds, which the command line does not have."""
    if name in ("Trial", "TrialStopped"):
        from hpstudy.training import trial

        return getattr(trial, name)
    if name == "TrialPruned":
        from optuna import TrialPruned

        return TrialPruned
    if name == "hyperparameter_search":
        from hpstudy.search.api import hyperparameter_search

        return hyperparameter_search
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
