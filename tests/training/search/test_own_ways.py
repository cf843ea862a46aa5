"""Ways of writing a search that Transformers takes: tuples to choose from, directions of Optuna's, methods of one's
own, values that are set and not returned."""

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy
import optuna
import pytest
from optuna.study import StudyDirection
from transformers import Trainer, TrainerCallback

from hpstudy import hyperparameter_search
from hpstudy.api.errors import InvalidStudyError
from hpstudy.search.errors import SearchFailedError
from tests.support.regression import LineConfig, LineModel, trainer
from tests.training.search.searches import learning_rate

pytestmark = pytest.mark.filterwarnings("default")
SIZES = [(0.5, 1.0), (0.25, [2.0]), {"a": (3.0,)}]


def test_containers_may_be_chosen_after_the_first_trials_too(tmp_path: Path) -> None:
    """TPE looks at the distributions of the trials before, which the storage has as JSON."""
    seen = []

    def model_init(trial: Any) -> LineModel:
        if trial is not None:
            seen.append(trial.suggest_categorical("sizes", SIZES))
        return LineModel(LineConfig())

    sampler = optuna.samplers.TPESampler(seed=1, n_startup_trials=1)
    given = trainer(tmp_path, model_init, max_steps=1)
    best = hyperparameter_search(given, learning_rate, n_trials=4, sampler=sampler)
    assert len(seen) == 4
    assert all(any(each is choice for choice in SIZES) for each in seen)
    assert best.hyperparameters["sizes"] in ([0.5, 1.0], [0.25, [2.0]], {"a": [3.0]})


def test_without_a_storage_each_search_is_one_of_its_own_also_with_a_name(tmp_path: Path) -> None:
    def weight_decay(trial: Any) -> dict[str, Any]:
        return {"weight_decay": trial.suggest_float("weight_decay", 0.0, 0.1)}

    given = trainer(tmp_path, max_steps=1)
    hyperparameter_search(given, learning_rate, n_trials=1, study_name="mine")
    best = hyperparameter_search(given, weight_decay, n_trials=1, study_name="mine", direction="maximize")
    assert set(best.hyperparameters) == {"weight_decay"}


@pytest.mark.parametrize("direction", [StudyDirection.MAXIMIZE, [StudyDirection.MAXIMIZE]])
def test_a_direction_may_be_optunas(tmp_path: Path, direction: Any) -> None:
    given = trainer(tmp_path, max_steps=1)
    seen: list[float] = []

    def compute_objective(metrics: dict[str, float]) -> float:
        seen.append(metrics["eval_loss"])
        return seen[-1]

    best = hyperparameter_search(given, learning_rate, compute_objective, numpy.int64(2), direction)
    assert len(seen) == 2
    assert best.objective == max(seen)
    with pytest.raises(InvalidStudyError, match="direction: must be"):
        hyperparameter_search(given, learning_rate, direction=StudyDirection.NOT_SET)


class Own(Trainer):
    """Sets up, reports and trains in its own way."""

    reported: "list[tuple[int, Any]]"

    def _hp_search_setup(self, trial: Any) -> None:
        super()._hp_search_setup(trial)
        self.args.gradient_accumulation_steps = 2

    def _report_to_hp_search(self, trial: Any, step: int, metrics: Any) -> None:
        self.reported.append((step, metrics["eval_loss"]))
        super()._report_to_hp_search(trial, step, metrics)

    def train(self, resume_from_checkpoint: Any, trial: Any = None) -> Any:  # type: ignore[override]
        return super().train(resume_from_checkpoint, trial)


def test_methods_of_ones_own_are_called(tmp_path: Path) -> None:
    steps = []

    class Counts(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            steps.append((state.global_step, kwargs["optimizer"] is not None))

    Own.reported = reported = []
    hyperparameter_search(trainer(tmp_path, kind=Own, callbacks=[Counts()]), learning_rate, n_trials=2)
    assert steps == [(16, True)] * 2  # four epochs of eight batches, two for a step
    assert [step for step, _ in reported] == [4, 8, 12, 16] * 2


def test_what_a_broken_search_of_transformers_left_is_not_gone_on_with(tmp_path: Path) -> None:
    given = trainer(tmp_path, kind=Own, max_steps=1)
    Own.reported = []
    given.hp_search_backend = "optuna"
    hyperparameter_search(given, learning_rate, n_trials=1)
    assert given.hp_search_backend == "optuna"


def test_hp_space_may_set_the_arguments_by_itself(tmp_path: Path) -> None:
    seen = []

    class Sees(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append((args.weight_decay, args.adam_beta1, args.learning_rate))

    given = trainer(tmp_path, callbacks=[Sees()], max_steps=1)

    def hp_space(trial: Any) -> dict[str, Any]:
        given.args.weight_decay = trial.suggest_float("decay", 0.1, 0.2)
        given.args.learning_rate = 1.0
        if trial.number == 0:
            given.args.adam_beta1 = 0.5
        return {"learning_rate": 0.01}

    best = hyperparameter_search(given, hp_space, n_trials=2)
    assert [each[1:] for each in seen] == [(0.5, 0.01), (0.9, 0.01)]
    assert best.hyperparameters["decay"] in [each[0] for each in seen]
    assert (given.args.weight_decay, given.args.adam_beta1) == (0.0, 0.9)


def test_a_model_init_whose_arguments_are_all_bound_reads_no_name(tmp_path: Path) -> None:
    def model_init(trial: Any, a: float) -> LineModel:
        return LineModel(LineConfig(a=a))

    given = trainer(tmp_path, functools.partial(model_init, trial=None, a=1.0), max_steps=1)
    with pytest.raises(InvalidStudyError, match="dropout"):
        hyperparameter_search(given, lambda trial: {"dropout": trial.suggest_float("dropout", 0, 1)}, n_trials=1)


def test_who_empties_the_output_folder_is_told_what_was_in_it(tmp_path: Path) -> None:
    class Empties(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            shutil.rmtree(tmp_path / "out")

    given = trainer(tmp_path / "out", callbacks=[Empties()], max_steps=1)
    with pytest.raises(SearchFailedError, match=r"out/hpstudy\.db is gone, .* give storage"):
        hyperparameter_search(given, learning_rate, n_trials=2)
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    hyperparameter_search(given, learning_rate, n_trials=2, storage=elsewhere)
