"""Image classification: folders, tables, processors."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy
import pandas
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTConfig

from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.tasks import image as module
from tests.training.forms import prepared, run, splits_of, task_spec, write_lines

pytestmark = pytest.mark.filterwarnings("default")

VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 16,
    "patch_size": 8,
    "hidden_dropout_prob": 0.0,
}
TASK = "image-classification"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures that are more red, or more blue."""
    source = numpy.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(50):
            pixels = source.integers(0, 120, (20, 24, 3), dtype=numpy.uint8)
            pixels[:, :, channel] += 100
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path


def test_classes_of_a_folder_are_learnt(folder: Path) -> None:
    arguments = {"num_train_epochs": 4, "per_device_train_batch_size": 10}
    data = {"folder": "pictures", "test": 0.2}
    study = task_spec(TASK, data, "accuracy", model={"config": VIT}, arguments=arguments)
    form = prepared(study, folder)
    assert form._data.labels == ["blue", "red"]
    found, _ = run(form, study, folder, learning_rate=0.01)
    assert found["eval_accuracy"] > 0.9
    assert found["eval_f1"] > 0.9
    assert found["test_accuracy"] > 0.8
    searched, _ = run(form, study, folder, learning_rate=0.01, num_train_epochs=1, **{"model.hidden_size": 8})
    assert searched["model_parameters"] < found["model_parameters"]


def test_pictures_that_do_not_fit_into_memory_are_read_for_each_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = task_spec(TASK, {"folder": "pictures"}, "accuracy", model={"config": VIT}, arguments={"max_steps": 3})
    ready = prepared(study, folder)
    monkeypatch.setattr(module, "_READY_BYTES", 0)
    reading = prepared(study, folder)
    batches = [form._data.collate([form._data.train[row] for row in range(4)]) for form in (ready, reading)]
    assert batches[0]["pixel_values"].shape == (4, 3, 16, 16)
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in ("pixel_values", "labels"))
    first, second = (run(form, study, folder, learning_rate=0.01)[0] for form in (ready, reading))
    assert first["eval_loss"] == second["eval_loss"]


def test_one_channel_and_parquet_and_paths_in_a_table(folder: Path) -> None:
    rows = []
    for name in ("red", "blue"):
        for number in range(6):
            content = (folder / "pictures" / name / f"{number}.png").read_bytes()
            rows.append({"image": {"bytes": content, "path": None}, "label": int(name == "red")})
    rows.append(rows[0])
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["blue", "red"]))
    datasets.Dataset.from_list(rows, features).to_parquet(folder / "pictures.parquet")
    paths = [f"pictures/{name}/{number}.png,{name}" for number in range(6) for name in ("red", "blue")]
    (folder / "pictures.csv").write_text("\n".join(["file,label", *paths]))
    grey = {"config": VIT | {"num_channels": 1}}
    parquet = prepared(task_spec(TASK, {"parquet": "pictures.parquet"}, "accuracy", model=grey), folder)
    assert parquet._data.train[0]["pixel_values"].shape == (1, 16, 16)
    assert len(parquet._data.train) + len(parquet._data.validation) == 12, "without the duplicate"
    data = {"csv": "pictures.csv", "columns": {"image": "file"}}
    table = prepared(task_spec(TASK, data, "accuracy", model=grey), folder)
    assert list(table._data.labels) == list(parquet._data.labels) == ["blue", "red"]
    parts = [(*form._data.train, *form._data.validation) for form in (parquet, table)]
    found = [{row["pixel_values"].sum().item() for row in rows} for rows in parts]
    assert found[0] == found[1]


def test_tables_name_pictures_from_where_they_are_and_may_hold_their_bytes(folder: Path) -> None:
    files = sorted((folder / "pictures").glob("*/*.png"))
    for name in ("red", "blue"):
        lines = [f"{file.name},{name}" for file in files if file.parent.name == name]
        (folder / "pictures" / name / "labels.csv").write_text("\n".join(["image,label", *lines]))
        rows = [{"image": file.name, "label": name} for file in files if file.parent.name == name]
        pandas.DataFrame(rows).to_parquet(folder / "pictures" / name / "labels.parquet")
        write_lines(folder / "pictures" / name / "labels.jsonl", rows)
    contents = [file.read_bytes() for file in files]
    table = pandas.DataFrame({"image": contents, "label": [file.parent.name for file in files]})
    table.to_parquet(folder / "bytes.parquet")
    table.assign(image=[{"bytes": each, "path": None} for each in contents]).to_parquet(folder / "hub.parquet")
    grey = {"config": VIT | {"num_channels": 1}}
    found = []
    for data in (
        {"folder": "pictures"},
        {"csv": "pictures/*/labels.csv"},
        {"json": "pictures/*/labels.jsonl"},
        {"parquet": "pictures/*/labels.parquet"},
        {"parquet": "bytes.parquet"},
        {"parquet": "hub.parquet"},
    ):
        form = prepared(task_spec(TASK, data, "accuracy", model=grey), folder)
        found.append({row["pixel_values"].sum().item() for row in (*form._data.train, *form._data.validation)})
    assert len(found[0]) > 90
    assert all(each == found[0] for each in found)


