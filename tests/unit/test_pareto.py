"""The Pareto front, against its definition and against Optuna's."""

import random

import optuna

from hpstudy.storage.pareto import pareto_front


def test_a_dominated_point_is_not_on_the_front() -> None:
    assert pareto_front([(1, 1), (2, 2), (0, 3)], ["minimize", "minimize"]) == [2, 0]


def test_directions_count() -> None:
    assert pareto_front([(1, 1), (2, 2), (0, 3)], ["maximize", "minimize"]) == [1, 0]


def test_equal_points_are_all_kept() -> None:
    assert sorted(pareto_front([(1, 1), (1, 1), (1, 2)], ["minimize", "minimize"])) == [0, 1]


def test_no_points_have_no_front() -> None:
    assert pareto_front([], ["minimize", "minimize"]) == []


def test_it_is_optunas_front() -> None:
    source = random.Random(0)
    directions = ["minimize", "maximize", "minimize"]
    study = optuna.create_study(directions=directions)
    points = [[float(source.randint(0, 6)) for _ in directions] for _ in range(150)]
    study.add_trials([optuna.trial.create_trial(values=point) for point in points])
    assert sorted(pareto_front(points, directions)) == sorted(trial.number for trial in study.best_trials)  # type: ignore[arg-type]
