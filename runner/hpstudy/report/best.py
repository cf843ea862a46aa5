"""The best trial in the forms that others read: the ConfigMap of a cluster, ``hpstudy best``, the Job of onSuccess."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hpstudy.api.status import BestTrial
from hpstudy.api.study import StudySpec
from hpstudy.space.job_template import CHECKPOINT, HYPERPARAMETERS, NUMBER, VALUE
from hpstudy.space.load import read_space
from hpstudy.space.templates import as_texts, variable
from hpstudy.storage.reading import StudySnapshot

BEST, FRONT = "best.json", "front.json"
HYPERPARAMETERS_JSON, HYPERPARAMETERS_ENV = "hyperparameters.json", "hyperparameters.env"
_MAX_KEY = 253
"""Characters of a ConfigMap's key."""


def hyperparameters_of(trial: BestTrial, spec: StudySpec) -> dict[str, Any]:
    """As the trial got them: nested, with the values that the space has.

    What a function made up is as the storage has it: flat, lists and objects as JSON text.
    """
    space = None if spec.search_space is None or spec.search_space.python else read_space(spec)
    return dict(trial.hyperparameters) if space is None else space.nested(space.decode(trial.hyperparameters))


def describe(trial: BestTrial, spec: StudySpec) -> dict[str, Any]:
    """A trial for JSON: number, values by metric, hyperparameters, and its checkpoint where it has one."""
    found = {"number": trial.number, "values": trial.values, "hyperparameters": hyperparameters_of(trial, spec)}
    return found if trial.checkpoint is None else found | {"checkpoint": trial.checkpoint}


def variables(hyperparameters: Mapping[str, Any]) -> dict[str, str]:
    """Hyperparameters as the environment of a command's trial has them. Those whose variable would also be another's
    are left out."""
    texts = as_texts(hyperparameters)
    counts = Counter(map(variable, texts))
    return {variable(name): text for name, text in texts.items() if counts[variable(name)] == 1}


def as_environment(hyperparameters: Mapping[str, Any]) -> str:
    """Lines of NAME=value for ``set -a; . FILE``; a value that a shell would read as more is in quotes."""
    return "".join(f"{name}={shlex.quote(text)}\n" for name, text in variables(hyperparameters).items())


def documents(snapshot: StudySnapshot, spec: StudySpec) -> dict[str, str]:
    """What the ConfigMap holds; nothing before the first trial is complete.

    The one best trial as ``best.json``, its hyperparameters as ``hyperparameters.json``, ``hyperparameters.env`` and a
    key for each variable; with several objectives the Pareto front, as far as the status lists it, as ``front.json``.
    """
    found: dict[str, str] = {}
    if snapshot.front_size is not None and snapshot.best:
        found[FRONT] = _dump([describe(trial, spec) for trial in snapshot.best])
    if snapshot.winner is not None:
        described = describe(snapshot.winner, spec)
        hyperparameters = described["hyperparameters"]
        found[BEST] = _dump(described)
        found[HYPERPARAMETERS_JSON] = _dump(hyperparameters)
        found[HYPERPARAMETERS_ENV] = as_environment(hyperparameters)
        found |= {name: text for name, text in variables(hyperparameters).items() if len(name) <= _MAX_KEY}
    return found


def template_values(trial: BestTrial, spec: StudySpec) -> dict[str, str]:
    """What the templates of onSuccess stand for."""
    hyperparameters = hyperparameters_of(trial, spec)
    values = [trial.values[objective.metric] for objective in spec.objectives]
    found = {
        NUMBER: str(trial.number),
        VALUE: json.dumps(values[0] if len(values) == 1 else spec.weighted_sum(values)),
        HYPERPARAMETERS: json.dumps(hyperparameters, ensure_ascii=False),
    }
    return as_texts(hyperparameters) | found | ({} if trial.checkpoint is None else {CHECKPOINT: trial.checkpoint})


def _dump(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
