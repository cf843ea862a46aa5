"""Samplers and pruners by name."""

import optuna
import pytest

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.samplers.build import build_pruner, build_sampler, check_algorithms
from tests.support.builders import spec


@pytest.mark.parametrize(
    ("field", "name", "options", "reason", "complaint"),
    [
        ("sampler", "TPESamplr", {}, reasons.UNKNOWN_SAMPLER, "did you mean TPESampler?"),
        ("sampler", "BaseSampler", {}, reasons.UNKNOWN_SAMPLER, "unknown sampler 'BaseSampler'"),
        ("pruner", "Hyperband", {}, reasons.UNKNOWN_PRUNER, "did you mean HyperbandPruner?"),
        (
            "sampler",
            "TPESampler",
            {"sed": 1},
            reasons.INVALID_OPTION,
            "sampler.options.sed: TPESampler has no",
        ),
        (
            "sampler",
            "TPESampler",
            {"n_startup_trials": "ten"},
            reasons.INVALID_OPTION,
            "n_startup_trials: input should be",
        ),
        ("sampler", "NSGAIISampler", {"population_size": 1}, reasons.INVALID_OPTION, "population_size"),
        ("sampler", "GridSampler", {}, reasons.INVALID_OPTION, "x has infinitely many"),
        ("pruner", "MedianPruner", {"n_startup_trials": -1}, reasons.INVALID_OPTION, "cannot be negative"),
        ("pruner", "PercentilePruner", {}, reasons.INVALID_OPTION, "PercentilePruner needs percentile"),
    ],
)
def test_a_wrong_name_or_option_is_refused(field: str, name: str, options: dict, reason: str, complaint: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InvalidStudyError) as refusal:
        check_algorithms(spec(**{field: {"name": name, "options": options}}))
    assert refusal.value.reason == reason
    assert complaint in refusal.value.message


def test_the_defaults_are_tpe_and_no_pruning() -> None:
    assert isinstance(build_sampler(spec(), None), optuna.samplers.TPESampler)
    assert isinstance(build_pruner(spec()), optuna.pruners.NopPruner)


def test_options_reach_the_algorithm() -> None:
    pruner = build_pruner(spec(pruner={"name": "HyperbandPruner", "options": {"min_resource": 3}}))
    assert isinstance(pruner, optuna.pruners.HyperbandPruner)
    assert pruner._min_resource == 3


def first_value(group: int, trials: int) -> float:
    sampler = build_sampler(
        spec(sampler={"name": "RandomSampler", "options": {"seed": 7}}), None, group=group, trials=trials
    )
    return optuna.create_study(sampler=sampler).ask().suggest_float("x", 0, 1)


def test_a_seed_gives_the_same_trials_again() -> None:
    plain = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7)).ask().suggest_float("x", 0, 1)
    assert first_value(group=0, trials=0) == first_value(group=0, trials=0) == plain


def test_groups_and_restarts_do_not_repeat_each_other() -> None:
    assert len({first_value(group, trials) for group in range(4) for trials in (0, 5, 6)}) == 12
