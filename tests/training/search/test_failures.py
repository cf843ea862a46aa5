"""Trials that fail in a search, in one process: what counts them, what ends the search, what it waits for."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.exc

from hpstudy import hyperparameter_search
from hpstudy.api.errors import InvalidStudyError
from hpstudy.search import session
from hpstudy.search.errors import SearchFailedError
from hpstudy.storage import attributes
from tests.support.regression import LineConfig, LineModel, trainer
from tests.training.search.searches import learning_rate, stored

pytestmark = pytest.mark.filterwarnings("default")


def test_too_many_failures_end_it_and_say_why(tmp_path: Path) -> None:
    def model_init(trial: Any) -> LineModel:
        if trial is not None:
            raise ValueError(f"no model {trial.number}")
        return LineModel(LineConfig())

    given = trainer(tmp_path, model_init)
    with pytest.raises(SearchFailedError, match=r"2 trials failed, the budget allows 1; last: trial 1.*: no model 1"):
        hyperparameter_search(given, learning_rate, max_failed_trials=1)
    with pytest.raises(SearchFailedError, match="catch does not name the error of a trial: ValueError: no model 0"):
        hyperparameter_search(given, learning_rate, catch=(KeyError,))
    with pytest.raises(SearchFailedError, match="no trial of the search is complete"):
        hyperparameter_search(given, learning_rate, catch=(ValueError,), timeout=1.0, n_trials=None)
    assert given.args.output_dir == str(tmp_path)


class _TooOften(BaseException):
    """The search would go on."""


@pytest.mark.parametrize("in_space", [True, False])
def test_with_catch_a_failed_trial_counts_as_one_of_n_trials(tmp_path: Path, in_space: bool) -> None:
    """As in Optuna."""
    tries: list[int] = []

    def attempt(trial: Any) -> None:
        tries.append(trial.number)
        if len(tries) > 10:
            raise _TooOften
        if trial.number < 5:
            raise ValueError("no luck")

    def hp_space(trial: Any) -> dict[str, Any]:
        if in_space:
            attempt(trial)
        return learning_rate(trial)

    def model_init(trial: Any) -> LineModel:
        if not in_space and trial is not None:
            attempt(trial)
        return LineModel(LineConfig())

    given = trainer(tmp_path, model_init)
    search: dict[str, Any] = {"storage": f"sqlite:///{tmp_path / 'search.db'}", "study_name": "search"}
    with pytest.raises(SearchFailedError, match="no trial of the search is complete"):
        hyperparameter_search(given, hp_space, n_trials=3, catch=ValueError, **search)
    assert tries == [0, 1, 2]
    best = hyperparameter_search(given, hp_space, n_trials=6, catch=ValueError, **search)
    assert best.run_id == "5"
    assert tries == [0, 1, 2, 3, 4, 5]
    assert [trial.state.name for trial in stored(search["storage"])] == ["FAIL"] * 5 + ["COMPLETE"]


def test_an_error_of_hp_space_that_catch_does_not_name_ends_the_search(tmp_path: Path) -> None:
    tries: list[int] = []

    def hp_space(trial: Any) -> dict[str, Any]:
        tries.append(trial.number)
        if len(tries) > 10:
            raise _TooOften
        raise TypeError("a mistake")

    url = f"sqlite:///{tmp_path / 'search.db'}"
    with pytest.raises(SearchFailedError, match=r"catch does not name the error of a trial: .*TypeError: a mistake"):
        hyperparameter_search(trainer(tmp_path), hp_space, storage=url, study_name="search", catch=ValueError)
    (trial,) = stored(url)
    assert trial.state is optuna.trial.TrialState.FAIL
    assert trial.user_attrs[attributes.MESSAGE] == "no hyperparameters: TypeError: a mistake"


def test_a_database_that_is_away_while_hp_space_asks_is_waited_for(tmp_path: Path) -> None:
    """Also with catch, under which an error of hp_space's own is a trial that failed."""
    url, tries = f"sqlite:///{tmp_path / 'search.db'}", []

    def hp_space(trial: Any) -> dict[str, Any]:
        tries.append(trial.number)
        if len(tries) == 1:
            raise ValueError("no luck")
        if len(tries) == 2:
            raise sqlalchemy.exc.OperationalError("SELECT", {}, Exception("server closed the connection unexpectedly"))
        return learning_rate(trial)

    hyperparameter_search(trainer(tmp_path), hp_space, n_trials=3, storage=url, study_name="search", catch=ValueError)
    trials = stored(url)
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.user_attrs.get(attributes.FAILURE) for trial in trials] == ["error", "lost", None, None]


