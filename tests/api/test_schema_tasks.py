"""What the API server itself says to the ``transformers`` form: each task's columns, sources and metrics."""

from typing import Any

import pytest

from tests.api.harness import Team, study

CLASSIFICATION, NUMBERS, ANSWERS = "text-classification", "regression", "question-answering"


def form(task: str, dataset: dict[str, Any], **fields: Any) -> dict[str, Any]:
    trial = {"task": task, "model": {"name": "m"}, "dataset": dataset, **fields}
    return study(trial={"transformers": trial})


@pytest.mark.parametrize(
    "manifest",
    [
        form(CLASSIFICATION, {"name": "imdb", "subset": "plain", "split": "train", "validationFrom": "test"}),
        form(CLASSIFICATION, {"folder": "d", "columns": {"label": "x", "textPair": "y"}}, metrics=["recall"]),
        form(NUMBERS, {"json": "d.json", "test": 0.1}, metrics=["rmse", "spearman"]),
        form("token-classification", {"parquet": "*.parquet", "columns": {"tags": "pos"}}, metrics=["accuracy"]),
        form(ANSWERS, {"csv": "d.csv", "stride": 10, "maxLength": 100}, metrics=["exact_match"]),
        form("causal-language-modeling", {"text": "d.txt", "validationFrom": "v.txt", "test": 0.1}),
        form("masked-language-modeling", {"folder": "d", "mlmProbability": 0.3}, metrics=["perplexity", "accuracy"]),
        form("image-classification", {"folder": "d"}, peft={"type": "lora", "r": 8, "target_modules": ["query"]}),
        form("masked-language-modeling", {"csv": "d"}, model={"config": {"model_type": "bert"}, "tokenizer": "t"}),
    ],
)
def test_each_task_is_taken_with_what_it_knows(team: Team, manifest: dict[str, Any]) -> None:
    assert team.api.create("hpstudies", team.namespace, manifest) == ""
    written = manifest["spec"]["trial"]["transformers"]
    live = team.study()["spec"]["trial"]["transformers"]
    assert live["dataset"].items() >= written.pop("dataset").items()
    assert live.items() >= written.items()


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (form("summarization", {"csv": "d"}), "Unsupported value"),
        (form(CLASSIFICATION, {}), "dataset must have exactly one of name, csv, json, parquet, text, folder"),
        (form(CLASSIFICATION, {"csv": "d", "json": "e"}), "dataset must have exactly one of name, csv, json"),
        (form(CLASSIFICATION, {"csv": "d", "subset": "x"}), "subset, revision and split go with name"),
        (form(CLASSIFICATION, {"csv": "d", "validation": 0.2, "validationFrom": "e"}), "either validation or"),
        (form(CLASSIFICATION, {"csv": "d", "test": 0.2, "testFrom": "e"}), "either test or testFrom"),
        (form(CLASSIFICATION, {"csv": "d", "test": 0.8}), "must leave rows to train on"),
        (form(CLASSIFICATION, {"text": "d"}), "the data of text-classification is given by name, csv, json, parquet"),
        (form(CLASSIFICATION, {"csv": "d", "stride": 1}), "text-classification has no dataset.mlmProbability"),
        (form(NUMBERS, {"csv": "d", "columns": {"tokens": "x"}}), "dataset.columns of regression are text, textPair"),
        (form(NUMBERS, {"csv": "d"}, metrics=["f1"]), "regression has the metrics mse, rmse, mae, r2, pearson"),
        (form(ANSWERS, {"csv": "d"}, metrics=["accuracy"]), "question-answering has the metrics exact_match, f1"),
        (
            form(CLASSIFICATION, {"csv": "d"}, model={"config": {"model_type": "bert"}}, peft={"type": "lora"}),
            "peft adapts a pretrained model",
        ),
        (form("image-classification", {"folder": "d"}, model={"name": "m", "tokenizer": "t"}), "has none"),
    ],
)
def test_what_it_does_not_know_is_refused_with_what_it_does(team: Team, manifest: dict[str, Any], words: str) -> None:
    assert words in team.api.create("hpstudies", team.namespace, manifest)
