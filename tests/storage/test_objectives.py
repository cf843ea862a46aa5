"""Several objectives, one number for samplers that know one, constraints, the hypervolume: on real storages."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpstudy.api.study import StudySpec
from hpstudy.samplers.build import build_sampler
from hpstudy.samplers.engine import EngineSampler, Observation
from hpstudy.space.load import read_space
from hpstudy.storage import attributes
from hpstudy.storage.pareto import Direction, hypervolume
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import conclude, conclude_pruned
from tests.storage.stored import NAME, opened, snapshot_of, trials_of
from tests.support.builders import spec
from tests.support.trials import take

SPACE = {"parameters": {"x": {"type": "float", "low": -2, "high": 2}, "y": {"type": "float", "low": -2, "high": 2}}}
TWO = [{"metric": "f1", "direction": "maximize"}, {"metric": "eval_size", "direction": "minimize"}]
WEIGHTS = {"f1": 2, "eval_size": 0.5}


def one(**fields: Any) -> StudySpec:
    return spec(**({"searchSpace": SPACE, "sampler": {"name": "RandomSampler"}} | fields))


def two(**fields: Any) -> StudySpec:
    return one(**({"objectives": TWO} | fields))


def run(loop: TrialLoop, study: StudySpec, metrics: Mapping[str, float]) -> Assignment:
    trial = take(loop)
    loop.tell(trial, conclude(metrics, study))
    return trial


def plain(url: str) -> optuna.Study:
    """A copy in memory of what plain Optuna sees."""
    with opened(url) as storage:
        study = optuna.load_study(study_name=NAME, storage=storage)
        copied = optuna.create_study(directions=study.directions)
        copied.add_trials(study.trials)
    return copied


def bowl(parameters: Mapping[str, float]) -> dict[str, float]:
    x, y = parameters["x"], parameters["y"]
    return {"eval_f1": -((x - 1) ** 2) - y**2, "size": (x + 1) ** 2 + y**2}


class TestScalarize:
    @pytest.mark.parametrize("name", ["CmaEsSampler", "TPESampler", "NSGAIISampler"])
    def test_a_sampler_proposes_as_if_the_sum_were_the_only_objective(self, url: str, name: str) -> None:
        algorithm = {"name": name, "options": {"seed": 1} | ({"population_size": 4} if "NSGA" in name else {})}
        study = two(scalarize={"weights": WEIGHTS}, sampler=algorithm)
        space = read_space(study)
        assert space is not None
        alone = optuna.create_study(sampler=build_sampler(study, space))
        with TrialLoop(study, url, NAME) as loop:
            for _ in range(14):
                expected = alone.ask()
                parameters = space.suggest(expected)
                trial = take(loop)
                assert trial.parameters == parameters
                metrics = bowl(parameters)
                loop.tell(trial, conclude(metrics, study))
                alone.tell(expected, -2 * metrics["eval_f1"] + 0.5 * metrics["size"])
            assert loop.study.best_trial.number == alone.best_trial.number

    def test_the_storage_and_the_status_keep_all_objectives(self, storage_url: str) -> None:
        study = two(scalarize={"weights": WEIGHTS})
        with TrialLoop(study, storage_url, NAME) as loop:
            for f1, size in ((0.5, 10), (0.6, 20), (0.4, 30)):
                run(loop, study, {"f1": f1, "size": size})
            values = [trial.values for trial in loop.study.get_trials()]
        assert values == [[pytest.approx(4)], [pytest.approx(8.8)], [pytest.approx(14.2)]]
        assert [trial.values for trial in trials_of(storage_url)] == [[0.5, 10], [0.6, 20], [0.4, 30]]
        snapshot = snapshot_of(storage_url, study)
        assert snapshot.front_size == 2
        assert [trial.values for trial in snapshot.best] == [
            {"f1": 0.6, "eval_size": 20},
            {"f1": 0.5, "eval_size": 10},
        ]

    @pytest.mark.parametrize(
        "pruner",
        [
            {"name": "MedianPruner", "options": {"n_startup_trials": 1, "n_warmup_steps": 0}},
            {"name": "HyperbandPruner", "options": {"min_resource": 1, "max_resource": 2, "reduction_factor": 2}},
        ],
    )
    def test_the_pruner_sees_the_weighted_sum(self, url: str, pruner: dict[str, Any]) -> None:
        study = two(scalarize={"weights": WEIGHTS}, pruner=pruner)
        with TrialLoop(study, url, NAME) as loop:
            for _ in range(4):
                good = take(loop)
                loop.report(good, 1, {"eval_f1": 0.9, "size": 1})
                loop.tell(good, conclude({"eval_f1": 0.9, "size": 1}, study))
            bad = take(loop)
            assert not loop.report(bad, 0, {"eval_f1": 0.9}), "without the other one there is no sum"
            pruned = [loop.report(bad, step, {"eval_f1": 0.1, "size": 9}) for step in (1, 2)]
            assert any(pruned)
            loop.tell(bad, conclude_pruned({"eval_f1": 0.1, "size": 9}, study))
            seen = loop.study.get_trials()[bad.number]
            take(loop)  # samplers can work with what is there
        found = trials_of(url)[bad.number]
        assert (seen.state, seen.values) == (TrialState.PRUNED, [pytest.approx(4.3)])
        assert (found.state, found.values) == (TrialState.PRUNED, None)
        assert found.intermediate_values[1] == pytest.approx(4.3)

    def test_a_restart_and_another_group_see_the_same(self, storage_url: str) -> None:
        study = two(scalarize={"weights": WEIGHTS}, budget={"maxTrials": 3})
        with TrialLoop(study, storage_url, NAME, 0) as first:
            run(first, study, {"f1": 0.5, "size": 10})
            with TrialLoop(study, storage_url, NAME, 1) as second:
                run(second, study, {"f1": 0.7, "size": 10})
                assert [t.value for t in first.study.get_trials()] == [t.value for t in second.study.get_trials()]
        with TrialLoop(study, storage_url, NAME, 0) as again:
            assert again.study.best_trial.number == 1


class Recording(EngineSampler):
    """An engine that proposes the middle, and keeps what it is told."""

    history: Sequence[Observation] = ()
    directions: Sequence[StudyDirection] = ()

    def propose(
        self, history: Sequence[Observation], directions: Sequence[StudyDirection], number: int, seed: int
    ) -> Mapping[str, Any]:
        self.history, self.directions = history, directions
        return {"x": 0.0, "y": 0.0}


def recording(study: StudySpec) -> Recording:
    space = read_space(study)
    assert space is not None
    return Recording(space, seed=0)


class TestEngines:
    def test_they_are_told_of_the_one_number(self, url: str) -> None:
        study = two(scalarize={"weights": WEIGHTS})
        with TrialLoop(study, url, NAME) as loop:
            engine = loop.study.sampler = recording(study)
            run(loop, study, {"f1": 0.5, "size": 10})
            take(loop)
        assert list(engine.directions) == [StudyDirection.MINIMIZE]
        assert [told.objectives for told in engine.history] == [(pytest.approx(4.0),)]

    def test_they_are_told_of_all_objectives_where_nothing_is_scalarized(self, url: str) -> None:
        study = two()
        with TrialLoop(study, url, NAME) as loop:
            engine = loop.study.sampler = recording(study)
            run(loop, study, {"f1": 0.5, "size": 10})
            take(loop)
        assert list(engine.directions) == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
        assert [told.objectives for told in engine.history] == [(0.5, 10)]

    def test_a_trial_beyond_a_constraint_is_as_bad_as_the_worst(self, url: str) -> None:
        study = one(constraints=[{"metric": "latency", "max": 20}])
        with TrialLoop(study, url, NAME) as loop:
            engine = loop.study.sampler = recording(study)
            for loss, latency in ((5, 20), (1, 21), (3, 1)):
                run(loop, study, {"loss": loss, "latency": latency})
            take(loop)
        assert [told.objectives for told in engine.history] == [(5,), (5,), (3,)]


class TestConstraints:
    def test_the_best_trials_keep_them(self, storage_url: str) -> None:
        study = one(constraints=[{"metric": "latency", "max": 20}, {"metric": "recall", "min": 0.5}])
        metrics = [(1.0, 21, 0.9), (2.0, 20, 0.5), (3.0, 5, 0.6), (0.5, 5, 0.4)]
        with TrialLoop(study, storage_url, NAME) as loop:
            for loss, latency, recall in metrics:
                run(loop, study, {"loss": loss, "eval_latency": latency, "recall": recall})
        snapshot = snapshot_of(storage_url, study)
        assert [trial.number for trial in snapshot.best] == [1, 2]
        assert snapshot.counts.complete == 4, "they count, and are recorded"
        assert plain(storage_url).best_trial.number == 1, "plain Optuna knows them too"

    def test_they_are_broken_by_however_little_or_much(self, storage_url: str) -> None:
        study = one(constraints=[{"metric": "gap", "max": 0}])
        with TrialLoop(study, storage_url, NAME) as loop:
            for loss, gap in ((1, 1e-300), (2, 1e300), (3, 0), (4, -1e300)):
                run(loop, study, {"loss": loss, "gap": gap})
        assert [trial.number for trial in snapshot_of(storage_url, study).best] == [2, 3]

    def test_the_front_keeps_them(self, storage_url: str) -> None:
        study = two(constraints=[{"metric": "eval_size", "max": 25}])
        with TrialLoop(study, storage_url, NAME) as loop:
            for f1, size in ((0.5, 10), (0.9, 26), (0.6, 25), (0.55, 25)):
                run(loop, study, {"f1": f1, "size": size})
        snapshot = snapshot_of(storage_url, study)
        assert snapshot.front_size == 2
        assert [trial.number for trial in snapshot.best] == [2, 0]
        assert sorted(trial.number for trial in plain(storage_url).best_trials) == [0, 2]

    def test_the_sampler_learns_of_them(self, url: str) -> None:
        constraints = [{"metric": "speed", "min": 0}]
        study = one(constraints=constraints, sampler={"name": "TPESampler", "options": {"seed": 3}})
        space = read_space(study)
        assert space is not None
        alone = optuna.create_study(sampler=build_sampler(study, space))
        unconstrained = optuna.create_study(sampler=build_sampler(study, space))
        different = False
        with TrialLoop(study, url, NAME) as loop:
            for _ in range(16):
                expected, other = alone.ask(), unconstrained.ask()
                x, y = space.suggest(expected).values()
                different = different or space.suggest(other) != {"x": x, "y": y}
                trial = take(loop)
                assert trial.parameters == {"x": x, "y": y}
                loop.tell(trial, conclude({"loss": -x, "speed": -x}, study))
                expected.set_constraint("speed", x)
                alone.tell(expected, -x)
                unconstrained.tell(other, -x)
        assert different, "the constraint makes a difference"

    def test_none_is_best_while_all_are_beyond_them(self, url: str) -> None:
        study = one(constraints=[{"metric": "latency", "max": 20}])
        with TrialLoop(study, url, NAME) as loop:
            run(loop, study, {"loss": 1, "latency": 30})
        assert snapshot_of(url, study).best == ()

    def test_a_trial_without_the_metric_of_one_fails(self, url: str) -> None:
        study = one(constraints=[{"metric": "latency", "max": 20}])
        with TrialLoop(study, url, NAME) as loop:
            run(loop, study, {"loss": 1})
        trial = trials_of(url)[0]
        assert trial.user_attrs[attributes.FAILURE] == "metric-missing"
        assert "'latency' was not reported; the trial reported loss" in trial.user_attrs[attributes.MESSAGE]


class TestHypervolume:
    def test_of_two_points_it_is_the_area_of_their_union(self) -> None:
        front = ((1.0, 3.0), (2.0, 1.0))
        assert hypervolume(front, (4, 4), ("minimize", "minimize")) == 3 * 1 + 2 * 3 - 2 * 1
        mirrored = tuple((-a, b) for a, b in front)
        assert hypervolume(mirrored, (-4, 4), ("maximize", "minimize")) == 7

    def test_a_point_beyond_the_reference_adds_nothing(self) -> None:
        assert hypervolume(((1.0, 3.0), (0.0, 5.0)), (4, 4), ("minimize", "minimize")) == 3
        assert hypervolume((), (4, 4), ("minimize", "minimize")) == 0

    @pytest.mark.parametrize("objectives", [2, 3, 4])
    def test_it_is_the_share_of_random_points_that_are_dominated(self, objectives: int) -> None:
        source = numpy.random.default_rng(0)
        points = numpy.abs(source.normal(size=(25, objectives)))
        points /= numpy.linalg.norm(points, axis=1, keepdims=True)
        directions: tuple[Direction, ...] = ("minimize",) * objectives
        found = hypervolume(tuple(map(tuple, (1 - points).tolist())), (1.0,) * objectives, directions)
        probes = source.random((20_000, objectives))
        share = (probes[:, None, :] >= (1 - points)[None]).all(axis=2).any(axis=1).mean()
        assert found == pytest.approx(share, abs=0.02)

    def test_a_front_that_would_take_long_has_none(self) -> None:
        source = random.Random(0)
        front = tuple(tuple(source.random() for _ in range(6)) for _ in range(31))
        assert hypervolume(front, (1.0,) * 6, ("minimize",) * 6) is None

    def test_the_snapshot_has_it_where_all_objectives_have_a_reference(self, url: str) -> None:
        objectives = [TWO[0] | {"reference": 0}, TWO[1] | {"reference": 40}]
        study = one(objectives=objectives)
        with TrialLoop(study, url, NAME) as loop:
            for f1, size in ((0.5, 10), (0.75, 20), (0.4, 30)):
                run(loop, study, {"f1": f1, "size": size})
        assert snapshot_of(url, study).hypervolume == pytest.approx(0.5 * 30 + 0.25 * 20)
        half = one(objectives=[objectives[0], TWO[1]])
        assert snapshot_of(url, half).hypervolume is None


def test_a_sampler_that_cannot_do_several_objectives_says_that_scalarize_makes_them_one() -> None:
    study = two(sampler={"name": "CmaEsSampler"})
    with pytest.raises(Exception, match="scalarize"):
        build_sampler(study, read_space(study))
