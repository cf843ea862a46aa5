"""A Trainer as its user has written it: what else refers to its arguments, its callbacks and its data."""

import dataclasses
import json
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import optuna
import pytest
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import integration_utils

from hpstudy import hyperparameter_search
from hpstudy.api.errors import InvalidStudyError
from tests.support.regression import Line, LineConfig, LineModel, trainer
from tests.training.search.searches import learning_rate, stored

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.filterwarnings("default")


def test_a_trials_folder_is_there_for_callbacks(tmp_path: Path) -> None:
    class Writes(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
            Path(args.output_dir, "metrics.json").write_text(json.dumps(metrics))

    hyperparameter_search(trainer(tmp_path, callbacks=[Writes()]), learning_rate, n_trials=2)
    assert {path.parent.name for path in tmp_path.glob("*/metrics.json")} == {"run-0", "run-1"}


class Weight:
    """What a callback and the Trainer share."""

    def __init__(self) -> None:
        self.value = 1.0
        self.lock: Any = None


class Halves(TrainerCallback):
    def __init__(self, weight: Weight, steps: dict[str, int]) -> None:
        self.weight, self.steps = weight, steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.weight.value /= 2
        self.steps["made"] = self.steps.get("made", 0) + 1


class Stops(TrainerCallback):
    def __init__(self, steps: dict[str, int]) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = self.steps["made"] == 3


def test_what_callbacks_share_stays_shared_and_begins_anew(tmp_path: Path) -> None:
    """With one another, with the loss, and with who made them."""
    weight, steps, seen = Weight(), {}, []

    class Weighted(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            if self.model.training:
                seen.append(weight.value)
            return super().compute_loss(*args, **kwargs)

    callbacks = [Halves(weight, steps), Stops(steps)]
    given = trainer(tmp_path, kind=Weighted, callbacks=callbacks, eval_strategy="no")
    hyperparameter_search(given, learning_rate, n_trials=2)
    assert seen == [0.5, 0.25, 0.125] * 2
    assert (weight.value, steps) == (1.0, {})
    assert callbacks[0].weight is weight
    assert callbacks[0].steps is callbacks[1].steps is steps


def test_what_holds_a_lock_is_left_alone(tmp_path: Path) -> None:
    weight = Weight()
    weight.lock = threading.Lock()
    hyperparameter_search(
        trainer(tmp_path, callbacks=[Halves(weight, {})], num_train_epochs=1), learning_rate, n_trials=1
    )
    assert weight.value == 0.5**8


def test_data_and_models_stay_the_users_own(tmp_path: Path) -> None:
    class Holds(TrainerCallback):
        def __init__(self, model: Any, data: Any) -> None:
            self.model, self.data = model, data

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            kept.append((self.model, self.data, given.train_dataset))

    line, teacher, kept = Line(), LineModel(LineConfig()), []
    data = [line[place] for place in range(len(line))]
    given = trainer(tmp_path, callbacks=[Holds(teacher, data)], num_train_epochs=1)
    given.train_dataset = data
    hyperparameter_search(given, learning_rate, n_trials=2)
    assert all(each is mine for seen in kept for each, mine in zip(seen, (teacher, data, data), strict=True))
    assert len(kept) == 2
    assert given.train_dataset is data


def test_whoever_holds_the_arguments_sees_the_trials(tmp_path: Path) -> None:
    class Holds(Trainer):
        def __init__(self, args: Any = None, **kwargs: Any) -> None:
            super().__init__(args=args, **kwargs)
            self.mine = args

        def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            seen.append((self.mine.learning_rate, self.args.learning_rate))
            return super().create_optimizer(*args, **kwargs)

    seen: list[tuple[float, float]] = []
    given = trainer(tmp_path, kind=Holds, num_train_epochs=1)
    args, before = given.args, dict(vars(given.args))
    hyperparameter_search(given, lambda trial: {"learning_rate": 0.5}, n_trials=1)
    assert seen == [(0.5, 0.5)]
    assert given.args is given.mine is args
    assert {name: value for name, value in vars(args).items() if value is not before[name]}.keys() <= {
        "_setup_devices",
        "distributed_state",
    }


class Distils(TrainingArguments):
    """With an __init__ of its own."""

    def __init__(self, *args: Any, alpha: float, temperature: float = 2.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alpha, self.temperature, self._half = alpha, temperature, alpha / 2


@dataclasses.dataclass
class Computes(TrainingArguments):
    """Makes something of its fields when it is made."""

    names: "Sequence[str] | None" = None  # of a type that is known to type checkers alone

    def __post_init__(self) -> None:
        super().__post_init__()
        self.learning_rate *= 10


def test_arguments_of_ones_own_keep_what_they_were_given(tmp_path: Path) -> None:
    class Notes(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append((args.alpha, args.temperature, args._half, args.weight_decay))

    seen: list[tuple[float, ...]] = []
    callbacks = [Notes()]
    given = trainer(tmp_path, callbacks=callbacks, arguments=Distils, alpha=1.0, temperature=7.0, num_train_epochs=1)
    hyperparameter_search(given, lambda trial: {"weight_decay": 0.5}, n_trials=1)
    hyperparameter_search(given, lambda trial: {"alpha": 3.0}, n_trials=1)
    assert seen == [(1.0, 7.0, 0.5, 0.5), (3.0, 7.0, 0.5, 0.0)]


def test_what_arguments_of_ones_own_compute_is_computed_once(tmp_path: Path) -> None:
    class Notes(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append((args.learning_rate, args.names))

    seen: list[tuple[float, Any]] = []
    given = trainer(tmp_path, callbacks=[Notes()], arguments=Computes, learning_rate=0.01, num_train_epochs=1)
    hyperparameter_search(given, lambda trial: {"weight_decay": 0.5, "names": ["a"]}, n_trials=2)
    assert seen == [(0.1, ["a"])] * 2


@pytest.mark.parametrize("n_trials", [2, 10])
@pytest.mark.parametrize(
    "sampler",
    [lambda: optuna.samplers.GridSampler({"weight_decay": [0.0, 0.5]}), lambda: optuna.samplers.BruteForceSampler()],
    ids=["grid", "brute force"],
)
def test_a_sampler_that_has_tried_everything_ends_the_search(tmp_path: Path, sampler: Any, n_trials: int) -> None:
    given = trainer(tmp_path, num_train_epochs=1)
    url = f"sqlite:///{tmp_path / 'search.db'}"

    def hp_space(trial: Any) -> dict[str, Any]:
        return {"weight_decay": trial.suggest_categorical("weight_decay", [0.0, 0.5])}

    hyperparameter_search(given, hp_space, n_trials=n_trials, sampler=sampler(), storage=url, study_name="search")
    assert sorted(trial.params["weight_decay"] for trial in stored(url)) == [0.0, 0.5]


def test_so_does_a_user_who_has_seen_enough(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"

    def hp_space(trial: Any) -> dict[str, Any]:
        if trial.number == 1:
            trial.study.stop()
        return learning_rate(trial)

    given = trainer(tmp_path, num_train_epochs=1)
    hyperparameter_search(given, hp_space, n_trials=5, storage=url, study_name="search")
    assert [trial.state.name for trial in stored(url)] == ["COMPLETE", "COMPLETE"]


def test_sigopt_needs_neither_ray_nor_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("is_ray_tune_available", "is_wandb_available"):
        monkeypatch.setattr(integration_utils, name, lambda: False)
    space = [{"name": "learning_rate", "type": "double", "bounds": {"min": 0.01, "max": 0.1}}]
    given = trainer(tmp_path, num_train_epochs=1)
    assert hyperparameter_search(given, lambda _: space, n_trials=1, backend="sigopt").run_id == "0"


def test_memory_may_be_measured(tmp_path: Path) -> None:
    given = trainer(tmp_path, num_train_epochs=1, skip_memory_metrics=False)
    threads = threading.active_count()
    hyperparameter_search(given, learning_rate, n_trials=2)
    assert "eval_mem_cpu_alloc_delta" in given.evaluate()
    assert threading.active_count() == threads


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_trials_that_diverge_are_no_failures(tmp_path: Path, value: float) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    given = trainer(tmp_path, num_train_epochs=1)
    values = iter([value] * 5 + [1.0])
    best = hyperparameter_search(
        given,
        learning_rate,
        compute_objective=lambda metrics: next(values),
        n_trials=6,
        storage=url,
        study_name="search",
        pruner=optuna.pruners.NopPruner(),
    )
    assert (best.run_id, best.objective) == ("5", 1.0)
    assert [trial.state.name for trial in stored(url)] == ["PRUNED"] * 5 + ["COMPLETE"]


def test_choices_may_be_numbers_of_numpy_and_no_functions(tmp_path: Path) -> None:
    def hp_space(trial: Any) -> dict[str, Any]:
        sizes = list(numpy.array([8, 16]))
        return {"per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", sizes)}

    given = trainer(tmp_path, num_train_epochs=1)
    best = hyperparameter_search(given, hp_space, n_trials=1)
    assert best.hyperparameters["per_device_train_batch_size"] in (8, 16)
    with pytest.raises(InvalidStudyError, match="hp_space: the choices of loss cannot be stored"):
        hyperparameter_search(given, lambda trial: {"loss": trial.suggest_categorical("loss", [abs, round])})


def test_a_trainer_that_has_let_its_model_go_can_search(tmp_path: Path) -> None:
    """As Transformers' own search with Ray leaves it."""
    given = trainer(tmp_path, num_train_epochs=1)
    given.model = given.model_wrapped = None
    assert hyperparameter_search(given, learning_rate, n_trials=1).run_id == "0"
