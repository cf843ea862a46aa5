"""Trials of other studies that a study begins with; on real storages."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.status import WarmStartCounts
from hpstudy.api.study import StudySpec
from hpstudy.samplers.build import build_sampler, check_algorithms
from hpstudy.space.load import read_space
from hpstudy.storage import attributes
from hpstudy.storage.opening import open_storage, open_study
from hpstudy.trials.budget import Verdict
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import conclude
from tests.storage.seeded_studies import FLAT, LISTS, SPACE, complete, initial, made_up, middle
from tests.storage.stored import NAME, snapshot_of, trials_of
from tests.support.builders import spec
from tests.support.trials import take


def other_study(
    url: str,
    points: Sequence[Mapping[str, Any]],
    values: Sequence[Mapping[str, float]],
    name: str = "small",
    **fields: Any,
) -> None:
    """A study of the same storage whose trials had these hyperparameters and metrics."""
    study = initial([], **({"searchSpace": FLAT} | fields))
    space = read_space(study)
    assert space is not None
    storage = open_storage(url)
    other = open_study(storage, name, study)
    for point, metrics in zip(points, values, strict=True):
        other.add_trial(
            optuna.trial.create_trial(
                values=conclude(metrics, study).values,
                params={name: space[name].encode(value) for name, value in point.items()},
                distributions={name: space[name].distribution for name in point},
                user_attrs={attributes.METRICS: dict(metrics)},
            )
        )
    storage.engine.dispose()


def warm(*names: str, **fields: Any) -> StudySpec:
    starts = [{"study": name} for name in names or ("small",)]
    return spec(**({"searchSpace": FLAT, "warmStartFrom": starts, "sampler": {"name": "TPESampler"}} | fields))


class TestWarmStart:
    def test_the_sampler_knows_the_trials_and_they_count_for_nothing(self, storage_url: str) -> None:
        points = [{"x": x / 10, "y": 1.0} for x in range(-1, 3)]
        other_study(storage_url, points, [{"loss": -9.0 + point["x"] ** 2} for point in points])
        study = warm(budget={"maxTrials": 2, "maxFailedTrials": 0})
        with TrialLoop(study, storage_url, NAME) as loop:
            seen = [(trial.params, trial.value) for trial in loop.study.get_trials(states=(TrialState.COMPLETE,))]
            trials = [complete(loop, study, loss=value) for value in (5.0, 4.0)]
            ended = loop.next()
        assert seen == [(point, pytest.approx(-9.0 + point["x"] ** 2)) for point in points]
        assert isinstance(ended, Verdict)
        assert ended.message == "2 of 2 trials finished"
        snapshot = snapshot_of(storage_url, study)
        assert (snapshot.counts.complete, snapshot.counts.total) == (2, 2)
        assert [trial.number for trial in snapshot.best] == [trials[1].number, trials[0].number]
        assert snapshot.warm_start == WarmStartCounts(trials=4, values_left_out=0, trials_left_out=0)

    def test_a_space_that_a_script_makes_up_has_no_bounds_to_check_them_by(self, url: str) -> None:
        other_study(url, [{"x": 1.0, "y": 1.0}], [{"loss": 1.0}])
        with pytest.raises(InvalidStudyError, match="the script's own hp_space has no bounds") as refusal:
            TrialLoop(warm(), url, NAME, suggest=made_up).__enter__()
        assert refusal.value.reason == reasons.INVALID_WARM_START

    def test_the_sampler_learns_from_them_as_if_they_were_its_own(self, url: str) -> None:
        study = warm(sampler={"name": "TPESampler", "options": {"seed": 0}})
        space = read_space(study)
        assert space is not None
        alone = optuna.create_study(sampler=build_sampler(study, space, trials=12))
        for x in range(-6, 6):
            point = {"x": float(x) / 3, "y": 1.0}
            alone.add_trial(
                optuna.trial.create_trial(value=x * x, params=point, distributions=space.distributions)  # type: ignore[arg-type]
            )
        storage = open_storage(url)
        open_study(storage, "small", spec(searchSpace=FLAT)).add_trials(alone.trials)
        storage.engine.dispose()
        with TrialLoop(study, url, NAME) as loop:
            proposed = [take(loop).parameters for _ in range(3)]
        assert proposed == [space.suggest(alone.ask()) for _ in range(3)]

    @pytest.mark.parametrize("name", ["NSGAIISampler", "NSGAIIISampler"])
    def test_they_are_a_generation_that_others_descend_from(self, url: str, name: str) -> None:
        points = [{"x": x, "y": 1} for x in (-1, 0, 1, 2)]
        other_study(url, points, [{"loss": 1.0}] * 4)
        options = {"population_size": 4, "seed": 0, "mutation_prob": 0}
        study = warm(sampler={"name": name, "options": options})
        with TrialLoop(study, url, NAME) as loop:
            child = take(loop).parameters
        assert min(abs(child["x"] - point["x"]) for point in points) < 1e-9
        assert child["y"] == pytest.approx(1)

    def test_they_are_taken_once(self, url: str) -> None:
        other_study(url, [{"x": 1, "y": 1}], [{"loss": 1.0}])
        study = warm()
        with TrialLoop(study, url, NAME, 0), TrialLoop(study, url, NAME, 1):
            pass
        optuna.delete_study(study_name="small", storage=url)
        with TrialLoop(study, url, NAME, 0):
            assert len(trials_of(url)) == 1, "and their study may go"

    def test_a_process_that_died_while_it_took_them_is_continued(self, url: str) -> None:
        other_study(url, [{"x": 1, "y": 1}, {"x": 0, "y": 2}], [{"loss": 1.0}, {"loss": 2.0}])
        study = warm()
        storage = open_storage(url)
        open_study(storage, NAME, study).add_trial(
            optuna.trial.create_trial(value=1.0, user_attrs={attributes.TAKEN_FROM: ["small", 0]})
        )
        storage.engine.dispose()
        with TrialLoop(study, url, NAME):
            taken = [trial.user_attrs[attributes.TAKEN_FROM] for trial in trials_of(url)]
        assert taken == [["small", 0], ["small", 1]]
        taken_from = snapshot_of(url, study).warm_start
        assert taken_from == WarmStartCounts(trials=2, values_left_out=0, trials_left_out=0)

    def test_values_out_of_bounds_are_left_out_and_counted(self, url: str) -> None:
        wide = {
            "parameters": {
                "lr": {"type": "float", "low": 0.001, "high": 100},
                "layers": {"type": "int", "low": 1, "high": 50},
                "optim": {"type": "categorical", "choices": ["adam", "sgd", "lion"]},
                "momentum": {"type": "float", "low": 0, "high": 0.9},
                "dropout": {"type": "float", "low": 0, "high": 1},
            }
        }
        points = [
            {"lr": 0.5, "layers": 2, "optim": "sgd", "momentum": 0.3, "dropout": 0.1},
            {"lr": 50.0, "layers": 20, "optim": "adam", "momentum": 0.3, "dropout": 0.1},
            {"lr": 50.0, "layers": 20, "optim": "lion", "momentum": 0.3, "dropout": 0.1},
        ]
        other_study(url, points, [{"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0}], searchSpace=wide)
        study = warm(searchSpace=SPACE)
        with TrialLoop(study, url, NAME) as loop:
            complete(loop, study)  # samplers can work with what is there
            complete(loop, study)
        assert [trial.params for trial in trials_of(url)[:2]] == [
            {"lr": 0.5, "layers": 2, "optim": "sgd", "momentum": 0.3},
            {"optim": "adam"},
        ]
        found = snapshot_of(url, study).warm_start
        assert found == WarmStartCounts(trials=2, values_left_out=2, trials_left_out=1)

    def test_engines_are_told_of_whole_points_alone(self, url: str) -> None:
        wide = {"parameters": {**FLAT["parameters"], "y": {"type": "float", "low": 0, "high": 40}}}
        other_study(url, [{"x": 1, "y": 30}, {"x": 1, "y": 3}], [{"loss": 1.0}, {"loss": 2.0}], searchSpace=wide)
        study = warm()
        with TrialLoop(study, url, NAME) as loop:
            engine = loop.study.sampler = middle(study)
            take(loop)
        assert [told.values for told in engine.history] == [{"x": 1.0, "y": 3.0}]

    @pytest.mark.parametrize(("sampler", "seen"), [("TPESampler", 2), ("NSGAIISampler", 1), ("GPSampler", 1)])
    def test_and_so_are_samplers_that_would_never_learn_a_parameter_again(
        self, url: str, sampler: str, seen: int
    ) -> None:
        """What one trial lacks, they would draw at random for the rest of the study."""
        wide = {"parameters": {**FLAT["parameters"], "y": {"type": "float", "low": 0, "high": 40}}}
        other_study(url, [{"x": 1, "y": 30}, {"x": 1, "y": 3}], [{"loss": 1.0}, {"loss": 2.0}], searchSpace=wide)
        study = warm(sampler={"name": sampler})
        with TrialLoop(study, url, NAME) as loop:
            assert len(loop.study.get_trials(deepcopy=False)) == seen
            complete(loop, study, loss=0.5)
            space = loop.study.sampler.infer_relative_search_space(loop.study, loop.study.trials[-1])
            assert ("y" in space) is (seen == 1)
        assert [trial.value for trial in trials_of(url)] == [1.0, 2.0, 0.5]

    def test_lists_keep_their_values(self, url: str) -> None:
        other_study(url, [{"sizes": [16]}], [{"loss": 1.0}], searchSpace=LISTS)
        more = {"optuna": {"sizes": {"suggest_categorical": {"choices": [[16], [32]]}}}}
        study = warm(searchSpace=more)
        with TrialLoop(study, url, NAME) as loop:
            engine = loop.study.sampler = middle(study)
            engine.propose = lambda *_: {}  # type: ignore[method-assign]
            assert engine.space.decode(trials_of(url)[0].params) == {"sizes": [16]}
            take(loop)

    def test_one_objective_of_two_is_enough_and_finds_its_place(self, url: str) -> None:
        two = [{"metric": "size", "direction": "minimize"}, {"metric": "eval_loss", "direction": "minimize"}]
        other_study(url, [{"x": 1, "y": 1}], [{"size": 9, "loss": 0.5}], objectives=two)
        study = warm()
        with TrialLoop(study, url, NAME) as loop:
            assert [trial.value for trial in loop.study.trials] == [0.5]

    def test_constraints_hold_for_them_too(self, url: str) -> None:
        found = [{"loss": 1.0, "latency": 30}, {"loss": 2.0, "latency": 10}, {"loss": 3.0}]
        other_study(url, [{"x": 1, "y": y} for y in (1, 2, 3)], found)
        study = warm(constraints=[{"metric": "latency", "max": 20}])
        with TrialLoop(study, url, NAME):
            assert [trial.constraints for trial in trials_of(url)] == [{"latency:max": 10}, {"latency:max": -10}]
        taken = snapshot_of(url, study).warm_start
        assert taken == WarmStartCounts(trials=2, values_left_out=0, trials_left_out=1)

    def test_with_scalarize_samplers_see_their_weighted_sum(self, url: str) -> None:
        two = [{"metric": "f1", "direction": "maximize"}, {"metric": "size", "direction": "minimize"}]
        other_study(url, [{"x": 1, "y": 1}], [{"f1": 0.5, "size": 9}], objectives=two)
        study = warm(objectives=two, scalarize={"weights": {"f1": 10, "size": 1}})
        with TrialLoop(study, url, NAME) as loop:
            assert [trial.value for trial in loop.study.trials] == [4.0]
        assert snapshot_of(url, study).front_size == 0

    def test_what_a_study_took_is_not_passed_on(self, url: str) -> None:
        other_study(url, [{"x": 1, "y": 1}], [{"loss": 1.0}])
        between = warm()
        with TrialLoop(between, url, "between") as loop:
            complete(loop, between, loss=7.0)
        with TrialLoop(warm("between"), url, NAME) as loop:
            assert [trial.value for trial in loop.study.trials] == [7.0]

    def test_in_a_cluster_the_latest_study_of_the_name_and_namespace_is_meant(self, storage_url: str) -> None:
        for value, name in ((1, "team/small-0000000a"), (2, "team/small-0000000b"), (3, "other/small-0000000c")):
            other_study(storage_url, [{"x": 1, "y": 1}], [{"loss": value}], name=name)
        other_study(storage_url, [{"x": 1, "y": 1}], [{"loss": 4}], name="team/small-er-0000000d")
        with TrialLoop(warm(), storage_url, "team/study-0000000e") as loop:
            assert [trial.value for trial in loop.study.trials] == [2.0]
        with TrialLoop(warm("small-0000000a"), storage_url, "team/study-0000000f") as loop:
            assert [trial.value for trial in loop.study.trials] == [1.0]
        with TrialLoop(warm("study"), storage_url, "team/study-00000010") as loop:
            assert not loop.study.trials, "its predecessor of the same name, which had none of its own"

    def test_a_study_that_is_not_there_is_named(self, url: str) -> None:
        storage = open_storage(url)
        with pytest.raises(InvalidStudyError, match="no other study 'small'") as refusal:
            open_study(storage, NAME, warm())
        storage.engine.dispose()
        assert refusal.value.reason == reasons.INVALID_WARM_START

    def test_a_study_of_other_objectives_is_refused(self, url: str) -> None:
        accuracy = [{"metric": "accuracy", "direction": "maximize"}]
        other_study(url, [{"x": 1, "y": 1}], [{"accuracy": 0.5}], objectives=accuracy)
        storage = open_storage(url)
        with pytest.raises(InvalidStudyError, match="has no values of loss; its objectives are accuracy"):
            open_study(storage, NAME, warm())
        storage.engine.dispose()

    def test_a_define_by_run_space_cannot_check_them(self) -> None:
        with pytest.raises(InvalidStudyError, match="has no bounds to check other trials by"):
            check_algorithms(warm(searchSpace={"python": "tests.storage.seeded_studies:made_up"}))
