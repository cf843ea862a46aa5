"""Values of objectives that are computed from an evaluation's metrics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers.trainer_utils import default_compute_objective

from hpstudy.api.metrics import DEFAULT_OBJECTIVE
from hpstudy.api.study import Objective
from hpstudy.api.transformers import TransformersTrial
from hpstudy.entry import import_entry
from hpstudy.training.function import name_metrics

Compute = Callable[[Mapping[str, Any]], dict[str, Any]]


def load_objective(trial: TransformersTrial, objectives: Sequence[Objective]) -> Compute:
    """Make the function from the metrics of an evaluation to what they amount to, by the names of the objectives.

    Raises:
        InvalidStudyError: ``computeObjective`` cannot be imported.
    """
    if trial.compute_objective is not None:
        entry = trial.compute_objective
        function = import_entry(entry, "trial.transformers.computeObjective")
        return lambda metrics: name_metrics(function(dict(metrics)), objectives, entry)
    if any(objective.metric == DEFAULT_OBJECTIVE for objective in objectives):
        return _default
    return lambda metrics: {}


def _default(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """As in Transformers: the sum of the metrics, or eval_loss where there is no other."""
    if DEFAULT_OBJECTIVE in metrics:
        return {}
    return {DEFAULT_OBJECTIVE: float(default_compute_objective(dict(metrics)))}
