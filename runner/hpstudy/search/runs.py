"""One trial on one rank: the user's Trainer, with the trial's arguments."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import LabelSmoother
from transformers.trainer_utils import number_of_arguments

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.objectives import Objective
from hpstudy.search.arguments import run_folder, trial_arguments, unknown_names
from hpstudy.search.names import Names
from hpstudy.search.proxies import Given
from hpstudy.training.evaluations import evaluation_step, improves

Compute = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Values of objectives by name, from the metrics of an evaluation."""
_HOOKS = ("call_model_init", "_hp_search_setup", "_report_to_hp_search")
"""What the Trainer calls: as it makes a trial's model, when it has made it, and with each evaluation's metrics."""


def check_trainer(trainer: Trainer) -> None:
    """Check that the Trainer calls what a trial hooks into.

    Raises:
        InvalidStudyError: it is of a version that does not.
    """
    missing = [name for name in _HOOKS if not callable(getattr(trainer, name, None))]
    if missing:
        raise InvalidStudyError(
            reasons.IMPORT_FAILED,
            f"this version of transformers has no Trainer.{missing[0]}; install transformers>=5.4,<6",
        )


class Run:
    """A trial's training on this rank.

    Args:
        args: what the user gave; the Trainer's own object has the trial's while it trains.
        given: what model_init gets.
        values: fields of TrainingArguments by name; others are model_init's.
        names: what it read of the trials before.
        report: records the metrics of an evaluation at a step; whether all ranks should prune.
        name: the trial's name, asked for when model_init has made its suggestions.
        output_dir: where trials have their folders.
        named: whether the user gave the name.

    Attributes:
        chosen: metrics of the best evaluation by the first objective, the earlier among equals.
        pruned: the study asked to stop, and every rank was told at the same evaluation.
    """

    def __init__(
        self,
        trainer: Trainer,
        args: TrainingArguments,
        given: Given,
        values: Mapping[str, Any],
        names: Names,
        objectives: tuple[Objective, ...],
        compute: Compute,
        report: Callable[[dict[str, Any], int], bool],
        name: Callable[[], str],
        *,
        output_dir: str,
        named: bool,
    ) -> None:
        self._trainer = trainer
        self._args = args
        self._given = given
        self._values = values
        self._names = names
        self._objective = objectives[0]
        self._compute = compute
        self._report = report
        self._name = name
        self._output_dir = output_dir
        self._named = named
        self.chosen: dict[str, Any] | None = None
        self.pruned = False

    def train(self) -> None:
        """Train and evaluate.

        Raises:
            optuna.TrialPruned: on every rank at the same evaluation; or wherever the user's code raised it.
            InvalidStudyError: a hyperparameter that nothing takes, or a value that does not fit.
        """
        trainer, base = self._trainer, self._args
        made = trial_arguments(base, self._values, self._output_dir)
        unknown = unknown_names(base, self._values)
        if number_of_arguments(trainer.model_init) == 0:
            self._names.check(base, unknown, None)
        args = trainer.args  # the same object: a callback, a closure or a subclass may hold it, too
        vars(args).clear()
        vars(args).update(vars(made))
        trainer.neftune_noise_alpha = args.neftune_noise_alpha
        if args.label_smoothing_factor != base.label_smoothing_factor:
            smoothing = args.label_smoothing_factor
            trainer.label_smoother = LabelSmoother(epsilon=smoothing) if smoothing else None
        make_model = trainer.call_model_init
        # A subclass may have its own of these. The Trainer's, which they call, do nothing where it does not search; it
        # would where a search of its own has broken off.
        trainer.hp_search_backend = None
        own_set_up, own_report = trainer._hp_search_setup, trainer._report_to_hp_search

        def make(trial: Any = None) -> torch.nn.Module:
            self._given.read.clear()
            self._given.read_all = False
            model: torch.nn.Module = make_model(trial)
            self._names.check(base, unknown, self._given)
            return model

        def set_up(trial: Any) -> None:
            """In place of what sets the trial's arguments, too late for its seed and its precision."""
            name = self._name()
            args.output_dir = run_folder(self._output_dir, name)
            if args.should_save:  # as where the Trainer was made: callbacks write there
                os.makedirs(args.output_dir, exist_ok=True)  # noqa: PTH103 (a field of type str)
            trainer.hp_name = (lambda _: name) if self._named else None
            trainer._trial = trial
            own_set_up(trial)
            trainer._train_batch_size = args.train_batch_size
            trainer.create_accelerator_and_postprocess()

        def evaluated(trial: Any, step: int, metrics: dict[str, float]) -> None:
            own_report(trial, step, metrics)
            if step > 0:  # eval_on_start shows a model that nobody has trained
                self._evaluated(metrics)

        trainer.call_model_init, trainer._hp_search_setup, trainer._report_to_hp_search = make, set_up, evaluated
        # With the trial, model_init gets it and the reporters know that this is a search. The seed that it begins with
        # is that of the new arguments: the trial's own.
        trainer.train(resume_from_checkpoint=None, trial=self._given)
        if self.chosen is None:
            self._evaluated(trainer.evaluate(), trains=False)

    def _evaluated(self, metrics: Mapping[str, Any], *, trains: bool = True) -> None:
        trainer = self._trainer
        found = {name: value for name, value in metrics.items() if _is_json(value)} | self._compute(metrics)
        if improves(found, self.chosen, self._objective):
            self.chosen = found
        # All ranks ask. After the last step nothing is left to save, and the best evaluation may be an earlier one.
        trains = trains and trainer.state.global_step < trainer.state.max_steps
        if self._report(found, evaluation_step(trainer.args, trainer.state)) and trains:
            self.pruned = True
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            raise optuna.TrialPruned


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
