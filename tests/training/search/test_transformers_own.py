"""Transformers' own hyperparameter tests, in their shape: model_init with the trial, hp_space, hp_name, backends.

Their file, tests/trainer/test_trainer_hyperparameter.py, is in no package that can be installed.
"""

import logging
import os
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
from transformers import TrainerCallback
from transformers.utils.hp_naming import TrialShortNamer

from hpstudy import hyperparameter_search
from hpstudy.samplers.wandb_client import DEFAULT_PROJECT
from tests.support.regression import LineConfig, LineModel, accuracy, trainer
from tests.unit.samplers.wandb_loopback import ENTITY, wandb_server

pytestmark = pytest.mark.filterwarnings("default")


class ShortNamer(TrialShortNamer):
    DEFAULTS: ClassVar = {"a": 0, "b": 0}


def model_init(trial: Any) -> LineModel:
    if trial is None:
        return LineModel(LineConfig())
    return LineModel(LineConfig(a=trial.suggest_int("a", -4, 4), b=trial.suggest_int("b", -4, 4)))


def model_of_dictionary(config: Any) -> LineModel:
    return LineModel(LineConfig()) if config is None else LineModel(LineConfig(a=config["a"], b=config["b"]))


def test_optuna(tmp_path: Path) -> None:
    given = trainer(
        tmp_path,
        model_init,
        save_strategy="epoch",
        logging_steps=1,
        load_best_model_at_end=True,
        run_name="test",
    )
    best = hyperparameter_search(
        given,
        direction="minimize",
        hp_space=lambda trial: {},
        hp_name=lambda trial: ShortNamer.shortname(trial.params),
        n_trials=4,
    )
    assert set(best.hyperparameters) == {"a", "b"}
    named = ShortNamer.shortname(best.hyperparameters)
    assert list((tmp_path / named).glob("checkpoint-*"))


def test_optuna_with_several_objectives(tmp_path: Path) -> None:
    given = trainer(tmp_path, model_init, compute_metrics=accuracy, save_strategy="epoch", load_best_model_at_end=True)
    front = hyperparameter_search(
        given,
        direction=["minimize", "maximize"],
        hp_space=lambda trial: {},
        hp_name=lambda trial: ShortNamer.shortname(trial.params),
        n_trials=4,
        compute_objective=lambda metrics: (metrics["eval_loss"], metrics["eval_accuracy"]),
    )
    assert front
    assert all(len(best.objective) == 2 for best in front)


def test_optuna_with_full_evaluation_in_half_precision(tmp_path: Path) -> None:
    given = trainer(tmp_path, model_init, fp16_full_eval=True, eval_strategy="no")
    best = hyperparameter_search(given, direction="minimize", hp_space=lambda trial: {}, n_trials=2)
    assert best.run_id in ("0", "1")


def test_ray(tmp_path: Path) -> None:
    from ray import tune

    given = trainer(tmp_path, model_of_dictionary, save_strategy="epoch", load_best_model_at_end=True)
    best = hyperparameter_search(
        given,
        direction="minimize",
        hp_space=lambda trial: {"a": tune.randint(-4, 4), "b": tune.randint(-4, 4)},
        hp_name=lambda params: ShortNamer.shortname(params),
        backend="ray",
        n_trials=4,
    )
    assert set(best.hyperparameters) == {"a", "b"}
    assert list((tmp_path / ShortNamer.shortname(best.hyperparameters)).glob("checkpoint-*"))


def test_wandb_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_ENTITY", "WANDB_PROJECT"):  # a server would ask for them
        monkeypatch.delenv(name, raising=False)

    def hp_space(trial: Any) -> dict[str, Any]:
        return {
            "method": "random",
            "metric": {},
            "parameters": {
                "a": {"distribution": "uniform", "min": 1e-6, "max": 1e-4},
                "b": {"distribution": "int_uniform", "min": 1, "max": 6},
            },
        }

    given = trainer(tmp_path, model_of_dictionary, save_strategy="epoch", load_best_model_at_end=True)
    sweep: dict[str, Any] = {"direction": "minimize", "hp_space": hp_space, "backend": "wandb", "n_trials": 4}
    best = hyperparameter_search(given, **sweep)
    assert best.run_id is not None
    assert best.run_summary is not None
    assert set(best.hyperparameters) == {"a", "b", "assignments", "metric"}
    again = hyperparameter_search(given, sweep_id=best.run_summary, **sweep)
    assert again.run_id is not None
    assert again.run_summary == best.run_summary
    assert set(again.hyperparameters) == {"a", "b", "assignments", "metric"}
    assert again.objective <= best.objective


class SeesPlace(TrainerCallback):
    """Notes what the Trainer's WandbCallback would read at the beginning of each trial."""

    seen: ClassVar[list[tuple[str | None, str | None]]] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.seen.append((os.environ.get("WANDB_ENTITY"), os.environ.get("WANDB_PROJECT")))


