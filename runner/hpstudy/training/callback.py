"""Between the Trainer and the study: reports every evaluation, prunes on all ranks at the same step."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from datasets import Dataset
from transformers import IntervalStrategy, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hpstudy.api.metrics import find_metric
from hpstudy.training.trial import Trial, TrialStopped

_CHOSEN = "chosen"
"""In a checkpoint's record: metrics of the evaluation that counts."""
_RATES = "rates"
"""In a checkpoint's record: what its optimizer was made with."""


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
        self._is_best = False
        # Where the trial continues another, so does the choice among its evaluations.
        self.chosen: dict[str, Any] | None = trial.checkpoints.extra.get(_CHOSEN)
        self.pruned = False
        self._stops = False

    def attach(self, trainer: Trainer, test: Dataset | None, prefix: str) -> None:
        """Give it the trainer, which only exists after its callbacks, and the data that no trial is judged by."""
        self._trainer, self._test, self._test_prefix = trainer, test, prefix
        self._model_parameters = trainer.model.num_parameters()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Of a trial that goes on with other hyperparameters than its checkpoint's, the optimizer has the old ones."""
        extra = self._trial.checkpoints.extra
        before = extra.get(_RATES)
        extra[_RATES] = {"lr": args.learning_rate, "weight_decay": args.weight_decay}
        if before is not None and before != extra[_RATES]:
            _change_rates(kwargs["optimizer"], kwargs["lr_scheduler"], before, extra[_RATES])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._trial.progress(state.global_step / max(state.max_steps, 1))
        if self._trial.checkpoints.active and self._trial.stops_after(state.global_step):
            self._stops = True
            # After an epoch's last step the Trainer would resume in the next one, without this one's evaluation: that
            # is made first, and saves.
            if not (args.eval_strategy == IntervalStrategy.EPOCH and float(state.epoch or 0).is_integer()):
                control.should_save = True

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
            self._is_best = True
            if self._test is not None:
                self.chosen |= self._trainer.predict(self._test, metric_key_prefix=self._test_prefix).metrics
        # Epochs where there are such: a pruner compares trials step by step, and batch sizes differ.
        by_epoch = args.eval_strategy == IntervalStrategy.EPOCH
        self._trial.report(metrics, round(state.epoch or 0) if by_epoch else state.global_step)
        if self._trial.should_prune():
            self.pruned = True
            control.should_training_stop = True
        checkpoints = self._trial.checkpoints
        if checkpoints.active:
            checkpoints.extra[_CHOSEN] = self.chosen
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Publish what the Trainer has saved: after each evaluation, whenever the arguments say, and when the worker is
        told to stop.

        Raises:
            TrialStopped: it was.
        """
        checkpoints = self._trial.checkpoints
        if not checkpoints.active:
            return
        folder = Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
        if self._trial.world_size > 1:
            _gather_generators(folder)
        if self._trial.rank == 0:
            # The best one first: of a trial that is cut off between the two, the evaluation is made again.
            if self._is_best:
                checkpoints.publish_best(folder)
            checkpoints.publish_last(folder)
        self._is_best = False
        if self._stops and not self.pruned:
            raise TrialStopped

    def evaluate_at_the_end(self) -> None:
        """Of a trial whose arguments ask for no evaluation."""
        self._trainer.evaluate()
        folder = Path(self._trainer.args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{self._trainer.state.global_step}")
        if self._trial.checkpoints.active:
            self._trainer.save_model(str(folder))
            if self._trial.rank == 0:
                self._trial.checkpoints.publish_best(folder)

    @property
    def resumes_from(self) -> str | None:
        """The checkpoint to start from, for ``Trainer.train``."""
        folder = self._trial.checkpoints.folder
        return str(folder) if (folder / TRAINER_STATE_NAME).exists() else None

    def _improves(self, metrics: dict[str, Any]) -> bool:
        objective = self._trial.objectives[0]
        new = find_metric(metrics, objective.metric)
        if self.chosen is None:
            return True
        old = find_metric(self.chosen, objective.metric)
        if new is None or old is None or math.isnan(new):
            return False
        return math.isnan(old) or (new > old if objective.direction == "maximize" else new < old)


def _gather_generators(folder: Path) -> None:
    """Bring the state of all ranks' random generators to rank zero, whose node publishes the checkpoint: each rank has
    saved its own on its node. No rank leaves before all have."""
    own = folder / f"rng_state_{dist.get_rank()}.pth"
    states: list[bytes | None] = [None] * dist.get_world_size()
    dist.all_gather_object(states, own.read_bytes() if own.exists() else None)
    if dist.get_rank() == 0:
        for rank, state in enumerate(states):
            path = folder / f"rng_state_{rank}.pth"
            if state is not None and not path.exists():
                path.write_bytes(state)


def _change_rates(optimizer: Any, scheduler: Any, before: Mapping[str, float], now: Mapping[str, float]) -> None:
    """Give an optimizer and its schedule, as they came from a checkpoint, another learning rate and weight decay."""
    for place, group in enumerate(optimizer.param_groups):
        if before["lr"]:
            for name in ("lr", "initial_lr"):
                group[name] *= now["lr"] / before["lr"]
        # The Trainer's first group is the one that decays.
        if group["weight_decay"] == before["weight_decay"] and (before["weight_decay"] or place == 0):
            group["weight_decay"] = now["weight_decay"]
    scheduler = getattr(scheduler, "scheduler", scheduler)  # accelerate's holds torch's
    if before["lr"]:
        scheduler.base_lrs = [rate * now["lr"] / before["lr"] for rate in scheduler.base_lrs]
