"""From a search space to the hyperparameters of a trial."""

from collections.abc import Callable, Mapping
from typing import Any

import optuna

from hpstudy.api.study import Parameter, StudySpec
from hpstudy.entry import import_entry

Suggest = Callable[[optuna.Trial], dict[str, Any]]
"""Asks the sampler for the value of each parameter of the space."""


def load_space(spec: StudySpec) -> Suggest:
    """Make the function that suggests a trial's hyperparameters.

    Raises:
        InvalidStudyError: the function of a python space cannot be imported.
    """
    if spec.search_space.parameters is not None:
        parameters = spec.search_space.parameters
        return lambda trial: {name: _suggest(trial, name, parameter) for name, parameter in parameters.items()}
    assert spec.search_space.python is not None
    function = import_entry(spec.search_space.python, "searchSpace.python")

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        result = function(trial)
        if result is None:
            return trial.params
        if not isinstance(result, Mapping):
            raise TypeError(
                f"searchSpace.python {spec.search_space.python} returned {type(result).__name__}, "
                "it must return the hyperparameters by name"
            )
        return dict(result)

    return suggest


def _suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Any:
    match parameter.type:
        case "float":
            assert parameter.low is not None
            assert parameter.high is not None
            return trial.suggest_float(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
        case "int":
            assert parameter.low is not None
            assert parameter.high is not None
            step = int(parameter.step or 1)
            return trial.suggest_int(name, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
        case "categorical":
            return trial.suggest_categorical(name, parameter.choices or [])
