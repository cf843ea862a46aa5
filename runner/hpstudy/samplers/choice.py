"""The sampler of a study that names none, or ``auto``.

The figures are those of ``make bench-samplers``; see docs/backends.md.
"""

import importlib.util
from dataclasses import dataclass

import optuna

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import AUTO, Algorithm, StudySpec
from hpstudy.space.dimensions import SearchSpace
from hpstudy.storage import attributes

GP_TRIALS = 200
"""Trials up to which a Gaussian process proposes. At 200 it is still far ahead of TPE and an ask takes 0.2 s; at
500 one takes 1 s, at 1,000 6 s, and all groups wait for it."""
GP_PARAMETERS = 20
"""Parameters up to which it does."""
GP_OBJECTIVES = 2
"""Objectives up to which it does."""
TPE_TRIALS = 10_000
"""Trials up to which TPE does with several objectives. With 1,000 it is far ahead of NSGA-II; at 10,000 an ask takes
0.2 s."""


@dataclass(frozen=True)
class Choice:
    """A sampler of Optuna's and the reason for it."""

    name: str
    why: str


def is_open(spec: StudySpec) -> bool:
    """Whether the sampler is left to us."""
    return spec.backend == "optuna" and (spec.sampler is None or spec.sampler.name == AUTO)


def chosen_sampler(spec: StudySpec, space: SearchSpace | None, choice: Choice | None = None) -> Algorithm:
    """The sampler that is chosen, with the options that go with ``auto``.

    Raises:
        InvalidStudyError: an option that not every sampler has.
    """
    options = dict(spec.sampler.options) if spec.sampler else {}
    if other := sorted(set(options) - {"seed"}):
        raise InvalidStudyError(
            reasons.INVALID_OPTION,
            f"sampler.options.{other[0]}: auto takes a seed alone; name the sampler that the option is for",
        )
    return Algorithm(name=(choice or choose(spec, space)).name, options=options)


def settle_sampler(study: optuna.Study, spec: StudySpec, space: SearchSpace | None) -> StudySpec:
    """The study with its sampler named: chosen once, and recorded for every group and restart."""
    if not is_open(spec):
        return spec
    stored = study.user_attrs.get(attributes.SAMPLER)
    choice = Choice(**stored) if stored else choose(spec, space)
    if not stored:
        study.set_user_attr(attributes.SAMPLER, {"name": choice.name, "why": choice.why})
    return spec.model_copy(update={"sampler": chosen_sampler(spec, space, choice)})


def choose(spec: StudySpec, space: SearchSpace | None) -> Choice:
    """Choose by what is known before the first trial."""
    objectives = 1 if spec.is_scalar else len(spec.objectives)
    trials = _count(spec.budget.max_trials, "trial") + (f" for {objectives} objectives" if objectives > 1 else "")
    if objectives > 1 and spec.budget.max_trials > TPE_TRIALS:
        return Choice("NSGAIISampler", trials)
    if objectives > GP_OBJECTIVES:
        return Choice("TPESampler", trials)
    if space is None:
        return Choice("TPESampler", "the space is made up trial by trial")
    if space.is_conditional:
        return Choice("TPESampler", "the space has conditions")
    if spec.pruner and spec.pruner.name != "NopPruner":
        return Choice("TPESampler", "pruned trials, which a Gaussian process would not learn from")
    what = f"{trials} of {_count(len(space.dimensions), 'flat parameter')}"
    if spec.budget.max_trials > GP_TRIALS or len(space.dimensions) > GP_PARAMETERS:
        return Choice("TPESampler", what)
    if importlib.util.find_spec("torch") is None:
        return Choice("TPESampler", f"{what}, for which GPSampler would be better: it needs torch")
    return Choice("GPSampler", what)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
