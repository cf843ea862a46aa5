"""Studies of backend wandb for tests."""

from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from hpstudy.api.study import StudySpec
from hpstudy.samplers.build import build_pruner, build_sampler
from hpstudy.space.dimensions import SearchSpace
from hpstudy.space.load import read_space
from tests.support.builders import spec

X = {"min": 0.0, "max": 1.0}


def sweep(method: str = "random", **parameters: Any) -> dict[str, Any]:
    return {"method": method, "parameters": parameters}


def a_study(native: dict[str, Any] | None = None, **fields: Any) -> StudySpec:
    space = {"searchSpace": {"wandb": native}} if native else {}
    return spec(**{"backend": "wandb", **space, **fields})


def space_of(study: StudySpec) -> SearchSpace:
    space = read_space(study)
    assert space is not None
    return space


def in_memory(study: StudySpec) -> tuple[optuna.Study, SearchSpace]:
    """Without a database, for what needs many trials."""
    space = space_of(study)
    made = optuna.create_study(
        direction=study.objectives[0].direction, sampler=build_sampler(study, space), pruner=build_pruner(study)
    )
    return made, space


def ask(study: optuna.Study, space: SearchSpace, told: float | None = None) -> dict[str, Any]:
    trial = study.ask()
    values = space.nested(space.suggest(trial))
    if told is not None:
        study.tell(trial, told)
    return values


def add_reports(study: optuna.Study, space: SearchSpace, histories: list[list[float]]) -> None:
    for history in histories:
        params = {d.name: space[d.name].encode(d.decode(_any(d.distribution))) for d in space.dimensions}
        study.add_trial(
            create_trial(
                params=params,
                distributions=space.distributions,
                value=history[-1],
                intermediate_values=dict(enumerate(history)),
            )
        )


def _any(distribution: Any) -> Any:
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low


def running(study: optuna.Study, space: SearchSpace, history: list[float]) -> optuna.trial.FrozenTrial:
    trial = study.ask()
    space.suggest(trial)
    for step, value in enumerate(history):
        trial.report(value, step)
    return study._storage.get_trial(trial._trial_id)
