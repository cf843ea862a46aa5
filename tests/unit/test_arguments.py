"""What spreads a model over ranks is refused where it would have no effect."""

import importlib.util
from typing import Any

import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.arguments import check_sharding


@pytest.mark.parametrize(
    ("arguments", "gpus", "complaint"),
    [
        ({"fsdp": "full_shard"}, False, "arguments.fsdp: the worker has no GPU"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, False, "arguments.deepspeed: the worker has no GPU"),
        ({"deepspeed": "ds.json"}, True, "arguments.deepspeed: the worker's image lacks the package deepspeed"),
    ],
)
def test_sharding_without_effect_is_refused(
    arguments: dict[str, Any], gpus: bool, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidStudyError) as refusal:
        check_sharding(arguments, gpus=gpus)
    assert complaint in refusal.value.message


def test_sharding_is_taken_where_there_are_gpus() -> None:
    check_sharding({"fsdp": "full_shard", "deepspeed": None}, gpus=True)
    check_sharding({"fsdp": "", "learning_rate": 1.0}, gpus=False)
