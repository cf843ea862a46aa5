"""Reading a data set, whatever its source, into rows whose columns have the names that the task gives them.

Nothing here starts a thread that outlives it: the ranks of all trials are forked from this process.
"""

import glob
import json
import logging
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
from datasets import Dataset

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.tasks import TaskFields
from hpstudy.api.transformers import Dataset as DatasetSpec

_log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_TEXT_SUFFIXES = frozenset({".txt"})


class Source:
    """The data set of a study.

    Args:
        spec: what the user wrote.
        fields: the columns that the task reads.
        folder: where relative paths start.
    """

    def __init__(self, spec: DatasetSpec, fields: TaskFields, folder: Path) -> None:
        self._spec = spec
        self._fields = fields
        self._folder = folder

    def train(self) -> Dataset:
        """The training data, from which the other splits are taken where they have no place of their own.

        Raises:
            InvalidStudyError: it cannot be read, is empty or lacks a column.
        """
        spec = self._spec
        place = (spec.split or "train") if spec.name is not None else getattr(spec, _attribute(spec.source))
        return self._read(place, f"dataset.{spec.source}")

    def validation(self) -> Dataset | None:
        """The data of ``validationFrom``."""
        return self._read(self._spec.validation_from, "dataset.validationFrom") if self._spec.validation_from else None

    def test(self) -> Dataset | None:
        """The data of ``testFrom``."""
        return self._read(self._spec.test_from, "dataset.testFrom") if self._spec.test_from else None

    def _read(self, place: str, field: str) -> Dataset:
        try:
            rows = self._load(place)
        except (OSError, ValueError, TypeError, pyarrow.ArrowException) as error:
            text = str(error).strip().partition("\n")[0]
            raise InvalidStudyError(reasons.INVALID_DATASET, f"{field}: cannot read {place}: {text}") from None
        rows = self._rename(rows, place, field)
        if len(rows) == 0:
            raise InvalidStudyError(reasons.INVALID_DATASET, f"{field}: {place} has no rows")
        return rows

    def _load(self, place: str) -> Dataset:
        path = self._folder / place
        image = {**self._fields.columns, **self._spec.columns}.get("image", "")
        match self._spec.source:
            case "name":
                return self._load_by_name(place)
            case "folder":
                return _read_folder(
                    path, image="image" in self._fields.columns, labelled="label" in self._fields.columns
                )
            case "csv":
                frames = [_read_csv(file, image) for file in _files(path)]
                rows = Dataset.from_pandas(pandas.concat(frames, ignore_index=True), preserve_index=False)
            case "json":
                objects = [row for file in _files(path) for row in _read_json(file, image)]
                names = dict.fromkeys(name for row in objects for name in row)  # the first row may lack some
                rows = Dataset.from_dict({name: [row.get(name) for row in objects] for name in names})
            case "parquet":
                files = _files(path)
                rows = _apart(lambda: Dataset(pyarrow.concat_tables(_read_parquet(file, image) for file in files)))
            case _:
                lines = [line for file in _files(path) for line in _text(file).splitlines()]
                rows = Dataset.from_dict({"text": [line for line in lines if line.strip()]})
        return _with_images(rows, image)

    def _load_by_name(self, split: str) -> Dataset:
        spec = self._spec
        name = str(self._folder / str(spec.name)) if (self._folder / str(spec.name)).is_dir() else spec.name
        return _apart(lambda: datasets.load_dataset(name, spec.subset, revision=spec.revision, split=split))

    def _rename(self, rows: Dataset, place: str, field: str) -> Dataset:
        wanted = {**self._fields.columns, **self._spec.columns}
        present = set(rows.column_names)
        chosen = {}
        for role, column in wanted.items():
            if column in present:
                chosen[column] = role
            elif role not in self._fields.optional or role in self._spec.columns:
                raise InvalidStudyError(
                    reasons.INVALID_DATASET,
                    f"{field}: {place} has no column {column}; it has {', '.join(rows.column_names) or 'none'}; "
                    f"dataset.columns can say which of them is the {role}",
                )
        return rows.select_columns(list(chosen)).rename_columns(chosen)


def _attribute(source: str) -> str:
    return "json_" if source == "json" else source


