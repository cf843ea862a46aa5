"""What a study has before its first trial: those that its user chose, and those of other studies."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.metrics import find_metric
from hpstudy.api.status import WarmStartCounts
from hpstudy.api.study import StudySpec
from hpstudy.space.dimensions import SearchSpace
from hpstudy.space.initial import initial_parameters
from hpstudy.storage import attributes
from hpstudy.storage.sources import Source, find_sources

_FOREBEARS = {f"{name}:generation": 0 for name in ("NSGAIISampler", "NSGAIIISampler")}
"""Optuna's own: genetic samplers breed from the trials of a generation alone, and random ones make up the first."""


def seed_study(
    study: optuna.Study, storage: optuna.storages.RDBStorage, spec: StudySpec, space: SearchSpace | None
) -> None:
    """Add the trials of other studies and queue the initial ones, once for the life of the study.

    The caller holds the study's lock. A process that dies in the middle of it is continued by the next: each trial is
    added in one transaction with a mark of where it is from.

    Raises:
        InvalidStudyError: see ``initial_parameters`` and ``find_sources``.
    """
    if attributes.SEEDED in study.user_attrs or not (spec.initial_trials or spec.warm_start_from):
        return
    given = initial_parameters(spec, space)
    taken = None
    known = [trial.user_attrs for trial in study.get_trials(deepcopy=False)]
    if spec.warm_start_from:
        if space is None:
            raise InvalidStudyError(
                reasons.INVALID_WARM_START,
                "warmStartFrom: the script's own hp_space has no bounds to check other trials by; use searchSpace",
            )
        there = {tuple(attrs[attributes.TAKEN_FROM]) for attrs in known if attributes.TAKEN_FROM in attrs}
        counts = [
            _take(study, storage, source, spec, space, there)
            for source in find_sources(storage, study.study_name, spec)
        ]
        taken = WarmStartCounts(
            trials=sum(count.trials for count in counts),
            values_left_out=sum(count.values_left_out for count in counts),
            trials_left_out=sum(count.trials_left_out for count in counts),
        )
    queued = {attrs[attributes.INITIAL] for attrs in known if attributes.INITIAL in attrs}
    for place, parameters in enumerate(given):
        if place not in queued:
            study.enqueue_trial(parameters, user_attrs={attributes.INITIAL: place})
    study.set_user_attr(
        attributes.SEEDED,
        {"initialTrials": len(given), "warmStart": taken.model_dump(by_alias=True) if taken else None},
    )


def check_initial_values(trial: FrozenTrial) -> None:
    """Check the values that a trial of a define-by-run space came with, which Optuna takes as they are.

    Raises:
        ValueError: the function did not ask for a name, or not within these bounds.
    """
    if (place := trial.user_attrs.get(attributes.INITIAL)) is None:
        return
    for name, value in trial.system_attrs.get(attributes.FIXED, {}).items():
        if name not in trial.distributions:
            raise ValueError(f"initialTrials[{place}].{name}: the search space did not ask for such a parameter")
        distribution = trial.distributions[name]
        if not distribution._contains(distribution.to_internal_repr(value)):
            raise ValueError(f"initialTrials[{place}].{name}: {value!r} is not in {distribution}")


def _take(
    study: optuna.Study,
    storage: optuna.storages.RDBStorage,
    source: Source,
    spec: StudySpec,
    space: SearchSpace,
    there: set[tuple[str, int]],
) -> WarmStartCounts:
    """Add the complete trials of one study; what it took from others itself is not passed on."""
    other = optuna.load_study(study_name=source.name, storage=storage)
    trials = values_left_out = trials_left_out = 0
    for trial in other.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if attributes.TAKEN_FROM in trial.user_attrs:
            continue
        made, left_out = _translate(trial, source, spec, space)
        if made is None:
            trials_left_out += 1
            continue
        trials += 1
        values_left_out += left_out
        if (source.name, trial.number) not in there:
            study.add_trial(made)
    return WarmStartCounts(trials=trials, values_left_out=values_left_out, trials_left_out=trials_left_out)


def _translate(
    trial: FrozenTrial, source: Source, spec: StudySpec, space: SearchSpace
) -> tuple[FrozenTrial | None, int]:
    """The trial as one of this study, and how many of its values are out of bounds here; None where nothing of it can
    be used."""
    left_out, parameters = 0, {}
    for name in space.distributions:
        if name in trial.params:
            try:
                parameters[name] = space[name].encode_stored(trial.params[name])
            except (TypeError, ValueError):
                left_out += 1
    parameters = {name: parameters[name] for name in space.active(space.decode(parameters))}
    metrics = trial.user_attrs.get(attributes.METRICS, {})
    violations: dict[str, float] = {}
    for constraint in spec.constraints:
        value = find_metric(metrics, constraint.metric)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None, 0
        violations |= constraint.violations(float(value))
    if not parameters:
        return None, 0
    made = optuna.trial.create_trial(
        values=[trial.values[place] for place in source.places],
        params=parameters,
        distributions={name: space[name].distribution for name in parameters},
        user_attrs={attributes.TAKEN_FROM: [source.name, trial.number], attributes.METRICS: metrics},
        system_attrs={attributes.CONSTRAINT_PREFIX + name: value for name, value in violations.items()} | _FOREBEARS,
    )
    return made, left_out
