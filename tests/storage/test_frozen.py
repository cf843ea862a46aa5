"""A study whose trials would be compared with others': what counts as a change, in which version, and at what cost."""

from typing import Any

import optuna
import pytest

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import Parameter, SearchSpace, StudySpec
from hpstudy.api.trials import Trial
from hpstudy.storage import attributes
from hpstudy.storage.opening import open_storage, open_study
from tests.storage.stored import NAME
from tests.support.builders import spec

SPACE = {"parameters": {"x": {"type": "float", "low": 0, "high": 1}}}
OTHER = {"parameters": {"x": {"type": "float", "low": 0, "high": 2}}}


class NewerParameter(Parameter):
    unit: str = "none"
    """Of a later version."""


class NewerSpace(SearchSpace):
    parameters: dict[str, NewerParameter] | None = None


class NewerTrial(Trial):
    note: str = "none"
    """Of a later version."""


class NewerSpec(StudySpec):
    search_space: NewerSpace | None = None
    trial: NewerTrial
    rounding: str = "none"
    """Of a later version."""


def newer(**fields: Any) -> NewerSpec:
    dumped = spec(searchSpace=SPACE).model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return NewerSpec.model_validate({**dumped, **fields})


def run_a_trial(study: optuna.Study) -> None:
    study.tell(study.ask(), 1.0)


@pytest.mark.parametrize(
    ("first", "then"),
    [(spec(searchSpace=SPACE), newer()), (newer(), spec(searchSpace=SPACE))],
    ids=["upgraded", "an older worker"],
)
def test_a_field_that_one_version_does_not_have_is_no_change(url: str, first: StudySpec, then: StudySpec) -> None:
    storage = open_storage(url)
    study = open_study(storage, NAME, first)
    assert open_study(storage, NAME, then)._study_id == study._study_id, "it was made anew"
    run_a_trial(study)
    open_study(storage, NAME, then)
    open_study(storage, NAME, first)


def test_such_a_field_with_a_value_is_one(url: str) -> None:
    storage = open_storage(url)
    run_a_trial(open_study(storage, NAME, newer()))
    space = {"parameters": {"x": {"type": "float", "low": 0, "high": 1, "unit": "m"}}}
    with pytest.raises(InvalidStudyError, match="searchSpace changed"):
        open_study(storage, NAME, newer(searchSpace=space))


def test_what_was_stored_with_and_without_defaults_is_the_same(url: str) -> None:
    storage, study = open_storage(url), spec(searchSpace=SPACE)
    made = open_study(storage, NAME, study)
    run_a_trial(made)
    bare = study.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    made.set_user_attr(attributes.SPEC, {key: bare[key] for key in ("objectives", "searchSpace")})
    open_study(storage, NAME, study)
    made.set_user_attr(attributes.SPEC, study.model_dump(mode="json", by_alias=True))
    open_study(storage, NAME, study)


def test_a_change_is_refused_without_reading_the_trials(storage_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, study = open_storage(storage_url), spec(searchSpace=SPACE)
    made = open_study(storage, NAME, study)
    made.enqueue_trial({"x": 0.5})
    made.add_trial(
        optuna.trial.create_trial(value=1.0, user_attrs={attributes.TAKEN_FROM: {"study": "other", "number": 0}})
    )
    corrected = open_study(storage, NAME, spec(searchSpace=OTHER))  # nothing of its own has begun
    running = corrected.ask()

    def none(*_: Any, **__: Any) -> Any:
        raise AssertionError("all trials were read")

    monkeypatch.setattr(optuna.storages.RDBStorage, "get_all_trials", none)
    with pytest.raises(InvalidStudyError, match="searchSpace changed") as refusal:
        open_study(storage, NAME, study)
    assert refusal.value.reason == reasons.SPEC_CHANGED
    mended = {"searchSpace": OTHER, "trial": {"function": "mended:objective"}}
    open_study(storage, NAME, spec(**mended))  # no trial has ended
    monkeypatch.undo()
    corrected.tell(running, 1.0)
    monkeypatch.setattr(optuna.storages.RDBStorage, "get_all_trials", none)
    with pytest.raises(InvalidStudyError, match="trial changed"):
        open_study(storage, NAME, spec(searchSpace=OTHER))
    open_study(storage, NAME, spec(**mended))
    storage.engine.dispose()
