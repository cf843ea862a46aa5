"""Image classification: a class for each picture."""

import hashlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy
import torch
from datasets import Dataset
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from transformers import AutoModelForImageClassification, EvalPrediction, PreTrainedConfig

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.metrics import CLASSIFICATION, compute
from hpstudy.training.splits import Identity, Splits
from hpstudy.training.tasks.base import Encoded, ProcessorSource, Task, classes_of, indices, labels_of

_IMAGE, _LABEL = "image", "label"
# What all trials share is worth having ready in memory; past this, a batch reads and scales its pictures itself.
_READY_BYTES = 2**31


class ImageClassification(Task):
    """A class for each picture; scaling and normalisation are those of the model's image processor."""

    auto_model = AutoModelForImageClassification

    def identify(self, rows: Dataset) -> Identity:
        if not isinstance(rows.features[_IMAGE], datasets.Image):
            raise InvalidStudyError(
                reasons.INVALID_DATASET, "dataset: the column for image must hold images, or paths of such"
            )
        labels = labels_of(rows, _LABEL)
        files = rows.cast_column(_IMAGE, datasets.Image(decode=False))[_IMAGE]
        return Identity([hashlib.blake2b(_bytes_of(file)).digest() for file in files], answers=labels, strata=labels)

    def load_processor(self, source: ProcessorSource, train: Dataset) -> Any:
        return source.image_processor()

    def encode(self, splits: Splits, processor: Any, config: PreTrainedConfig) -> Encoded:
        names = classes_of(splits.train, _LABEL)
        classes = {name: index for index, name in enumerate(names)}
        collate = _Collator(processor, getattr(config, "num_channels", 3))
        parts = [rows for rows in (splits.train, splits.validation, splits.test) if rows is not None]
        one = collate.pixels(parts[0].cast_column(_IMAGE, datasets.Image(decode=False))[0][_IMAGE])
        ready = one.nbytes * sum(map(len, parts)) <= _READY_BYTES

        def encode(rows: Dataset | None, what: str) -> "Dataset | _Ready | None":
            if rows is None:
                return None
            labels = indices(labels_of(rows, _LABEL), classes, what)
            files = rows.cast_column(_IMAGE, datasets.Image(decode=False))
            if not ready:
                return files.select_columns(_IMAGE).add_column("labels", labels)
            return _Ready(numpy.stack([collate.pixels(row[_IMAGE]) for row in files]), labels)

        train, validation = encode(splits.train, "the training data"), encode(splits.validation, "the validation data")
        assert train is not None
        assert validation is not None
        return Encoded(
            train,
            validation,
            encode(splits.test, "the test data"),
            collate,
            labels=names,
            fields={"problem_type": "single_label_classification"},
        )

    def compute_metrics(self, prediction: EvalPrediction, data: Any) -> dict[str, float]:
        predicted = prediction.predictions.argmax(axis=-1)
        return compute(CLASSIFICATION, self._spec.metric_names, prediction.label_ids, predicted)


class _Ready(torch.utils.data.Dataset[dict[str, Any]]):
    """Pictures as the model takes them, in one piece of memory that forked ranks share."""

    def __init__(self, pixels: numpy.ndarray[Any, Any], labels: list[int]) -> None:
        self._pixels = torch.from_numpy(pixels)
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"pixel_values": self._pixels[row], "labels": self._labels[row]}


class _Collator:
    """Pictures, ready or as files, to a batch."""

    def __init__(self, processor: Any, channels: int) -> None:
        self._processor = processor
        self._mode = "L" if channels == 1 else "RGB"

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        ready = "pixel_values" in rows[0]
        pixels = [row["pixel_values"] if ready else torch.from_numpy(self.pixels(row[_IMAGE])) for row in rows]
        return {"pixel_values": torch.stack(pixels), "labels": torch.tensor([int(row["labels"]) for row in rows])}

    def pixels(self, file: Mapping[str, Any]) -> numpy.ndarray[Any, Any]:
        """Of shape (channels, height, width), as the model takes them."""
        try:
            picture = _of_bytes(Image.open(BytesIO(_bytes_of(file)))).convert(self._mode)
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise InvalidStudyError(
                reasons.INVALID_DATASET, f"dataset: {file.get('path') or 'an image'}: {error}"
            ) from None
        array = numpy.asarray(picture)
        array = array[:, :, None] if array.ndim == 2 else array
        pixels = self._processor(array, return_tensors="np", input_data_format="channels_last")["pixel_values"][0]
        return numpy.asarray(pixels, dtype=numpy.float32)


def _bytes_of(file: Mapping[str, Any]) -> bytes:
    content = file.get("bytes")
    return bytes(content) if content is not None else Path(file["path"]).read_bytes()


def _of_bytes(picture: Image.Image) -> Image.Image:
    """One of 16 bits as one of 8; Pillow's own conversion would make all that is above 255 white.

    Raises:
        ValueError: its values have no such range.
    """
    if picture.mode != "F" and not picture.mode.startswith("I"):
        return picture
    values = numpy.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() >= 2**16:
        raise ValueError(f"its values go from {values.min()} to {values.max()}; save it with 8 or 16 bits")
    return Image.fromarray((values >> 8).astype(numpy.uint8))
