"""Where data comes from: each source, its columns, splits that are given."""

import json
import os
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.study import StudySpec
from tests.support.builders import spec
from tests.support.forkserver import PROCESSES
from tests.training.forms import prepared, splits_of, task_fields, task_spec

ROWS = [{"text": f"row {number}", "label": "ab"[number % 2]} for number in range(40)]
TASK = "text-classification"


def write(folder: Path, kind: str, rows: list[dict[str, Any]], name: str = "rows") -> str:
    path = folder / f"{name}.{kind}"
    match kind:
        case "csv":
            pandas.DataFrame(rows).to_csv(path, index=False)
        case "json":
            path.write_text(json.dumps(rows))
        case "jsonl":
            path.write_text("\n".join(json.dumps(row) for row in rows))
        case "parquet":
            datasets.Dataset.from_list(rows).to_parquet(path)
    return path.name


def texts(study: StudySpec, folder: Path) -> tuple[list[str], ...]:
    splits = splits_of(study, folder)
    return tuple(
        list(part["text"]) if part is not None else [] for part in (splits.train, splits.validation, splits.test)
    )


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_every_kind_of_table_gives_the_same_rows_and_the_same_split(tmp_path: Path, kind: str) -> None:
    write(tmp_path, "csv", ROWS, "reference")
    expected = texts(task_spec(TASK, {"csv": "reference.csv", "test": 0.2}), tmp_path)
    source = {"jsonl": "json"}.get(kind, kind)
    found = texts(task_spec(TASK, {source: write(tmp_path, kind, ROWS), "test": 0.2}), tmp_path)
    assert found == expected
    assert sorted(chain(*found)) == sorted(row["text"] for row in ROWS)


def test_columns_have_the_names_that_the_study_gives(tmp_path: Path) -> None:
    rows = [{"review": row["text"], "stars": row["label"], "text": "not this one"} for row in ROWS]
    data = {"csv": write(tmp_path, "csv", rows), "columns": {"text": "review", "label": "stars"}}
    train, validation, _ = texts(task_spec(TASK, data), tmp_path)
    assert (len(train), len(validation)) == (32, 8)
    assert all(text.startswith("row ") for text in train)


def test_a_pattern_takes_several_files(tmp_path: Path) -> None:
    for part in range(2):
        write(tmp_path, "parquet", ROWS[part::2], f"part-{part}")
    assert sum(map(len, texts(task_spec(TASK, {"parquet": "part-*.parquet"}), tmp_path))) == 40


def test_a_mark_at_the_start_of_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    names = [write(tmp_path, kind, ROWS) for kind in ("csv", "json")]
    without = [texts(task_spec(TASK, {Path(name).suffix[1:]: name}), tmp_path) for name in names]
    for name in names:
        (tmp_path / name).write_text((tmp_path / name).read_text(), encoding="utf-8-sig")
    assert without == [texts(task_spec(TASK, {Path(name).suffix[1:]: name}), tmp_path) for name in names]


def test_splits_that_are_given_are_taken_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = {"train": ROWS, "dev": ROWS[:3], "held": ROWS[5:7]}
    names = {name: write(tmp_path, "csv", rows, name) for name, rows in given.items()}
    data = {"csv": names["train"], "validationFrom": names["dev"], "testFrom": names["held"]}
    found = texts(task_spec(TASK, data), tmp_path)
    assert [len(part) for part in found] == [40, 3, 2]
    assert "3 of 3 validation rows are in the training data too" in caplog.text
    found = texts(task_spec(TASK, data | {"maxRows": 10}), tmp_path)
    assert [len(part) for part in found] == [10, 3, 2]
    del data["testFrom"]
    found = texts(task_spec(TASK, data | {"test": 0.25}), tmp_path)
    assert [len(part) for part in found] == [30, 3, 10]
    del data["validationFrom"]
    found = texts(task_spec(TASK, data | {"testFrom": "held.csv"}), tmp_path)
    assert [len(part) for part in found] == [32, 8, 2]