@pytest.mark.parametrize("project", [None, "reviews"])
def test_wandb_with_a_server_leaves_the_sweep_s_place_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: str | None
) -> None:
    def hp_space(trial: Any) -> dict[str, Any]:
        return {"method": "random", "metric": {}, "parameters": {"a": {"min": 0.0, "max": 1.0}, "b": {"value": 1}}}

    monkeypatch.setattr(SeesPlace, "seen", [])
    with wandb_server() as server:
        server.name_in(monkeypatch, tmp_path)
        given = trainer(tmp_path, model_of_dictionary, callbacks=[SeesPlace()])
        sweep: dict[str, Any] = {"direction": "minimize", "hp_space": hp_space, "backend": "wandb", "n_trials": 3}
        best = hyperparameter_search(given, **sweep, **({"project": project} if project else {}))
        places = [(ENTITY, project or DEFAULT_PROJECT)] * 3
        assert SeesPlace.seen == places
        assert [made.project for made in server.sweeps.values()] == [places[0][1]]
        # As in a new process, which has neither.
        del os.environ["WANDB_ENTITY"]
        del os.environ["WANDB_PROJECT"]
        again = hyperparameter_search(given, sweep_id=best.run_summary, **sweep)
        assert again.run_summary == best.run_summary
        assert SeesPlace.seen == places * 2
        assert (os.environ["WANDB_ENTITY"], os.environ["WANDB_PROJECT"]) == places[0]
        assert len(server.sweeps) == 1


def test_wandb_without_a_server_leaves_the_place_that_the_search_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_ENTITY", "WANDB_PROJECT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(SeesPlace, "seen", [])
    given = trainer(tmp_path, model_of_dictionary, callbacks=[SeesPlace()])
    space = {"method": "random", "metric": {}, "parameters": {"a": {"min": 0.0, "max": 1.0}, "b": {"value": 1}}}
    hyperparameter_search(given, hp_space=lambda _: space, backend="wandb", n_trials=2, project="reviews")
    assert SeesPlace.seen == [(None, "reviews")] * 2
    assert os.environ["WANDB_PROJECT"] == "reviews"
    assert "WANDB_ENTITY" not in os.environ


def test_sigopt(tmp_path: Path) -> None:
    def hp_space(trial: Any) -> list[dict[str, Any]]:
        return [
            {"bounds": {"min": -4, "max": 4}, "name": "a", "type": "int"},
            {"bounds": {"min": -4, "max": 4}, "name": "b", "type": "int"},
        ]

    def model_init(trial: Any) -> LineModel:
        if trial is None:
            return LineModel(LineConfig())
        return LineModel(LineConfig(a=trial.assignments["a"], b=trial.assignments["b"]))

    given = trainer(tmp_path, model_init, save_strategy="epoch", load_best_model_at_end=True)
    best = hyperparameter_search(
        given,
        direction="minimize",
        hp_space=hp_space,
        hp_name=lambda trial: ShortNamer.shortname(trial.assignments),
        backend="sigopt",
        n_trials=4,
    )
    assert set(best.hyperparameters) == {"a", "b"}
    assert list((tmp_path / ShortNamer.shortname(best.hyperparameters)).glob("checkpoint-*"))


class Said(logging.Handler):
    """What a logger says, whether or not it tells its parents."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_trials_are_logged_in_optunas_words(tmp_path: Path) -> None:
    def hp_space(trial: Any) -> dict[str, Any]:
        return {"learning_rate": trial.suggest_float("learning_rate", 0.1, 0.1)}

    def model_init(trial: Any) -> LineModel:
        if trial is not None and trial.number == 1:
            raise ValueError("no such model")
        if trial is not None and trial.number == 2:
            raise optuna.TrialPruned
        return LineModel(LineConfig())

    shown, logger, verbosity = Said(), logging.getLogger("optuna"), optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.INFO)
    logger.addHandler(shown)
    try:
        best = hyperparameter_search(trainer(tmp_path, model_init), hp_space, n_trials=3, direction="maximize")
        assert optuna.logging.get_verbosity() == logging.INFO
    finally:
        logger.removeHandler(shown)
        optuna.logging.set_verbosity(verbosity)
    said = [line for line in shown.lines if line.startswith("Trial ")]
    assert len(said) == 4
    assert said[0].startswith("Trial 0 finished with value: ")
    assert said[0].endswith(f" Best is trial 0 with value: {said[0].split()[5]}.")
    assert said[1] == "Trial 1 failed with parameters: {'learning_rate': 0.1} because of: ValueError: no such model"
    assert said[2] == "Trial 2 pruned."
    assert said[-1].endswith(f"Best is trial {best.run_id} with value: {best.objective}.")