def test_pictures_of_16_bits_are_scaled_to_as_much(tmp_path: Path) -> None:
    """Pillow's own conversion would leave them white."""
    source, grey = numpy.random.default_rng(0), {"config": VIT | {"num_channels": 1}}
    kinds = {"bytes": numpy.uint8, "words": numpy.uint16, "wide": numpy.int32, "floats": numpy.float32}
    for number in range(12):
        values = source.integers(0, 256, (16, 16))
        for kind, made in kinds.items():
            (tmp_path / kind / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            written = (values * (1 if kind == "bytes" else 257)).astype(made)
            Image.fromarray(written).save(tmp_path / kind / "ab"[number % 2] / f"{number}.tiff")
    found = {}
    for kind in ("bytes", "words", "wide"):
        form = prepared(task_spec(TASK, {"folder": kind}, "accuracy", model=grey), tmp_path)
        found[kind] = sorted(row["pixel_values"].sum().item() for row in (*form._data.train, *form._data.validation))
    assert found["words"] == found["wide"] == found["bytes"]
    with pytest.raises(InvalidStudyError, match=r"floats/./\d+.tiff: its values go from .* save it with 8 or 16 bits"):
        prepared(task_spec(TASK, {"folder": "floats"}, "accuracy", model=grey), tmp_path)


def test_a_pretrained_model_brings_its_processor(folder: Path) -> None:
    model = AutoModelForImageClassification.from_config(ViTConfig(**VIT))
    model.save_pretrained(folder / "base")
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    processor |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1], "do_resize": True, "do_normalize": True}
    (folder / "base" / "preprocessor_config.json").write_text(json.dumps(processor))
    study = task_spec(TASK, {"folder": "pictures"}, "accuracy", model={"name": "base"}, arguments={"max_steps": 2})
    form = prepared(study, folder)
    assert list(form._processor.image_mean) == [0.1, 0.2, 0.3]
    run(form, study, folder, learning_rate=0.01)
    weights = form._models.make({}, {}).vit.embeddings.cls_token
    assert torch.equal(weights, model.vit.embeddings.cls_token)
    form._processor.save_pretrained(folder / "saved")
    assert AutoImageProcessor.from_pretrained(folder / "saved", backend="pil").size["height"] == 16


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"folder": "nowhere"}, "dataset.folder: cannot read nowhere: no such folder"),
        ({"folder": "pictures/red"}, "it is no folder for each class with"),
        ({"csv": "t.csv"}, "no image"),
        ({"json": "t.json"}, "the column for image must hold images, or paths"),
        ({"folder": "broken"}, "cannot identify image file"),
    ],
)
def test_what_is_no_picture_is_refused(folder: Path, data: dict[str, Any], complaint: str) -> None:
    (folder / "t.csv").write_text("image,label\nabsent.png,a\n")
    (folder / "t.json").write_text('{"image": 1, "label": 0}\n')
    for name in ("a", "b"):
        (folder / "broken" / name).mkdir(parents=True)
        for number in range(3):
            (folder / "broken" / name / f"{number}.png").write_bytes(b"no picture %d" % number + name.encode())
    with pytest.raises(InvalidStudyError) as refusal:
        prepared(task_spec(TASK, data, "accuracy", model={"config": VIT}), folder)
    assert refusal.value.reason == "InvalidDataset"
    assert complaint in refusal.value.message


def test_the_same_picture_under_two_names_is_one(folder: Path) -> None:
    pictures = folder / "pictures" / "red"
    (pictures / "copy.png").write_bytes((pictures / "0.png").read_bytes())
    again = BytesIO((pictures / "1.png").read_bytes())
    (folder / "pictures" / "blue" / "wrong.png").write_bytes(again.getvalue())
    splits = splits_of(task_spec(TASK, {"folder": "pictures"}, "accuracy", model={"config": VIT}), folder)
    assert len(splits.train) + len(splits.validation) == 99, "that of two labels is dropped"
