"""Hyperparameters that nothing takes, and those that only some trials need."""

from pathlib import Path
from typing import Any

import pytest

from hpstudy import hyperparameter_search
from hpstudy.api.errors import InvalidStudyError
from tests.support.regression import LineConfig, LineModel, trainer
from tests.training.search.searches import stored

pytestmark = pytest.mark.filterwarnings("default")


def test_what_nothing_takes_is_refused_with_what_to_change(tmp_path: Path) -> None:
    def takes_b(trial: Any) -> LineModel:
        return LineModel(LineConfig(b=trial["b"] if trial else 0))

    without = trainer(tmp_path)
    with pytest.raises(InvalidStudyError, match=r"hyperparameters\.learning_rat: .* did you mean learning_rate"):
        hyperparameter_search(without, lambda trial: {"learning_rat": 0.1}, n_trials=1)
    space = [{"name": name, "type": "double", "bounds": {"min": 0.01, "max": 0.1}} for name in ("b", "learning_rat")]
    with pytest.raises(InvalidStudyError, match=r"hyperparameters\.learning_rat: .* did you mean learning_rate"):
        hyperparameter_search(trainer(tmp_path, takes_b), lambda trial: space, n_trials=1, backend="sigopt")
    with pytest.raises(InvalidStudyError, match=r"hyperparameters\.warmup_steps: .* got 'many'"):
        hyperparameter_search(without, lambda trial: {"warmup_steps": "many"}, n_trials=1)
    given = trainer(tmp_path)
    given.model_init = None
    with pytest.raises(RuntimeError, match="you need to pass your model through a model_init function"):
        hyperparameter_search(given)


@pytest.mark.parametrize("backend", ["optuna", "ray"])
def test_model_init_may_leave_unread_what_other_trials_need(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, backend: str
) -> None:
    from ray import tune

    architectures: list[str] = []

    def hp_space(trial: Any) -> dict[str, Any]:
        if backend == "ray":
            return {"arch": tune.choice(["a", "b"]), "dropout": tune.uniform(0, 1), "margin": tune.uniform(0, 1)}
        dropout, margin = trial.suggest_float("dropout", 0, 1), trial.suggest_float("margin", 0, 1)
        return {"arch": trial.suggest_categorical("arch", ["a", "b"]), "dropout": dropout, "margin": margin}

    def value_of(trial: Any, name: str) -> Any:
        if backend == "ray":
            return trial[name]
        return trial.suggest_categorical(name, ["a", "b"]) if name == "arch" else trial.suggest_float(name, 0, 1)

    def model_init(trial: Any) -> LineModel:
        if trial is not None:
            architectures.append(value_of(trial, "arch"))
            if len(architectures) != 2:  # whichever the sampler chose
                value_of(trial, "dropout")
        return LineModel(LineConfig())

    url = f"sqlite:///{tmp_path / 'search.db'}"
    given = trainer(tmp_path, model_init, num_train_epochs=1)
    hyperparameter_search(given, hp_space, n_trials=3, backend=backend, storage=url, study_name="search")
    assert [trial.state.name for trial in stored(url)] == ["COMPLETE"] * 3
    (said,) = [record.getMessage() for record in caplog.records if "hyperparameters." in record.getMessage()]
    assert said.startswith("hyperparameters.margin: no field of TrainingArguments, and model_init did not read it")