def _apart(load: Callable[[], Dataset]) -> Dataset:
    """Load in a child. Downloads, and Arrow's readers of Parquet, leave threads behind, which must not be here when
    ranks are forked.

    Raises:
        ValueError: with what the child raised.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.NamedTemporaryFile(prefix="hpstudy-rows-") as file:
        ours, theirs = context.Pipe()
        child = context.Process(target=_leave_rows, args=(load, file.name, theirs))
        child.start()
        theirs.close()
        try:
            complaint = ours.recv()
        except EOFError:
            complaint = "the process that loads it was ended"
        child.join()
        if complaint:
            raise ValueError(complaint)
        options = pyarrow.ipc.IpcReadOptions(use_threads=False)
        with pyarrow.ipc.open_stream(file.name, options=options) as stream:
            return Dataset(stream.read_all())


def _leave_rows(load: Callable[[], Dataset], target: str, answer: Connection) -> None:
    complaint = ""
    try:
        table = load().with_format("arrow")[:]
        with pyarrow.ipc.new_stream(target, table.schema) as stream:
            stream.write_table(table)
    except Exception as error:
        complaint = str(error).strip() or type(error).__name__
    answer.send(complaint)


def _files(path: Path) -> list[Path]:
    """The file, or those that a pattern stands for."""
    if path.is_file():
        return [path]
    found = sorted(Path(each) for each in glob.glob(str(path), recursive=True))  # noqa: PTH207  an absolute pattern
    files = [each for each in found if each.is_file()]
    if not files:
        raise FileNotFoundError("it is a folder; give a pattern of its files" if path.is_dir() else "no such file")
    return files


def _text(file: Path) -> str:
    """Without the mark that programs of Windows begin a file with."""
    return file.read_text(encoding="utf-8-sig")


def _read_csv(file: Path, image: str) -> pandas.DataFrame:
    frame = pandas.read_csv(file, dtype=str, keep_default_na=False)
    if image in frame:
        frame[image] = [str(file.parent / path) for path in frame[image]]
    return frame


def _read_parquet(file: Path, image: str) -> pyarrow.Table:
    table = pyarrow.parquet.read_table(file)
    place = table.column_names.index(image) if image in table.column_names else -1
    if place >= 0 and table.schema.field(place).type in (pyarrow.string(), pyarrow.large_string()):
        paths = [path and str(file.parent / path) for path in table.column(place).to_pylist()]
        table = table.set_column(place, image, pyarrow.array(paths, pyarrow.string()))
    return table


def _read_json(file: Path, image: str) -> Iterator[dict[str, Any]]:
    text = _text(file)
    listed = text.lstrip().startswith("[")
    lines = json.loads(text) if listed else text.split("\n")  # splitlines would also split at what a string may hold
    for number, line in enumerate(lines, 1):
        if not listed and not line.strip():
            continue
        try:
            row = line if listed else json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file.name}, line {number}: {error}; give an object a line, or a list of them") from None
        if not isinstance(row, dict):
            raise ValueError(f"{file.name}, {'row' if listed else 'line'} {number}: it is no object")
        if isinstance(row.get(image), str):
            row[image] = str(file.parent / row[image])
        yield row


def _with_images(rows: Dataset, column: str) -> Dataset:
    """Images of a table as such: those that it names by their paths, which start where the table is, and those that it
    holds, as their files' bytes or as the Hub's tables have them."""
    if column not in rows.column_names:
        return rows
    feature = rows.features[column]
    if isinstance(feature, Mapping):
        return rows.cast_column(column, datasets.Image()) if "bytes" in feature else rows
    kind = getattr(feature, "dtype", None)
    if kind in ("string", "large_string"):
        missing = next((path for path in rows[column] if path is None or not Path(path).is_file()), "")
        if missing != "":
            raise FileNotFoundError(f"no image {missing}" if missing else "a row has no image")
    elif kind not in ("binary", "large_binary"):
        return rows
    return rows.cast_column(column, datasets.Image())


def _read_folder(folder: Path, *, image: bool, labelled: bool) -> Dataset:
    """Each file is an example; its folder is its class, as in torchvision's ImageFolder and sklearn's load_files."""
    if not folder.is_dir():
        raise FileNotFoundError("no such folder")
    suffixes = IMAGE_SUFFIXES if image else _TEXT_SUFFIXES
    pattern = "*/**/*" if labelled else "**/*"
    files = sorted(file for file in folder.glob(pattern) if file.suffix.lower() in suffixes and file.is_file())
    if not files:
        where = "folder for each class with" if labelled else "folder with"
        raise FileNotFoundError(f"it is no {where} {', '.join(sorted(suffixes))} files")
    columns: dict[str, list[str]] = {}
    if labelled:
        columns["label"] = [file.relative_to(folder).parts[0] for file in files]
    if image:
        rows = Dataset.from_dict(columns | {"image": [str(file) for file in files]})
        return rows.cast_column("image", datasets.Image())
    return Dataset.from_dict(columns | {"text": [_text(file) for file in files]})