def test_a_folder_holds_a_folder_for_each_class(tmp_path: Path) -> None:
    for number, row in enumerate(ROWS):
        (tmp_path / "reviews" / row["label"] / "deeper").mkdir(parents=True, exist_ok=True)
        (tmp_path / "reviews" / row["label"] / "deeper" / f"{number}.txt").write_text(row["text"])
    splits = splits_of(task_spec(TASK, {"folder": "reviews"}), tmp_path)
    assert sorted([*splits.train["text"], *splits.validation["text"]]) == sorted(row["text"] for row in ROWS)
    labels = dict(zip(splits.train["text"], splits.train["label"], strict=True))
    assert all(labels[row["text"]] == row["label"] for row in ROWS if row["text"] in labels)
    plain = splits_of(task_spec("causal-language-modeling", {"folder": "reviews"}), tmp_path)
    assert len(plain.train) == 32


def _prepare(studies: list[StudySpec], folder: Path, answer: Any) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as the supervisor does
    before = len(list(Path("/proc/self/task").iterdir()))
    for study in studies:
        form = prepared(study, folder)
        left = len(list(Path("/proc/self/task").iterdir())) - before
        answer.send((left, len(form._data.train), list(form._data.labels)))


def test_a_data_set_is_loaded_by_name_and_nothing_stays_that_a_fork_would_break(tmp_path: Path) -> None:
    """A folder stands for the Hub here: the same call of datasets.load_dataset, in a process of its own."""
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["good", "bad"]))
    (tmp_path / "reviews").mkdir()
    for split, rows in (("train", ROWS), ("test", ROWS[:6])):
        numbered = [row | {"label": "ab".index(row["label"])} for row in rows]
        datasets.Dataset.from_list(numbered, features).to_parquet(tmp_path / "reviews" / f"{split}.parquet")
    data = {"name": "reviews", "testFrom": "test"}
    ours, theirs = PROCESSES.Pipe()
    studies = [task_spec(TASK, data), task_spec(TASK, {"parquet": "reviews/train.parquet"})]
    process = PROCESSES.Process(target=_prepare, args=(studies, tmp_path, theirs))
    process.start()
    theirs.close()
    found = [ours.recv() for _ in studies]
    process.join()
    assert found == [(0, 32, ["good", "bad"])] * 2, "threads left, rows to train on, classes"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"csv": "absent.csv"}, "dataset.csv: cannot read absent.csv: no such file"),
        ({"csv": "."}, "it is a folder; give a pattern of its files"),
        ({"json": "broken.jsonl"}, "dataset.json: cannot read broken.jsonl: broken.jsonl, line 2: "),
        (
            {"json": "squad.json"},
            "squad.json, line 1: Expecting property name enclosed in double quotes: line 1 column 2 "
            "(char 1); give an object a line, or a list of them",
        ),
        ({"json": "numbers.json"}, "numbers.json, row 2: it is no object"),
        ({"parquet": "rows.csv"}, "dataset.parquet: cannot read rows.csv: "),
        (
            {"csv": "rows.csv", "columns": {"label": "stars"}},
            "has no column stars; it has text, label; ",
        ),
        ({"csv": "rows.csv", "columns": {"textPair": "other"}}, "has no column other"),
        ({"csv": "rows.csv", "validationFrom": "absent.csv"}, "dataset.validationFrom: cannot read absent.csv"),
        (
            {"csv": "rows.csv", "validationFrom": "other.csv"},
            "the validation data has the labels c, which the ",
        ),
        ({"name": "folder", "validationFrom": "nope"}, "dataset.validationFrom: cannot read nope: "),
        ({"csv": "empty.csv"}, "dataset.csv: empty.csv has no rows"),
        ({"csv": "blank.csv"}, "dataset: a row has no label; leave out rows"),
        ({"json": "several.jsonl"}, "dataset: the label of a row is ['a', 'b'], and must be one name or number"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, data: dict[str, Any], complaint: str) -> None:
    write(tmp_path, "csv", ROWS)
    write(tmp_path, "csv", [{"text": "x", "label": "c"}], "other")
    (tmp_path / "squad.json").write_text(json.dumps({"version": "2.0", "data": []}, indent=1))
    (tmp_path / "empty.csv").write_text("text,label\n")
    write(tmp_path, "csv", [*ROWS, {"text": "unknown", "label": " "}], "blank")
    (tmp_path / "several.jsonl").write_text('{"text": "a", "label": ["a", "b"]}\n')
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label": "b"}\n{"text": \n')
    (tmp_path / "numbers.json").write_text('[{"text": "a"}, 3]')
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder", "csv", ROWS, "train")
    with pytest.raises(InvalidStudyError) as refusal:
        prepared(task_spec(TASK, data), tmp_path)
    assert refusal.value.reason == "InvalidDataset"
    assert complaint in refusal.value.message