def test_a_trial_whose_hyperparameters_cannot_be_told_has_failed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    with pytest.raises(TypeError, match="not JSON serializable"):
        hyperparameter_search(trainer(tmp_path), lambda trial: {"optim": object()}, storage=url, study_name="search")
    (trial,) = stored(url)
    assert trial.state is optuna.trial.TrialState.FAIL
    assert "not JSON serializable" in trial.user_attrs[attributes.MESSAGE]


def test_an_hp_space_that_prunes_every_trial_ends_with_the_time(tmp_path: Path) -> None:
    """As in Optuna, where the time is looked at between trials."""
    tries: list[int] = []

    def hp_space(trial: Any) -> dict[str, Any]:
        tries.append(trial.number)
        if len(tries) > 1000:
            raise _TooOften
        raise optuna.TrialPruned

    with pytest.raises(SearchFailedError, match="no trial of the search is complete"):
        hyperparameter_search(trainer(tmp_path), hp_space, n_trials=None, timeout=1.0)
    assert tries


@pytest.mark.parametrize("disable_tqdm", [False, True])
def test_a_trial_that_is_evaluated_when_it_has_trained_is_not_pruned(tmp_path: Path, disable_tqdm: bool) -> None:
    """TrainingArguments evaluate nothing before the end unless they are told to."""
    given = trainer(tmp_path, eval_strategy="no", num_train_epochs=1, disable_tqdm=disable_tqdm)
    url = f"sqlite:///{tmp_path / 'search.db'}"
    pruner = optuna.pruners.ThresholdPruner(upper=-1.0)
    hyperparameter_search(given, learning_rate, n_trials=2, pruner=pruner, storage=url, study_name="search")
    assert [trial.state.name for trial in stored(url)] == ["COMPLETE", "COMPLETE"]


@pytest.mark.parametrize("where", ["hp_space", "model_init", "cleaning up"])
@pytest.mark.parametrize(
    ("error", "failure"), [(KeyboardInterrupt, "preempted"), (InvalidStudyError("InvalidOption", "no such"), "error")]
)
def test_what_ends_the_search_in_a_trial_ends_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Any, failure: str
) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"

    begun: list[int] = []

    def fail(*_: Any) -> None:
        if begun:
            raise error

    def hp_space(trial: Any) -> dict[str, Any]:
        begun.append(trial.number)
        if where == "hp_space":
            fail()
        return learning_rate(trial)

    def model_init(trial: Any) -> LineModel:
        if where == "model_init" and trial is not None:
            fail()
        return LineModel(LineConfig())

    if where == "cleaning up":
        monkeypatch.setattr(session, "reset", fail)
    given = trainer(tmp_path, model_init)
    with pytest.raises((KeyboardInterrupt, InvalidStudyError)):
        hyperparameter_search(given, hp_space, storage=url, study_name="search")
    ended, *retries = stored(url)
    assert ended.state is optuna.trial.TrialState.FAIL
    assert ended.user_attrs[attributes.FAILURE] == failure
    again = failure == "preempted" and where != "hp_space"  # which had suggested nothing yet
    assert [trial.state.name for trial in retries] == ["WAITING"] * again
    assert given.args.output_dir == str(tmp_path)
