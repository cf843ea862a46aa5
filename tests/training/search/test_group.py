"""What a worker group tells a script."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from transformers import TrainerCallback

from hpstudy import hyperparameter_search
from hpstudy.api.errors import InvalidStudyError
from hpstudy.search.group import GroupEnvironment
from tests.support.builders import manifest, spec
from tests.support.regression import LineConfig, LineModel, trainer


def test_a_script_reads_what_its_group_wrote(tmp_path: Path) -> None:
    study = tmp_path / "study.json"
    study.write_text(json.dumps(manifest()))
    written = GroupEnvironment(study, "sqlite:///study.db", "mine", 2, tmp_path / "output", tmp_path, "/driver")
    read = GroupEnvironment.from_environment(written.variables())
    assert read == written
    assert read is not None
    assert read.spec() == spec()


def test_a_script_by_itself_has_none() -> None:
    assert GroupEnvironment.from_environment({}) is None


def test_half_an_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudyError, match="HPSTUDY_STORAGE_URL"):
        GroupEnvironment.from_environment({"HPSTUDY_STUDY": str(tmp_path)})


def in_group(folder: Path, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> GroupEnvironment:
    study = manifest(
        trial={"script": {"path": "train.py"}},
        objectives=[{"metric": "eval_loss", "direction": "minimize"}],
        budget={"maxTrials": 2},
        **fields,
    )
    (folder / "study.json").write_text(json.dumps(study))
    url = f"sqlite:///{folder / 'group.db'}"
    environment = GroupEnvironment(folder / "study.json", url, "mine", 0, folder / "output", folder, "/driver")
    for name, value in environment.variables().items():
        monkeypatch.setenv(name, value)
    return environment


def stored(environment: GroupEnvironment) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(environment.storage_url)
    try:
        return optuna.load_study(study_name=environment.stored_name, storage=storage).trials
    finally:
        storage.engine.dispose()


@pytest.mark.filterwarnings("default")
def test_the_study_decides_and_gives_the_space_where_the_script_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parameters = {"learning_rate": {"type": "float", "low": 0.01, "high": 0.1}}
    environment = in_group(tmp_path, monkeypatch, searchSpace={"parameters": parameters})
    best = hyperparameter_search(trainer(tmp_path / "script"), n_trials=50, storage="sqlite:///other.db")
    trials = stored(environment)
    assert len(trials) == 2
    assert best.objective == min(trial.value for trial in trials)
    assert all(trial.user_attrs["hpstudy:group"] == 0 for trial in trials)
    (line,) = [record.getMessage() for record in caplog.records if "the study decides" in record.getMessage()]
    assert line.startswith("the study decides on n_trials, storage")


@pytest.mark.filterwarnings("default")
def test_a_script_in_a_group_may_bring_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = in_group(tmp_path, monkeypatch, searchSpace=None)
    folders: list[str] = []

    def model_init(trial: Any) -> LineModel:
        return LineModel(LineConfig(b=trial.suggest_int("b", 0, 3) if trial else 0))

    class Folders(TrainerCallback):
        def on_train_end(self, args: Any, *others: Any, **kwargs: Any) -> None:
            folders.append(args.output_dir)

    given = trainer(tmp_path / "script", model_init, callbacks=[Folders()])
    with pytest.raises(InvalidStudyError, match="neither the study has one nor the script an hp_space"):
        hyperparameter_search(given)
    with pytest.raises(InvalidStudyError, match="the script's is of backend ray, the study has backend optuna"):
        hyperparameter_search(given, lambda trial: {}, backend="ray")
    best = hyperparameter_search(
        given, lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 0.01, 0.1)}
    )
    assert best.hyperparameters.keys() == {"learning_rate", "b"}
    assert len(stored(environment)) == 2
    assert folders == [str(tmp_path / "output" / "trials" / f"run-{number}") for number in range(2)]
