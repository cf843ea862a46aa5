"""The transformers form in tests: small models from scratch, trials run in this process."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from hpstudy.api.study import StudySpec
from hpstudy.api.tasks import TASKS
from hpstudy.training.sources import Source
from hpstudy.training.splits import Splits, read_splits
from hpstudy.training.tasks.make import make_task
from hpstudy.training.trainer import TransformersForm
from hpstudy.training.trial import Trial
from tests.support.builders import spec

torch.set_num_threads(1)  # two test processes share the machine

BERT = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TINY_BERT = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}
"""With dropout: a trial that continues needs the state of the random generators."""
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
RATE = {"parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}}}


def task_fields(task: str, dataset: Mapping[str, Any], metric: str = "loss", **fields: Any) -> dict[str, Any]:
    """Fields of a study of one task; fields of the form by keyword."""
    model = {"config": BERT}
    form = {"task": task, "model": model, "dataset": dataset, **fields}
    direction = "minimize" if metric in ("loss", "perplexity", "rmse", "mse", "mae") else "maximize"
    return {
        "objectives": [{"metric": metric, "direction": direction}],
        "searchSpace": RATE,
        "trial": {"transformers": form},
    }


def task_spec(task: str, dataset: Mapping[str, Any], metric: str = "loss", **fields: Any) -> StudySpec:
    """The same as a spec."""
    return spec(**task_fields(task, dataset, metric, **fields))


def prepared(study: StudySpec, folder: Path) -> TransformersForm:
    """The form, ready for trials."""
    assert study.trial.transformers is not None
    form = TransformersForm(study.trial.transformers, study, folder)
    form.prepare()
    return form


def splits_of(study: StudySpec, folder: Path) -> Splits:
    """What the form trains and evaluates on, before it is encoded."""
    trial = study.trial.transformers
    assert trial is not None
    return read_splits(Source(trial.dataset, TASKS[trial.task], folder), trial.dataset, make_task(trial).identify)


class Recorder:
    """Stands where the driver is."""

    def __init__(self, prune_at: int = 10**9) -> None:
        self.steps: list[int] = []
        self.metrics: list[dict[str, Any]] = []
        self._prune_at = prune_at

    def report(self, step: int, metrics: Any) -> bool:
        self.steps.append(step)
        self.metrics.append(dict(metrics))
        return step >= self._prune_at

    def progress(self, share: float) -> None:
        assert 0 <= share <= 1

    def stopping(self) -> bool:
        return False


def run(form: TransformersForm, study: StudySpec, folder: Path, **params: Any) -> tuple[dict[str, Any], Recorder]:
    """Run one trial in this process."""
    recorder = Recorder()
    metrics = form.run(Trial(0, params, study.objectives, folder / "out", recorder))
    return dict(metrics), recorder


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """A JSON-lines file; its name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name
