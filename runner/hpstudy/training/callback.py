"""Between the Trainer and the study: reports every evaluation, prunes on all ranks at the same step."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset
from transformers import IntervalStrategy, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpstudy.api.metrics import find_metric
from hpstudy.training.trial import Trial


class StudyCallback(TrainerCallback):
    """Reports each evaluation and keeps the one that counts: the best by the first objective, the earlier among equals,
    or the last.

    Args:
        compute: values of objectives from an evaluation's metrics.
        last: the last evaluation counts.

    Attributes:
        chosen: metrics of the evaluation that counts, with the test metrics of that moment where there is test data.
        pruned: the study asked to stop, and every rank was told at the same evaluation.
    """

    def __init__(self, trial: Trial, compute: Callable[[Mapping[str, Any]], dict[str, Any]], *, last: bool) -> None:
        self._trial = trial
        self._compute = compute
        self._last = last
        self._test: Dataset | None = None
        self.chosen: dict[str, Any] | None = None
        self.pruned = False

    def attach(self, trainer: Trainer, test: Dataset | None, prefix: str) -> None:
        """Give it the trainer, which only exists after its callbacks, and the data that no trial is judged by."""
        self._trainer, self._test, self._test_prefix = trainer, test, prefix
        self._model_parameters = trainer.model.num_parameters()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._trial.progress(state.global_step / max(state.max_steps, 1))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        metrics = {**metrics, "model_parameters": self._model_parameters, **self._compute(metrics)}
        # Rank zero's choice: an objective may be a time, which each rank measures for itself, and to predict takes all.
        if self._trial.agree(self._last or self._improves(metrics)):
            self.chosen = dict(metrics)
            if self._test is not None:
                self.chosen |= self._trainer.predict(self._test, metric_key_prefix=self._test_prefix).metrics
        # Epochs where there are such: a pruner compares trials step by step, and batch sizes differ.
        by_epoch = args.eval_strategy == IntervalStrategy.EPOCH
        self._trial.report(metrics, round(state.epoch or 0) if by_epoch else state.global_step)
        if self._trial.should_prune():
            self.pruned = True
            control.should_training_stop = True

    def _improves(self, metrics: dict[str, Any]) -> bool:
        objective = self._trial.objectives[0]
        new = find_metric(metrics, objective.metric)
        if self.chosen is None:
            return True
        old = find_metric(self.chosen, objective.metric)
        if new is None or old is None or math.isnan(new):
            return False
        return math.isnan(old) or (new > old if objective.direction == "maximize" else new < old)