@pytest.mark.parametrize(
    ("task", "data", "fields", "complaint"),
    [
        (TASK, {}, {}, "dataset must have exactly one of name, csv, json, parquet, text, folder"),
        (TASK, {"csv": "a", "json": "b"}, {}, "dataset must have exactly one of"),
        (TASK, {"csv": "a", "split": "train"}, {}, "subset, revision and split go with name"),
        (TASK, {"csv": "a", "validation": 0.1, "validationFrom": "b"}, {}, "either validation or validationFrom"),
        (TASK, {"csv": "a", "test": 0.1, "testFrom": "b"}, {}, "either test or testFrom"),
        (TASK, {"csv": "a", "validation": 0.9, "test": 0.9}, {}, "must leave rows to train on"),
        (
            TASK,
            {"csv": "a", "columns": {"tokens": "b"}},
            {},
            "dataset.columns of text-classification are text,",
        ),
        (TASK, {"text": "a"}, {}, "the data of text-classification is given by name, csv, json, parquet, folder"),
        (TASK, {"csv": "a", "stride": 3}, {}, "text-classification has no dataset.mlmProbability, dataset.stride"),
        (
            TASK,
            {"csv": "a"},
            {"metrics": ["rmse"]},
            "text-classification has the metrics accuracy, f1,",
        ),
        ("regression", {"csv": "a"}, {"metrics": ["f1"]}, "regression has the metrics mse, rmse, mae, r2, pearson"),
        (TASK, {"csv": "a"}, {"peft": {"type": "lora"}}, "peft adapts a pretrained model: give model.name"),
        (
            TASK,
            {"csv": "a"},
            {"peft": {"r": 8}, "model": {"name": "m"}},
            "peft needs a type, and knows lora",
        ),
        (
            "image-classification",
            {"csv": "a"},
            {"model": {"name": "m", "tokenizer": "t"}},
            "image-classification has none",
        ),
    ],
)
def test_what_a_task_does_not_know_is_refused_with_what_it_does(
    task: str, data: dict[str, Any], fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        task_spec(task, data, **fields)
    assert complaint in refusal.value.message


@pytest.mark.parametrize(
    ("metric", "complaint"),
    [
        ("recall", "no trial will have the metric recall; there are accuracy, f1, loss, runtime"),
        ("eval_recall", "and by trial.transformers.metrics precision, recall"),
        ("rmse", "no trial will have the metric rmse"),
    ],
)
def test_an_objective_that_no_evaluation_has_is_refused(metric: str, complaint: str) -> None:
    with pytest.raises(InvalidStudyError) as refusal:
        task_spec(TASK, {"csv": "a"}, metric)
    assert complaint in refusal.value.message
    fields = task_fields(TASK, {"csv": "a"}, "f1") | {"constraints": [{"metric": metric, "min": 0}]}
    with pytest.raises(InvalidStudyError):
        spec(**fields)
    for known in ("f1", "eval_accuracy", "eval_loss", "runtime", "model_parameters"):
        task_spec(TASK, {"csv": "a"}, known)
    task_spec(TASK, {"csv": "a"}, metric, computeObjective="m:f")
