"""A Trainer that takes a hundredth of a second a step: y = a x + b, in the shape of Transformers' own tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import PreTrainedConfig, PreTrainedModel, Trainer, TrainingArguments


class Line:
    """Points around y = 2 x + 3."""

    def __init__(self, length: int = 64) -> None:
        draw = numpy.random.default_rng(42)
        self.x = draw.normal(size=length).astype("float32")
        self.y = (2 * self.x + 3 + draw.normal(scale=0.1, size=length)).astype("float32")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"input_x": self.x[place], "labels": self.y[place]}


class LineConfig(PreTrainedConfig):
    model_type = "line"

    def __init__(self, a: float | None = 0.0, b: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.a, self.b = a, b


class LineModel(PreTrainedModel):
    """Starts from a and b; without a from a random one, which shows the seed."""

    config_class = LineConfig
    base_model_prefix = "line"

    def __init__(self, config: LineConfig) -> None:
        super().__init__(config)
        self.a = torch.nn.Parameter(torch.randn(()) if config.a is None else torch.tensor(float(config.a)))
        self.b = torch.nn.Parameter(torch.tensor(float(config.b)))
        self.post_init()

    def forward(self, input_x: Any, labels: Any = None, **kwargs: Any) -> Any:
        y = input_x * self.a + self.b
        return (y,) if labels is None else (torch.nn.functional.mse_loss(y, labels), y)


def accuracy(prediction: Any) -> dict[str, float]:
    """The share of points within a quarter."""
    predictions, labels = prediction
    return {"accuracy": float((numpy.abs(predictions - labels) <= 0.25).mean())}


def trainer(
    folder: Path,
    model_init: Callable[..., Any] = lambda: LineModel(LineConfig()),
    kind: type[Trainer] = Trainer,
    callbacks: list[Any] | None = None,
    compute_metrics: Callable[[Any], dict[str, float]] | None = None,
    arguments: type[TrainingArguments] = TrainingArguments,
    **given: Any,
) -> Trainer:
    """A Trainer on 64 points, four epochs of eight steps."""
    fields = {
        "learning_rate": 0.1,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "num_train_epochs": 4,
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": True,
    } | given
    return kind(
        model_init=model_init,
        args=arguments(output_dir=str(folder), **fields),
        train_dataset=Line(),
        eval_dataset=Line(),
        callbacks=callbacks,
        compute_metrics=compute_metrics,
    )
