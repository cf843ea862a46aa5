"""Between the Trainer and the study: reports every evaluation, prunes on all ranks at the same step."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from datasets import Dataset
from transformers import IntervalStrategy, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hpstudy.checkpoints.local import remove_of_trainer
from hpstudy.training.evaluations import evaluation_step, improves
from hpstudy.training.sharding import save_whole, saves_parts
from hpstudy.training.trial import Trial, TrialStopped

FOR_TRAINING = (
    "optimizer*",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    "global_step*",  # DeepSpeed's optimizer
    "latest",
    "zero_to_*.py",
    "pytorch_model_fsdp*",  # FSDP resumes from a copy of the model in a form of its own
)
"""What only training needs, twice the size of the model with AdamW: no part of the best checkpoint."""
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
        self._rates: dict[str, float] | None = trial.checkpoints.extra.get(_RATES)
        self.pruned = False
        self._stops = self._starts = False
        self._evaluated: int | None = None

    def attach(self, trainer: Trainer, test: Dataset | None, prefix: str) -> None:
        """Give it the trainer, which only exists after its callbacks, and the data that no trial is judged by."""
        self._trainer, self._test, self._test_prefix = trainer, test, prefix
        self._model_parameters = trainer.model.num_parameters()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Of a trial that goes on with other hyperparameters than its checkpoint's, the optimizer has the old ones."""
        self._starts, self._evaluated = True, None  # ``auto_find_batch_size`` begins anew
        rates = {"lr": args.learning_rate, "weight_decay": args.weight_decay}
        self._trial.checkpoints.extra[_RATES] = rates
        if self._rates is not None and self._rates != rates:
            _change_rates(kwargs["optimizer"], kwargs["lr_scheduler"], self._rates, rates)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After the evaluation that ``eval_on_start`` asks for."""
        self._starts = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._trial.progress(state.global_step / max(state.max_steps, 1))
        if self._trial.checkpoints.active and self._trial.stops_after(state.global_step):
            self._stops = True
            if not self._lacks_evaluation(args, state):
                control.should_save = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        if self._starts:  # of a model that has learnt nothing, or nothing since its checkpoint
            return
        self._evaluated = state.global_step
        metrics = {**metrics, "model_parameters": self._model_parameters, **self._compute(metrics)}
        # Rank zero's choice: an objective may be a time, which each rank measures for itself, and to predict takes all.
        if self._trial.agree(self._last or improves(metrics, self.chosen, self._trial.objectives[0])):
            self.chosen = dict(metrics)
            self._is_best = True
            if self._test is not None:
                self.chosen |= self._trainer.predict(self._test, metric_key_prefix=self._test_prefix).metrics
        self._trial.report(metrics, evaluation_step(args, state))
        # After the last step nothing is left to save, and the best evaluation may be an earlier one.
        if state.global_step < state.max_steps and self._trial.should_prune():
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
        if not checkpoints.active or self._lacks_evaluation(args, state):
            return
        folder = Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
        if self._trial.world_size > 1:
            _gather_generators(folder)
        if self._is_best and saves_parts(self._trainer):
            save_whole(self._trainer, folder)
        if self._trial.rank == 0:
            # The best one first: of a trial that is cut off between the two, the evaluation is made again.
            if self._is_best:
                checkpoints.publish_best(folder, leave_out=FOR_TRAINING)
            checkpoints.publish_last(folder)
        elif self._trial.local_rank == 0:
            remove_of_trainer(self._trial.output_dir, self._trial.node, but=folder.name)
        self._is_best = False
        if self._stops and not self.pruned:
            raise TrialStopped

    def evaluate_at_the_end(self) -> None:
        """Of a trial whose arguments ask for no evaluation."""
        self._starts = False
        self._trainer.evaluate()
        folder = Path(self._trainer.args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{self._trainer.state.global_step}")
        if self._trial.checkpoints.active:
            save_whole(self._trainer, folder)
            if self._trial.rank == 0:
                self._trial.checkpoints.publish_best(folder, leave_out=FOR_TRAINING)

    @property
    def resumes_from(self) -> str | None:
        """The checkpoint to start from, for ``Trainer.train``."""
        folder = self._trial.checkpoints.folder
        return str(folder) if (folder / TRAINER_STATE_NAME).exists() else None

    def _lacks_evaluation(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether this is an epoch's last step, or training's, and the epoch's evaluation is still to come: it saves,
        and nothing before it does. The Trainer, resumed from here, would leave it out."""
        epoch = float(state.epoch or 0)
        ends = epoch.is_integer() or state.global_step >= state.max_steps
        due = bool(args.eval_strategy == IntervalStrategy.EPOCH and args.eval_delay <= epoch)
        return ends and due and self._evaluated != state.global_step


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

    def changed(rate: float) -> float:
        return rate * now["lr"] / before["lr"] if before["lr"] else now["lr"]

    for place, group in enumerate(optimizer.param_groups):
        for name in {"lr", "initial_lr"} & group.keys():  # schedules that follow a metric keep no initial one
            group[name] = changed(group[name])
        # The Trainer's first group is the one that decays.
        if group["weight_decay"] == before["weight_decay"] and (before["weight_decay"] or place == 0):
            group["weight_decay"] = now["weight_decay"]
    scheduler = getattr(scheduler, "scheduler", scheduler)  # accelerate's holds torch's
    if hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [changed(rate) for rate in scheduler.base_lrs]
