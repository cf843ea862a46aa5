"""W&B sweeps: on a server where the worker has an API key, else by W&B's own engine in-process."""

import os
from typing import Any

import optuna

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from hpstudy.samplers import optuna as optuna_backend
from hpstudy.samplers.wandb_config import read_early_terminate, read_sweep
from hpstudy.samplers.wandb_engine import EarlyTerminatePruner, SweepsSampler
from hpstudy.samplers.wandb_server import ServerSampler, StopByServerPruner
from hpstudy.space.dimensions import SearchSpace
from hpstudy.space.load import native_space

HYPERBAND = "hyperband"
"""W&B's own pruner, under the name that it has in a sweep configuration."""


def build_sampler(
    spec: StudySpec, space: SearchSpace | None, *, group: int = 0, trials: int = 0
) -> optuna.samplers.BaseSampler:
    """See ``samplers/build.py``. ``group`` and ``trials`` do not matter: the proposal for a trial depends on its number
    and on the trials before it."""
    assert space is not None
    sweep = read_sweep(spec, space)
    if uses_server():
        for option in ("seed", "randomize_order"):
            if option in sweep.options:
                raise InvalidStudyError(
                    reasons.INVALID_OPTION,
                    f"sampler.options.{option}: a W&B server proposes by itself and takes none; remove it, or remove "
                    "WANDB_API_KEY from the workers for W&B's engine in-process",
                )
        return ServerSampler(space, sweep)
    return SweepsSampler(space, sweep)


def build_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """See ``samplers/build.py``: W&B's hyperband, from the sweep configuration or by name, or one of Optuna's by name.
    A server decides on W&B's by itself, and may stop any trial."""
    pruner: optuna.pruners.BasePruner
    if spec.pruner is not None and spec.pruner.name != HYPERBAND:
        pruner = optuna_backend.build_pruner(spec)
    elif spec.pruner is not None:
        early_terminate = read_early_terminate({"type": HYPERBAND, **spec.pruner.options}, "pruner.options")
        pruner = optuna.pruners.NopPruner() if uses_server() else EarlyTerminatePruner(lambda: early_terminate)
    elif uses_server() or _has_none(spec):
        pruner = optuna.pruners.NopPruner()
    else:
        # A function of the user's is called where the study runs, at the first report, and not where it is checked.
        pruner = EarlyTerminatePruner(lambda: _early_terminate(spec))
    return StopByServerPruner(pruner) if uses_server() else pruner


def uses_server() -> bool:
    """Whether this worker has what W&B's client needs to reach a server."""
    offline = os.environ.get("WANDB_MODE", "online") in {"offline", "disabled", "dryrun"}
    return bool(os.environ.get("WANDB_API_KEY")) and not offline


def _has_none(spec: StudySpec) -> bool:
    space = spec.search_space
    return space is None or (space.python is None and "early_terminate" not in (space.wandb or {}))


def _early_terminate(spec: StudySpec) -> dict[str, Any] | None:
    native = native_space(spec)
    if not native or "early_terminate" not in native:
        return None
    return read_early_terminate(native["early_terminate"], "searchSpace.wandb.early_terminate")
