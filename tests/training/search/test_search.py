"""What Trainer.hyperparameter_search does wrong, and hpstudy's does not; in one process."""

import copy
import gc
import random
from pathlib import Path
from typing import Any

import numpy
import optuna
import pytest
import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)
from transformers.utils import enable_tf32

from hpstudy import hyperparameter_search
from hpstudy.api.errors import InvalidStudyError
from hpstudy.storage import attributes
from hpstudy.training.characters import character_tokenizer
from tests.support.regression import LineConfig, LineModel, trainer
from tests.training.search.searches import learning_rate, stored

pytestmark = pytest.mark.filterwarnings("default")


class Recorder(TrainerCallback):
    """Notes what each trial had, outside of itself: its own attributes are put back."""

    def __init__(self, notes: dict[str, dict[str, Any]]) -> None:
        self.note = lambda name, values: notes.update({name: values})
        self.evaluations: list[float] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        self.evaluations.append(metrics["eval_loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        self.note(
            Path(args.output_dir).name,
            {
                "args": copy.copy(args),
                "evaluations": list(self.evaluations),
                "steps": state.global_step,
                "a": model.a.item(),
            },
        )


def test_a_trial_is_made_of_its_parameters_and_seed_alone(tmp_path: Path) -> None:
    notes: dict[str, dict[str, Any]] = {}
    asked: list[int] = []

    def hp_space(trial: Any) -> dict[str, Any]:
        asked.append(trial.number)
        # The values of a trial do not stay for the next, which has others.
        if trial.number % 2:
            return {"seed": trial.suggest_int("seed", 1, 40), "weight_decay": 0.5}
        return {
            "seed": trial.suggest_int("seed", 1, 40),
            "bf16": trial.suggest_categorical("bf16", ["False"]),
            "per_device_train_batch_size": trial.suggest_categorical("batch", ["16"]),
            "lr_scheduler_type": "cosine",
        }

    class Own(Trainer):
        """As users write it: a scheduler of their own, and something that they keep."""

        seen: list[int]

        def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
            super().create_optimizer_and_scheduler(num_training_steps)

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            self.seen.append(1)
            return super().compute_loss(*args, **kwargs)

    stopping = EarlyStoppingCallback(early_stopping_patience=9)
    given = trainer(
        tmp_path / "output",
        lambda: LineModel(LineConfig(a=None)),
        kind=Own,
        callbacks=[Recorder(notes), stopping],
        metric_for_best_model="eval_loss",
        load_best_model_at_end=True,
        save_strategy="epoch",
        save_total_limit=1,
        num_train_epochs=2,
        learning_rate=1e-3,
    )
    given.seen = []
    args, model = given.args, given.model
    random_before = torch.get_rng_state()
    sampler = optuna.samplers.RandomSampler(seed=1)
    url = f"sqlite:///{tmp_path / 'search.db'}"
    best = hyperparameter_search(
        given, hp_space, n_trials=4, storage=url, study_name="search", sampler=sampler, direction="minimize"
    )

    assert asked == [0, 1, 2, 3]
    assert [notes[f"run-{number}"]["args"].weight_decay for number in range(4)] == [0, 0.5, 0, 0.5]
    assert [notes[f"run-{number}"]["args"].bf16 for number in range(4)] == [False] * 4
    assert [notes[f"run-{number}"]["args"].train_batch_size for number in range(4)] == [16, 8, 16, 8]
    assert [notes[f"run-{number}"]["steps"] for number in range(4)] == [8, 16, 8, 16]
    assert [len(notes[f"run-{number}"]["evaluations"]) for number in range(4)] == [2] * 4
    trials = stored(url)
    assert [notes[f"run-{number}"]["args"].seed for number in range(4)] == [trial.params["seed"] for trial in trials]
    assert (tmp_path / "output" / "run-3").is_dir()

    # The user's Trainer is as it was.
    assert given.args is args
    assert args.learning_rate == 1e-3
    assert args.output_dir == str(tmp_path / "output")
    assert given.model is model
    assert given.seen == []
    assert stopping.early_stopping_patience_counter == 0
    assert torch.equal(torch.get_rng_state(), random_before)
    assert given.evaluate()["eval_loss"] > 0

    # The best trial alone, by the arguments that it had, gives what it gave in the search.
    given.args = notes[f"run-{best.run_id}"]["args"]
    given.train()
    assert given.model.a.item() == notes[f"run-{best.run_id}"]["a"]
    assert min(each["eval_loss"] for each in given.state.log_history if "eval_loss" in each) == best.objective


def test_the_best_evaluation_counts_and_a_second_run_continues(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    evaluations = iter([3.0, 1.0, 2.0, 4.0] * 10)

    def objective(metrics: dict[str, float]) -> float:
        return next(evaluations)

    given = trainer(tmp_path / "output", eval_on_start=True)
    options: dict[str, Any] = {"storage": url, "study_name": "search", "sampler": optuna.samplers.TPESampler(seed=1)}
    best = hyperparameter_search(given, learning_rate, objective, n_trials=2, **options)
    assert best.objective == 1.0
    assert best.run_summary is None
    assert [list(trial.intermediate_values.values()) for trial in stored(url)] == [[3.0, 1.0, 2.0, 4.0]] * 2
    hyperparameter_search(given, learning_rate, objective, n_trials=3, **options)
    trials = stored(url)
    assert len(trials) == 3
    assert len({trial.params["learning_rate"] for trial in trials}) == 3
    with pytest.raises(InvalidStudyError, match="load_if_exists"):
        hyperparameter_search(given, learning_rate, objective, n_trials=3, load_if_exists=False, **options)


class _Tracked(LineModel):
    alive = 0

    def __init__(self, config: LineConfig) -> None:
        super().__init__(config)
        self.itself = [self]
        type(self).alive += 1

    def __del__(self) -> None:
        type(self).alive -= 1


def test_failed_and_pruned_trials_leave_nothing_and_do_not_end_the_search(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    alive: list[int] = []

    def model_init(trial: Any) -> LineModel:
        alive.append(_Tracked.alive)
        model = _Tracked(LineConfig())
        if trial is not None:
            trial.suggest_float("b", 0, 1)
            if trial.number == 1:
                raise ValueError("no such model")
        return model

    class Fails(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 10 and args.output_dir.endswith("run-2"):
                raise KeyError("no such step")

    class OutOfMemory(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if args.output_dir.endswith("run-3"):
                raise torch.OutOfMemoryError("CUDA out of memory")

    given = trainer(tmp_path / "output", model_init, callbacks=[Fails(), OutOfMemory()], dataloader_num_workers=1)
    gc.collect()
    best = hyperparameter_search(
        given, learning_rate, n_trials=3, storage=url, study_name="search", pruner=_PrunesTheFirst()
    )
    assert best.run_id in ("4", "5")
    trials = stored(url)
    assert [trial.state.name for trial in trials] == ["PRUNED", "FAIL", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.user_attrs.get(attributes.FAILURE) for trial in trials[1:4]] == ["error", "error", "oom"]
    assert trials[1].user_attrs[attributes.MESSAGE] == "ValueError: no such model"
    assert trials[1].params.keys() == {"learning_rate", "b"}
    assert set(alive[1:]) == {1}  # the user's own, from before


def test_after_the_last_step_there_is_nothing_to_prune(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    pruner = optuna.pruners.ThresholdPruner(upper=-1.0, n_warmup_steps=4)
    given = trainer(tmp_path / "output", num_train_epochs=4)
    best = hyperparameter_search(given, learning_rate, n_trials=1, storage=url, study_name="search", pruner=pruner)
    (trial,) = stored(url)
    assert trial.state.name == "COMPLETE"
    assert list(trial.intermediate_values) == [1, 2, 3, 4]
    assert best.objective == min(trial.intermediate_values.values())


def test_an_output_folder_that_is_elsewhere_by_now_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    given = trainer(Path("relative"), num_train_epochs=1)
    monkeypatch.chdir(tmp_path / "b")
    assert hyperparameter_search(given, learning_rate, n_trials=1).run_id == "0"
    assert (tmp_path / "b" / "relative").is_dir()


class _PrunesTheFirst(optuna.pruners.BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number == 0


def test_tf32_of_a_trial_is_not_the_next_one_s(tmp_path: Path) -> None:
    """Where the GPU has TF32, TrainingArguments(tf32=...) call what this test does."""
    found: list[str] = []

    def model_init(trial: Any) -> LineModel:
        if trial is not None:
            found.append(torch.backends.fp32_precision)
            enable_tf32(trial.number == 2)
            found.append(torch.backends.fp32_precision)
        return LineModel(LineConfig())

    enable_tf32(True)
    try:
        hyperparameter_search(
            trainer(tmp_path, model_init, num_train_epochs=1), hp_space=learning_rate, n_trials=4, direction="minimize"
        )
        assert found == ["tf32", "ieee", "tf32", "ieee", "tf32", "tf32", "tf32", "ieee"]
        assert torch.backends.fp32_precision == "tf32"
    finally:
        torch.backends.fp32_precision = "none"
        enable_tf32.cache_clear()


def test_hp_space_may_return_numbers_of_numpy(tmp_path: Path) -> None:
    notes: dict[str, dict[str, Any]] = {}

    def hp_space(trial: Any) -> dict[str, Any]:
        return {
            "per_device_train_batch_size": numpy.int64(16),
            "learning_rate": numpy.float32(0.5),
            "bf16": numpy.bool_(False),
            "lr_scheduler_type": "cosine_with_restarts",
            "lr_scheduler_kwargs": {"num_cycles": numpy.int32(2)},
        }

    hyperparameter_search(trainer(tmp_path, callbacks=[Recorder(notes)]), hp_space, n_trials=1)
    args = notes["run-0"]["args"]
    assert (args.train_batch_size, args.learning_rate, args.bf16) == (16, 0.5, False)
    assert args.lr_scheduler_kwargs == {"num_cycles": 2}


def test_the_last_part_of_an_epoch_is_reported_as_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    given = trainer(tmp_path, num_train_epochs=2.5)
    hyperparameter_search(given, learning_rate, n_trials=1, storage=url, study_name="search")
    assert list(stored(url)[0].intermediate_values) == [1, 2, 3]


class _Noise:
    """A collator with generators of its own; the one is made when it is first needed."""

    def __init__(self) -> None:
        self.torchs, self.numpys = torch.Generator().manual_seed(1), numpy.random.default_rng(1)
        self.pythons, self.old, self.made = random.Random(1), numpy.random.RandomState(1), None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        self.made = self.made or random.Random(2)
        scales = [torch.rand((), generator=self.torchs).item(), self.numpys.random(), self.old.random()]
        scales += [self.pythons.random(), self.made.random()]
        batch = default_data_collator(rows)
        return batch | {"input_x": batch["input_x"] * sum(scales)}


@pytest.mark.parametrize("collator", ["noise", "masking"])
def test_the_generators_of_a_collator_do_not_go_on_from_trial_to_trial(tmp_path: Path, collator: str) -> None:
    losses: list[float] = []
    if collator == "noise":
        given = trainer(tmp_path, num_train_epochs=1)
        given.data_collator = _Noise()
    else:
        given = masked_lines(tmp_path)
    before = dict(vars(given.data_collator))

    def objective(metrics: dict[str, float]) -> float:
        losses.append(metrics["eval_loss"])
        return losses[-1]

    hyperparameter_search(given, lambda trial: {"learning_rate": 1e-2}, objective, n_trials=3)
    assert len(losses) == 3
    assert len(set(losses)) == 1
    assert vars(given.data_collator) == before


def masked_lines(folder: Path) -> Trainer:
    """Masked language modelling whose collator has a seed of its own."""
    text = "abcdefgh" * 2
    tokenizer = character_tokenizer([text] * 4, 40, segments=True)
    data = Dataset.from_dict({"input_ids": [tokenizer(text)["input_ids"]] * 32})
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return Trainer(
        model_init=lambda: BertForMaskedLM(BertConfig(vocab_size=40, max_position_embeddings=32, **sizes)),
        args=TrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            report_to="none",
            eval_strategy="epoch",
            save_strategy="no",
            num_train_epochs=1,
            disable_tqdm=True,
        ),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorForLanguageModeling(tokenizer, seed=7),
    )


@pytest.mark.parametrize(
    ("backend", "arguments", "message"),
    [
        ("optuna", {"n_jobs": 2}, "n_jobs: leave it out: trials in threads"),
        ("optuna", {"n_job": 2}, "n_job: .* did you mean n_jobs"),
        ("optuna", {"n_trials": 0}, "n_trials: must be a whole number of at least 1"),
        ("optuna", {"n_trials": None}, "n_trials: needed where there is no timeout"),
        ("optuna", {"compute_objective": "eval_loss"}, "compute_objective: must be a function, got 'eval_loss'"),
        ("optuna", {"hp_space": {"learning_rate": 1e-3}}, "hp_space: must be a function, got {'learning_rate': 0.001}"),
        ("optuna", {"direction": "up"}, "direction: must be minimize or maximize"),
        ("optuna", {"direction": ["minimize", "maximize"]}, "compute_objective: needed for 2 directions"),
        ("optuna", {"storage": optuna.storages.InMemoryStorage()}, "storage: must be the URL of a database"),
        ("optuna", {"sampler": 7}, "sampler: must be a BaseSampler, a name"),
        ("optuna", {"sampler": "TPESample"}, "did you mean TPESampler"),
        ("optuna", {"timeout": -1}, "timeout: must be a number of seconds above 0"),
        ("optuna", {"catch": "ValueError"}, "catch: must be classes"),
        ("optuna", {"max_failed_trials": -1}, "max_failed_trials: must be a whole number"),
        ("ray", {"resources_per_trial": {"cpu": 1}}, "resources_per_trial: leave it out, a trial runs in this process"),
        ("ray", {"scheduler": object()}, "scheduler: give it by name, scheduler='object'"),
        ("ray", {"sampler": optuna.samplers.RandomSampler()}, "search_alg: it is one of Optuna's"),
        ("wandb", {"anonymous": "must"}, "anonymous: leave it out, without WANDB_API_KEY"),
        ("wandb", {"sweep_id": "none"}, "sweep_id: the storage has no search 'none'"),
        ("smac", {}, "backend: there is no 'smac'"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    tmp_path: Path, backend: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidStudyError, match=message):
        hyperparameter_search(trainer(tmp_path), backend=backend, **arguments)


def test_hp_space_can_prune(tmp_path: Path) -> None:
    """A point that makes no sense, as in an objective of Optuna's."""

    def hp_space(trial: Any) -> dict[str, Any]:
        hyperparameters = learning_rate(trial)
        if trial.number == 0:
            raise optuna.TrialPruned
        return hyperparameters

    url = f"sqlite:///{tmp_path / 'search.db'}"
    best = hyperparameter_search(
        trainer(tmp_path), hp_space, n_trials=2, storage=url, study_name="search", max_failed_trials=0
    )
    assert best.run_id == "1"
    states = [trial.state for trial in stored(url)]
    assert states == [optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.COMPLETE]


def test_it_stops_after_the_timeout(tmp_path: Path) -> None:
    best = hyperparameter_search(trainer(tmp_path), learning_rate, n_trials=None, timeout=2.0)
    assert best.objective < 10
