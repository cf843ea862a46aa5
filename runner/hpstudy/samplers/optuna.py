"""Optuna's own samplers and pruners, by name."""

import numpy
import optuna

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import Algorithm, StudySpec
from hpstudy.samplers.algorithms import build
from hpstudy.space.dimensions import SearchSpace

_DEFAULT_SAMPLER = Algorithm(name="TPESampler")
_NO_PRUNER = Algorithm(name="NopPruner")


def build_sampler(
    spec: StudySpec, space: SearchSpace | None, *, group: int = 0, trials: int = 0
) -> optuna.samplers.BaseSampler:
    """See ``samplers/build.py``.

    With the same seed, every group and every restart would propose the same first trials (optuna#4714), so ``group``
    and ``trials`` become part of the seed; the first start of group 0 takes it as is.
    """
    normal = [dimension.name for dimension in space.dimensions if dimension.normal] if space else []
    if normal:
        raise InvalidStudyError(
            reasons.INVALID_SPACE,
            f"searchSpace: {', '.join(normal)} has a normal distribution, which backend optuna does not sample from; "
            "give it a range",
        )
    algorithm = spec.sampler or _DEFAULT_SAMPLER
    seed = algorithm.options.get("seed")
    if isinstance(seed, int) and (group or trials):
        derived = int(numpy.random.SeedSequence([abs(seed), group, trials]).generate_state(1)[0])
        algorithm = algorithm.model_copy(update={"options": {**algorithm.options, "seed": derived}})
    sampler: optuna.samplers.BaseSampler = build(
        algorithm, "sampler", optuna.samplers, optuna.samplers.BaseSampler, reasons.UNKNOWN_SAMPLER
    )
    return sampler


def build_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """See ``samplers/build.py``."""
    pruner: optuna.pruners.BasePruner = build(
        spec.pruner or _NO_PRUNER, "pruner", optuna.pruners, optuna.pruners.BasePruner, reasons.UNKNOWN_PRUNER
    )
    return pruner
