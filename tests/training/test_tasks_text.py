"""Regression, and classification of pairs of texts."""

import random
from pathlib import Path
from typing import Any

import pytest

from hpstudy.api.errors import InvalidStudyError
from tests.training.forms import prepared, run, splits_of, task_spec, write_lines

pytestmark = pytest.mark.filterwarnings("default")


def scores(source: random.Random, count: int) -> list[dict[str, Any]]:
    """How many more letters are a than x, by five."""
    texts = ["".join(source.choices("abxy", k=10)) for _ in range(count)]
    return [{"text": text, "label": (text.count("a") - text.count("x")) / 5} for text in texts]


def test_regression_is_learnt_and_its_metrics_agree(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "scores.json", scores(random.Random(0), 300))
    metrics = ["mse", "rmse", "mae", "r2", "pearson", "spearman"]
    arguments = {"num_train_epochs": 4, "per_device_train_batch_size": 16}
    study = task_spec("regression", {"json": data, "test": 0.1}, "rmse", metrics=metrics, arguments=arguments)
    found, recorder = run(prepared(study, tmp_path), study, tmp_path, learning_rate=0.01)
    assert found["eval_r2"] > 0.8, "the labels' mean has 0"
    assert found["eval_pearson"] > 0.9
    assert found["eval_spearman"] > 0.8
    assert found["eval_mse"] == pytest.approx(found["eval_rmse"] ** 2)
    assert found["eval_loss"] == pytest.approx(found["eval_mse"], rel=1e-3), "the loss is the mean squared error"
    assert found["eval_mae"] < found["eval_rmse"]
    assert abs(found["test_rmse"] - found["eval_rmse"]) < 0.2
    assert found["eval_rmse"] == min(report["eval_rmse"] for report in recorder.metrics)


def test_the_second_text_of_a_pair_is_read(tmp_path: Path) -> None:
    """The label is its letter; that of the first one says nothing."""
    source = random.Random(0)
    pairs = ["".join(source.choices("pq", k=2)) for _ in range(300)]
    rows = [{"a": f"{p[0]}{n:03}", "b": p[1], "second": int(p[1] == "q")} for n, p in enumerate(pairs)]
    data = {
        "json": write_lines(tmp_path / "pairs.json", rows),
        "columns": {"text": "a", "textPair": "b", "label": "second"},
    }
    study = task_spec("text-classification", data, "accuracy", arguments={"num_train_epochs": 3})
    form = prepared(study, tmp_path)
    assert set(form._data.train[0]) == {"input_ids", "attention_mask", "token_type_ids", "labels"}
    assert sum(form._data.train[0]["token_type_ids"]) > 0
    assert form._data.labels == ["0", "1"]
    found, _ = run(form, study, tmp_path, learning_rate=0.01)
    assert found["eval_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("label", "complaint"),
    [("high", "could not convert string to float: 'high'"), (float("nan"), "not finite"), (None, "float()")],
)
def test_labels_of_regression_are_numbers(tmp_path: Path, label: Any, complaint: str) -> None:
    rows = [*scores(random.Random(0), 10), {"text": "aaaa", "label": label}]
    rows = [row | {"label": str(row["label"]) if isinstance(label, str) else row["label"]} for row in rows]
    study = task_spec("regression", {"json": write_lines(tmp_path / "d.json", rows)})
    with pytest.raises(InvalidStudyError, match="regression needs a number for each label") as refusal:
        splits_of(study, tmp_path)
    assert complaint in refusal.value.message


def test_smoothing_of_labels_that_are_numbers_is_refused(tmp_path: Path) -> None:
    study = task_spec("regression", {"json": "d.json"}, arguments={"label_smoothing_factor": 0.1})
    with pytest.raises(InvalidStudyError, match="label_smoothing_factor: cannot be set, it smooths classes"):
        prepared(study, tmp_path)
