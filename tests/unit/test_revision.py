"""What a worker group has to start again for."""

from typing import Any

import pytest

from hpstudy.api.revision import LIVE, OPERATORS_OWN, revision
from hpstudy.api.study import StudySpec
from tests.support.builders import spec

ANEW = {
    "scalarize", "constraints", "backend", "sampler", "pruner", "search_space", "initial_trials",
    "warm_start_from", "stop_when", "trial_timeout", "trial", "workers", "checkpoints", "storage",
}  # fmt: skip
"""Fields that a group reads once."""


def test_of_every_field_somebody_decided_whether_groups_start_again_for_it() -> None:
    assert sorted([*ANEW, *LIVE, *OPERATORS_OWN]) == sorted(StudySpec.model_fields)


@pytest.mark.parametrize(
    "changed",
    [
        {"workers": {"template": {"spec": {"containers": [{"name": "worker", "image": "mine:2"}]}}}},
        {"workers": {"nodes": 2}},
        {"workers": {"processesPerNode": 2}},
        {"trialTimeout": "1h"},
        {"sampler": {"name": "RandomSampler"}},
        {"trial": {"function": "trials_of_tests:cube"}},
    ],
)
def test_what_pods_and_trials_are_made_from(changed: dict[str, Any]) -> None:
    assert revision(spec(**changed)) != revision(spec())


@pytest.mark.parametrize(
    "changed",
    [
        {"budget": {"maxTrials": 99}},
        {"parallelism": 5},
        {"retries": {"oom": 2}},
        {"suspend": True},
        {"workers": {"nodes": 1, "processesPerNode": "auto", "template": {}}},  # as the API server fills it in
        {"backend": "optuna", "constraints": [], "sampler": None},
    ],
)
def test_what_they_are_not_made_from(changed: dict[str, Any]) -> None:
    assert revision(spec(**changed)) == revision(spec())


def test_another_version_of_the_operator_comes_to_the_same() -> None:
    """Or its upgrade would restart every worker group of the cluster. Whoever changes this must mean it."""
    template = {"spec": {"containers": [{"name": "worker", "image": "mine:1", "resources": {"limits": {"cpu": 2}}}]}}
    assert revision(spec(workers={"nodes": 2, "template": template}, trialTimeout="90s")) == "39ae8410ab"
