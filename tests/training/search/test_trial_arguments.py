"""A trial's TrainingArguments, made of the user's own: what is searched takes effect, what is not stays."""

from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer, TrainingArguments

from hpstudy import hyperparameter_search
from hpstudy.api.errors import InvalidStudyError
from hpstudy.search.arguments import trial_arguments, unknown_names
from tests.support.regression import LineConfig, LineModel, trainer

pytestmark = pytest.mark.filterwarnings("default")

COMPILED = {"torch_compile": True, "torch_compile_mode": "max-autotune"}
STEPS = {"eval_strategy": "steps", "logging_steps": 100}
RECOMPUTED = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}


def made(base: dict[str, Any], searched: dict[str, Any]) -> TrainingArguments:
    args = TrainingArguments(output_dir="base", use_cpu=True, report_to="none", **base)
    return trial_arguments(args, searched, "trial")


@pytest.mark.parametrize(
    ("base", "searched", "expected"),
    [
        ({}, {"gradient_checkpointing": True}, {"activation_checkpointing": True}),
        (RECOMPUTED, {"gradient_checkpointing": False}, {"activation_checkpointing": False}),
        (RECOMPUTED, {"activation_checkpointing": False}, {"gradient_checkpointing": False}),
        (
            RECOMPUTED,
            {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}},
        ),
        (COMPILED, {"torch_compile": False}, {"torch_compile": False, "torch_compile_mode": None}),
        (COMPILED, {"torch_compile": True}, {"torch_compile_backend": "inductor", **COMPILED}),
        (STEPS, {"logging_steps": 10}, {"eval_steps": 10}),
        (STEPS, {"logging_steps": 10, "eval_steps": 100}, {"eval_steps": 100}),
        (STEPS | {"eval_steps": 50}, {"logging_steps": 10}, {"eval_steps": 50}),
        ({"metric_for_best_model": "loss"}, {"metric_for_best_model": "eval_f1"}, {"greater_is_better": True}),
        ({"metric_for_best_model": "f1"}, {"metric_for_best_model": "eval_loss"}, {"greater_is_better": False}),
        (
            {"metric_for_best_model": "rmse", "greater_is_better": False},
            {"metric_for_best_model": "mae"},
            {"greater_is_better": False},
        ),
        ({"greater_is_better": False}, {"metric_for_best_model": "mae"}, {"greater_is_better": False}),
    ],
)
def test_what_derives_from_a_searched_field_is_derived_again(
    base: dict[str, Any], searched: dict[str, Any], expected: dict[str, Any]
) -> None:
    args = made(base, searched)
    assert {name: getattr(args, name) for name in expected} == expected


def test_checkpointing_that_is_searched_is_switched_on(tmp_path: Path) -> None:
    enabled: list[str] = []

    class Model(LineModel):
        supports_gradient_checkpointing = True

        def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
            enabled.append("activation")

        def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
            enabled.append("gradient")

    given = trainer(tmp_path, lambda: Model(LineConfig()), num_train_epochs=1)
    hyperparameter_search(given, lambda trial: {"gradient_checkpointing": True}, n_trials=1)
    assert enabled


def test_the_number_of_gpus_that_the_trainer_sets_stays() -> None:
    """To 1, for a model that is spread over them."""
    args = TrainingArguments(output_dir="base", use_cpu=True, report_to="none", per_device_train_batch_size=2)
    args._n_gpu = 3
    assert trial_arguments(args, {"learning_rate": 1e-3}, "trial").train_batch_size == 6


def test_an_attribute_beside_the_fields_can_be_searched(tmp_path: Path) -> None:
    gammas: list[float] = []

    class Focal(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            gammas.append(self.args.gamma)
            return super().compute_loss(*args, **kwargs)

    class Arguments(TrainingArguments):
        margin = None

    given = trainer(tmp_path, kind=Focal, num_train_epochs=1, arguments=Arguments)
    given.args.gamma, given.args.steep = 1.0, True  # type: ignore[attr-defined]
    drawn = iter([2.0, 3.5])
    hyperparameter_search(given, lambda trial: {"gamma": next(drawn)}, n_trials=2)
    assert list(dict.fromkeys(gammas)) == [2.0, 3.5]
    assert given.args.gamma == 1.0

    searched = {"gamma": "4", "steep": "False", "margin": 0.5}
    assert unknown_names(given.args, searched) == []
    args = trial_arguments(given.args, searched, "trial")
    assert [getattr(args, name) for name in searched] == [4.0, False, 0.5]
    with pytest.raises(InvalidStudyError, match=r"hyperparameters\.gamma: .* got 'much'"):
        trial_arguments(given.args, {"gamma": "much"}, "trial")
    methods = ["n_gpu", "to_dict", "device", "_n_gpu", "beta"]
    assert unknown_names(given.args, methods) == methods
