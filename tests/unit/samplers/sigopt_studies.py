"""Studies of backend sigopt for tests, and what their optimiser is told."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from hpstudy.api.study import StudySpec
from hpstudy.samplers.build import build_sampler
from hpstudy.space.load import load_suggest, read_space
from tests.support.builders import spec

X = {"name": "x", "type": "double", "bounds": {"min": 0, "max": 1}}
Y = {**X, "name": "y"}
CONDITIONAL = [
    {"name": "optimizer", "values": ["adam", "sgd"]},
    {**X, "name": "momentum", "conditions": {"optimizer": ["sgd"]}},
    {"name": "beta", "type": "int", "grid": [1, 3, 9], "conditions": {"optimizer": "adam"}, "default_value": 3},
]
FINITE = {"flag": {"type": "categorical", "choices": [True, False]}, "n": {"type": "int", "low": 1, "high": 2}}


def a_spec(space: Any, kind: str = "offline", *, objectives: Sequence[str] = ("minimize",), **fields: Any) -> StudySpec:
    """A study by its space (SigOpt's list, or parameters by name), SigOpt's type of experiment and sampler options."""
    options = fields.pop("options", {})
    return spec(
        backend="sigopt",
        searchSpace={"sigopt": space} if isinstance(space, list) else {"parameters": space},
        objectives=[{"metric": f"loss{i}", "direction": direction} for i, direction in enumerate(objectives)],
        sampler={"name": kind, "options": options},
        **fields,
    )


def open_study(study: StudySpec, history: Sequence[optuna.trial.FrozenTrial] = ()) -> optuna.Study:
    sampler = build_sampler(study, read_space(study))
    made = optuna.create_study(sampler=sampler, directions=[o.direction for o in study.objectives])
    made.add_trials(history)
    return made


def ask(study: optuna.Study, of: StudySpec) -> dict[str, Any]:
    return load_suggest(of, read_space(of))(study.ask())


def propose(of: StudySpec, history: Sequence[optuna.trial.FrozenTrial] = ()) -> dict[str, Any]:
    """The next trial of a study with this history, by a sampler that was just made."""
    return ask(open_study(of, history), of)


def told(
    of: StudySpec, values: Mapping[str, Any], result: Sequence[float] | None, state: TrialState = TrialState.COMPLETE
) -> optuna.trial.FrozenTrial:
    space = read_space(of)
    assert space is not None
    pruned = state is TrialState.PRUNED
    return optuna.trial.create_trial(
        state=state,
        params={name: space[name].encode(value) for name, value in values.items()},
        distributions={name: space[name].distribution for name in values},
        values=result,
        intermediate_values={1: result[0]} if pruned and result else {},
    )
