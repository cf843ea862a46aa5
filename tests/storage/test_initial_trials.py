"""The trials that a user gives a study to begin with; on real storages."""

from typing import Any

import pytest

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers.build import check_algorithms
from hpstudy.storage import attributes
from hpstudy.storage.attributes import Failure
from hpstudy.storage.opening import open_storage, open_study
from hpstudy.trials.budget import Next, Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import Outcome
from tests.storage.seeded_studies import LISTS, complete, initial, middle
from tests.storage.stored import NAME, trials_of
from tests.support.trials import take


class TestInitialTrials:
    def test_they_run_first_in_their_order_and_with_their_types(self, url: str) -> None:
        given = [{"lr": 1, "layers": 2.0, "optim": None}, {"lr": 0.5, "layers": 5, "optim": "sgd", "momentum": 0}]
        study = initial(given)
        with TrialLoop(study, url, NAME) as loop:
            first, second = complete(loop, study).parameters, complete(loop, study).parameters
        assert first == {"lr": 1.0, "layers": 2, "optim": None}
        assert [type(value) for value in first.values()] == [float, int, type(None)]
        assert second == {"lr": 0.5, "layers": 5, "optim": "sgd", "momentum": 0.0}

    @pytest.mark.parametrize("sampler", ["TPESampler", "RandomSampler", "NSGAIISampler", "engine"])
    def test_the_sampler_fills_what_one_leaves_out(self, url: str, sampler: str) -> None:
        study = initial(
            [{"lr": 0.25}, {"optim": "sgd"}], sampler={"name": "TPESampler" if sampler == "engine" else sampler}
        )
        with TrialLoop(study, url, NAME) as loop:
            if sampler == "engine":
                loop.study.sampler = middle(study)
            first, second = complete(loop, study).parameters, complete(loop, study).parameters
            complete(loop, study)
        assert first["lr"] == 0.25
        assert first["layers"] in range(1, 6)
        assert second["optim"] == "sgd"
        assert 0 <= second["momentum"] <= 0.9, "which exists with the optimiser that was given"
        if sampler == "engine":
            assert (first["layers"], first["optim"], second["lr"]) == (3, "adam", 0.1)

    def test_restarts_and_other_groups_do_not_run_them_again(self, storage_url: str) -> None:
        study = initial([{"lr": 0.1}, {"lr": 0.2}])
        with TrialLoop(study, storage_url, NAME, 0) as first, TrialLoop(study, storage_url, NAME, 1) as second:
            rates = {complete(first, study).parameters["lr"], complete(second, study).parameters["lr"]}
        with TrialLoop(study, storage_url, NAME, 0) as again:
            later = complete(again, study).parameters["lr"]
        assert rates == {0.1, 0.2}
        assert later not in rates
        assert len(trials_of(storage_url)) == 3

    def test_a_process_that_died_while_it_queued_them_is_continued(self, url: str) -> None:
        study = initial([{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}])
        storage = open_storage(url)
        open_study(storage, NAME, study).enqueue_trial({"lr": 0.1}, user_attrs={attributes.INITIAL: 0})
        storage.engine.dispose()
        with TrialLoop(study, url, NAME) as loop:
            assert [complete(loop, study).parameters["lr"] for _ in range(3)] == [0.1, 0.2, 0.3]
            assert len(trials_of(url)) == 3

    def test_one_that_loses_its_worker_is_tried_again(self, url: str) -> None:
        study = initial([{"lr": 0.1, "layers": 2, "optim": "adam"}])
        with TrialLoop(study, url, NAME) as loop:
            lost = take(loop)
            loop.tell(lost, Outcome(failure=Failure.LOST, message="gone"))
            assert complete(loop, study).parameters == lost.parameters
            assert complete(loop, study).parameters != lost.parameters

    @pytest.mark.parametrize(
        ("given", "complaint"),
        [
            ({"rate": 0.1}, "initialTrials[1].rate: the search space has no such parameter; it has lr, layers, optim"),
            ({"lr": 2}, "initialTrials[1].lr: 2 is not in [0.001, 1]"),
            ({"lr": True}, "initialTrials[1].lr: True is not in"),
            ({"lr": "fast"}, "initialTrials[1].could not convert string to float"),
            ({"layers": 2.5}, "initialTrials[1].layers: 2.5 is not in [1, 5]"),
            ({"optim": "lion"}, "initialTrials[1].optim: 'lion' is none of ['adam', 'sgd', None]"),
            ({"optim": "adam", "momentum": 0.5}, "initialTrials[1].momentum: it exists only where optim is sgd"),
        ],
    )
    def test_one_that_cannot_be_is_refused_before_anything_runs(self, given: dict[str, Any], complaint: str) -> None:
        with pytest.raises(InvalidStudyError) as refusal:
            check_algorithms(initial([{"lr": 0.1}, given]))
        assert refusal.value.reason == reasons.INVALID_INITIAL_TRIAL
        assert complaint in refusal.value.message

    def test_a_list_is_a_value_like_others(self, url: str) -> None:
        study = initial([{"sizes": [16]}, {"sizes": "wide"}], searchSpace=LISTS)
        with TrialLoop(study, url, NAME) as loop:
            assert [complete(loop, study).parameters["sizes"] for _ in range(2)] == [[16], "wide"]

    def test_they_may_be_corrected_until_a_trial_has_run(self, url: str) -> None:
        wrong, right = initial([{"lr": 0.1}]), initial([{"lr": 0.2}])
        with TrialLoop(wrong, url, NAME):
            pass
        with TrialLoop(right, url, NAME) as loop:
            assert complete(loop, right).parameters["lr"] == 0.2
        with pytest.raises(InvalidStudyError, match="initialTrials changed"), TrialLoop(wrong, url, NAME):
            pass


class TestInitialTrialsOfADefineByRunSpace:
    def study(self, *given: dict[str, Any]) -> StudySpec:
        return initial(
            list(given), searchSpace={"python": "tests.storage.seeded_studies:made_up"}, budget={"maxFailedTrials": 0}
        )

    def test_their_values_are_taken(self, url: str) -> None:
        study = self.study({"lr": 0.5})
        with TrialLoop(study, url, NAME) as loop:
            assert take(loop).parameters == {"rate": 0.5}

    @pytest.mark.filterwarnings("ignore:Fixed parameter")
    @pytest.mark.parametrize(
        ("given", "complaint"),
        [
            ({"lr": 7.0}, "initialTrials[0].lr: 7.0 is not in FloatDistribution"),
            ({"rate": 0.5}, "initialTrials[0].rate: the search space did not ask for such a parameter"),
        ],
    )
    def test_one_that_cannot_be_fails(self, url: str, given: dict[str, Any], complaint: str) -> None:
        with TrialLoop(self.study(given), url, NAME) as loop:
            assert loop.next() == Verdict(Next.WAIT, after=0)
            ended = loop.next()
        assert isinstance(ended, Verdict)
        assert ended.next is Next.FAILED
        assert complaint in ended.message
