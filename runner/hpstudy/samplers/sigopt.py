"""SigOpt: a sigopt-server of one's own, or without one SigOpt's own optimiser in the process.

``sampler.name`` is SigOpt's type of experiment: ``offline``, which optimises, or ``random``. ``sampler.options``:

- ``linear_constraints``: as in SigOpt's experiment, ``[{type: less_than, threshold: 1, terms: [{name: x, weight: 1},
  {name: y, weight: 1}]}]``; of parameters that always exist, without logarithmic scale and without grid;
- ``seed``: proposals can be had again; not with a server, which draws by itself;
- ``compute_mode``: without a server, ``default`` or ``kde_only`` (Parzen estimators instead of a Gaussian process);
- ``project``: with a server, the project that the experiment belongs to.

Conditionals are part of the space: see ``space/sigopt.py``. The server is that of SIGOPT_API_URL and SIGOPT_API_TOKEN.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import optuna
from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.fields import Algorithm
from hpstudy.api.study import StudySpec
from hpstudy.samplers import optuna as optuna_backend
from hpstudy.samplers.algorithms import hint
from hpstudy.samplers.sigopt_experiment import Experiment
from hpstudy.space.dimensions import SearchSpace
from hpstudy.space.load import native_space

URL = "SIGOPT_API_URL"
TOKEN = "SIGOPT_API_TOKEN"  # noqa: S105 (its name)
"""Environment variables of SigOpt's client."""
KINDS = ("offline", "random")
_DEFAULT = Algorithm(name="offline")
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel, extra="forbid", frozen=True):
    """A part of the options."""


class Term(_Part):
    """A parameter in a linear constraint."""

    name: StrictStr
    weight: Number


class LinearConstraint(_Part):
    """A bound on a weighted sum of parameters."""

    type: Literal["less_than", "greater_than"]
    threshold: Number
    terms: Annotated[list[Term], Field(min_length=1)]


class Options(_Part):
    """``sampler.options``."""

    seed: Annotated[StrictInt, Field(ge=0)] | None = None
    compute_mode: Literal["default", "kde_only"] | None = None
    project: StrictStr | None = None
    linear_constraints: list[LinearConstraint] = Field(default_factory=list)


def build_sampler(
    spec: StudySpec, space: SearchSpace | None, *, group: int = 0, trials: int = 0
) -> optuna.samplers.BaseSampler:
    """See ``samplers/build.py``. All groups have the same seed: a proposal depends on the trial's number too."""
    assert space is not None
    algorithm = spec.sampler or _DEFAULT
    if algorithm.name not in KINDS:
        raise InvalidStudyError(
            reasons.UNKNOWN_SAMPLER, f"unknown sampler {algorithm.name!r}{hint(algorithm.name, KINDS)}"
        )
    options = _options(algorithm.options)
    experiment = Experiment(spec, space, native_space(spec))
    constraints = _constraints(options, experiment)
    server = _server(os.environ)
    if server is None:
        _refuse(options.project, "project", f"needs a server: set {URL} and {TOKEN}, or leave it out")
        from hpstudy.samplers.sigopt_lite import LiteSampler

        return LiteSampler(
            experiment,
            kind=algorithm.name,
            compute_mode=options.compute_mode or "default",
            linear_constraints=constraints,
            seed=options.seed,
        )
    _refuse(options.seed, "seed", "a sigopt-server draws by itself, leave it out")
    _refuse(options.compute_mode, "compute_mode", "a sigopt-server chooses by itself, leave it out")
    from hpstudy.samplers.sigopt_client import SigOptServer
    from hpstudy.samplers.sigopt_server import ServerSampler

    url, token = server
    return ServerSampler(
        experiment,
        SigOptServer(url, token),
        url,
        kind=algorithm.name,
        project=options.project,
        linear_constraints=constraints,
        parallelism=spec.parallelism * (packed if isinstance(packed := spec.workers.trials_per_pod, int) else 1),
    )


def build_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """See ``samplers/build.py``. SigOpt prunes nothing; Optuna's pruners work on what any trial reports."""
    return optuna_backend.build_pruner(spec)


def _options(given: Mapping[str, Any]) -> Options:
    unknown = [name for name in given if name not in Options.model_fields]
    if unknown:
        raise InvalidStudyError(
            reasons.INVALID_OPTION,
            f"sampler.options.{unknown[0]}: SigOpt has no such option{hint(unknown[0], Options.model_fields)}",
        )
    try:
        return Options.model_validate(dict(given))
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
        message = detail["msg"][:1].lower() + detail["msg"][1:]
        raise InvalidStudyError(
            reasons.INVALID_OPTION, f"sampler.options{path}: {message}, got {detail['input']!r:.80}"
        ) from None


def _constraints(options: Options, experiment: Experiment) -> list[dict[str, Any]]:
    known = {parameter.name: parameter for parameter in experiment.parameters}
    priors = [parameter.name for parameter in experiment.parameters if "prior" in parameter.definition]
    if priors and options.linear_constraints:
        raise InvalidStudyError(
            reasons.INVALID_OPTION,
            f"sampler.options.linear_constraints: SigOpt ignores priors beside them: leave them out, or the "
            f"prior of {priors[0]}",
        )
    for index, constraint in enumerate(options.linear_constraints):
        for place, term in enumerate(constraint.terms):
            where = f"sampler.options.linear_constraints[{index}].terms[{place}]"
            if term.name not in known:
                raise InvalidStudyError(reasons.INVALID_OPTION, f"{where}: no parameter to vary is named {term.name!r}")
            parameter = known[term.name]
            problem = (
                "exists in some trials only"
                if parameter.dimension.when
                else "has a normal density"
                if parameter.dimension.normal
                else "is logarithmic"
                if parameter.definition.get("transformation") == "log"
                else "has choices, a grid or steps"
                if "bounds" not in parameter.definition or not parameter.is_exact
                else ""
            )
            if problem:
                raise InvalidStudyError(
                    reasons.INVALID_OPTION,
                    f"{where}: {term.name} {problem}, and SigOpt constrains no such parameter",
                )
    return [constraint.model_dump() for constraint in options.linear_constraints]


def _server(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """URL and token of the server, None where there is none."""
    url, token = environment.get(URL, "").strip(), environment.get(TOKEN, "").strip()
    if bool(url) != bool(token):
        missing, given = (TOKEN, URL) if url else (URL, TOKEN)
        raise InvalidStudyError(
            reasons.SAMPLER_FAILED,
            f"sampler: {given} is set and {missing} is not: a sigopt-server needs both, and SigOpt's own optimiser "
            "neither (SigOpt's hosted service is gone)",
        )
    return (url, token) if url else None


def _refuse(value: object, option: str, message: str) -> None:
    if value is not None:
        raise InvalidStudyError(reasons.INVALID_OPTION, f"sampler.options.{option}: {message}")
