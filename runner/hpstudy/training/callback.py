"""Between the Trainer and the study: reports every evaluation, prunes on all ranks at the same step."""

import math
from typing import Any

from datasets import Dataset
from transformers import IntervalStrategy, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpstudy.training.trial import Trial


class StudyCallback(TrainerCallback):
    """Reports each evaluation and keeps the best one, by the first objective; earlier wins among equals.

    Attributes:
        best: metrics of the best evaluation, with the test metrics of that moment where there is test data.
        pruned: the study asked to stop, and every rank was told at the same evaluation.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._test: Dataset | None = None
        self.best: dict[str, Any] | None = None
        self.pruned = False

    def attach(self, trainer: Trainer, test: Dataset | None, prefix: str) -> None:
        """Give it the trainer, which only exists after its callbacks, and the data that no trial is judged by."""
        self._trainer, self._test, self._test_prefix = trainer, test, prefix

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
        if self._improves(metrics):
            self.best = dict(metrics)
            if self._test is not None:
                self.best |= self._trainer.predict(self._test, metric_key_prefix=self._test_prefix).metrics
        # Epochs where there are such: a pruner compares trials step by step, and batch sizes differ.
        by_epoch = args.eval_strategy == IntervalStrategy.EPOCH
        self._trial.report(metrics, round(state.epoch or 0) if by_epoch else state.global_step)
        if self._trial.should_prune():
            self.pruned = True
            control.should_training_stop = True

    def _improves(self, metrics: dict[str, Any]) -> bool:
        """The same on every rank: the Trainer gathers predictions before it computes metrics."""
        objective = self._trial.objectives[0]
        new = metrics.get(objective.metric)
        if self.best is None:
            return True
        old = self.best.get(objective.metric)
        if new is None or old is None or math.isnan(new):
            return False
        return math.isnan(old) or (new > old if objective.direction == "maximize" else new < old)
