"""What the ``transformers`` form makes of the options of FSDP and DeepSpeed."""

import importlib.machinery
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.arguments import typed
from hpstudy.training.sharding import is_sharded, with_options

ZERO = {"zero_optimization": {"stage": 3}}
GATHER = "stage3_gather_16bit_weights_on_model_save"


@pytest.fixture
def deepspeed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is installed, or it is not."""
    found = importlib.machinery.ModuleSpec("deepspeed", None) if getattr(request, "param", True) else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)


def options(arguments: dict[str, Any], folder: Path, **setting: bool) -> dict[str, Any]:
    return with_options(arguments, folder, **({"gpus": True, "saves_models": True} | setting))


def refusal(arguments: dict[str, Any], folder: Path, **setting: bool) -> str:
    with pytest.raises(InvalidStudyError) as refused:
        options(arguments, folder, **setting)
    return refused.value.message


@pytest.mark.parametrize("arguments", [{"fsdp": "full_shard"}, {"fsdp": True}, {"deepspeed": ZERO}])
def test_sharding_is_refused_where_it_would_have_no_effect(arguments: dict[str, Any], tmp_path: Path) -> None:
    (name,) = arguments
    assert refusal(arguments, tmp_path, gpus=False).startswith(f"arguments.{name}: the worker has no GPU")


@pytest.mark.parametrize("deepspeed", [False], indirect=True)
@pytest.mark.usefixtures("deepspeed")
def test_an_image_without_deepspeed_is_told_before_the_first_trial(tmp_path: Path) -> None:
    assert (
        refusal({"deepspeed": ZERO}, tmp_path) == "arguments.deepspeed: the worker's image lacks the package deepspeed"
    )


@pytest.mark.usefixtures("deepspeed")
def test_models_that_are_published_are_gathered(tmp_path: Path) -> None:
    made = options({"deepspeed": ZERO}, tmp_path)["deepspeed"]
    assert made == {"zero_optimization": {"stage": 3, GATHER: True}}
    assert ZERO == {"zero_optimization": {"stage": 3}}, "the user's own is left as it is"
    assert options({"deepspeed": ZERO}, tmp_path, saves_models=False)["deepspeed"] == ZERO
    stage_2 = {"zero_optimization": {"stage": 2}}
    assert options({"deepspeed": stage_2}, tmp_path)["deepspeed"] == stage_2
    never = {"zero_optimization": {"stage": 3, GATHER: False}}
    assert "set checkpoints.keep: none" in refusal({"deepspeed": never}, tmp_path)
    assert options({"deepspeed": never}, tmp_path, saves_models=False)["deepspeed"] == never


@pytest.mark.usefixtures("deepspeed")
def test_files_of_options_lie_where_the_study_s_do(tmp_path: Path) -> None:
    for name in ("fsdp", "zero"):
        (tmp_path / f"{name}.json").write_text(json.dumps(ZERO if name == "zero" else {"version": 2}))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    made = options({"fsdp": True, "fsdp_config": "fsdp.json"}, tmp_path)
    assert made == {"fsdp": True, "fsdp_config": {"version": 2}}
    assert options({"deepspeed": "zero.json"}, tmp_path)["deepspeed"]["zero_optimization"][GATHER]
    written = options({"fsdp": True, "fsdp_config": '{"version": 2}'}, tmp_path)
    assert written == made, "TrainingArguments takes JSON in their place"
    assert 'arguments.deepspeed: {"a": is not JSON' in refusal({"deepspeed": '{"a":'}, tmp_path)
    assert "No such file" in refusal({"deepspeed": "none.json"}, tmp_path)
    assert "is not JSON" in refusal({"fsdp": True, "fsdp_config": "broken.json"}, tmp_path)
    assert "holds no object" in refusal({"deepspeed": "list.json"}, tmp_path)


def test_what_the_trainer_writes_into_its_options_is_for_one_trial(tmp_path: Path) -> None:
    given = {"fsdp": True, "fsdp_config": {"version": 2}}
    options(given, tmp_path)["fsdp_config"]["reshard_after_forward"] = False
    assert given["fsdp_config"] == {"version": 2}


def test_fsdp_is_asked_for_in_each_form_that_transformers_takes(tmp_path: Path) -> None:
    for value in (True, "full_shard", ["full_shard", "offload"]):
        given = typed({"fsdp": value}, "arguments")
        assert given == {"fsdp": value}
        assert is_sharded(options(given, tmp_path))
    for value in (False, "", None):
        assert not is_sharded(options(typed({"fsdp": value}, "arguments"), tmp_path, gpus=False))
