"""Labelled text from a CSV file, split so that nothing leaks."""

import logging
from dataclasses import dataclass
from pathlib import Path

import pandas
from sklearn.model_selection import train_test_split

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.trials import Dataset

_log = logging.getLogger(__name__)

SPLIT_SEED = 0
"""Every trial of every study of the same file sees the same split: only then do values compare."""


@dataclass(frozen=True)
class Split:
    """Texts and their classes, as indices into the names of the classes."""

    texts: list[str]
    labels: list[int]


@dataclass(frozen=True)
class TextDataset:
    """A data set for classification. ``test`` is empty when none was asked for."""

    classes: list[str]
    train: Split
    validation: Split
    test: Split


def read_text_dataset(dataset: Dataset, folder: Path) -> TextDataset:
    """Read, clean and split the file: each split has the same shares of the classes.

    A text that appears more than once is kept once, or else the test set would hold what was trained on; one that
    appears with different labels is dropped.

    Raises:
        InvalidStudyError: no such file, no such column, or too few rows.
    """
    path = folder / dataset.csv
    try:
        rows = pandas.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InvalidStudyError(reasons.INVALID_DATASET, f"dataset.csv: cannot read {path}: {error}") from None
    missing = [column for column in (dataset.text_column, dataset.label_column) if column not in rows]
    if missing:
        raise InvalidStudyError(
            reasons.INVALID_DATASET,
            f"dataset.csv: {path} has no column {' and '.join(missing)}; it has {', '.join(map(str, rows.columns))}",
        )
    rows = rows.rename(columns={dataset.text_column: "text", dataset.label_column: "label"})[["text", "label"]]
    rows = _unique(rows)
    if dataset.max_rows is not None and dataset.max_rows < len(rows):
        rows = rows.sample(dataset.max_rows, random_state=SPLIT_SEED)
    classes = sorted(rows["label"].unique())
    counts = rows["label"].value_counts()
    if len(classes) < 2 or counts.min() < 3:
        raise InvalidStudyError(
            reasons.INVALID_DATASET,
            f"dataset.csv: {path} needs two classes or more with three rows or more each; it has "
            + (", ".join(f"{label!r}: {count}" for label, count in counts.items()) or "no rows"),
        )
    try:
        train, rest = _split(rows, dataset.validation + dataset.test)
        validation, test = _split(rest, dataset.test / (dataset.validation + dataset.test))
    except ValueError as error:
        raise InvalidStudyError(reasons.INVALID_DATASET, f"dataset.csv: {path} cannot be split: {error}") from None
    index = {label: number for number, label in enumerate(classes)}
    splits = (
        Split(list(part["text"]), [index[label] for label in part["label"]]) for part in (train, validation, test)
    )
    return TextDataset(classes, *splits)


def _unique(rows: pandas.DataFrame) -> pandas.DataFrame:
    total = len(rows)
    rows = rows.assign(text=rows["text"].str.strip())
    rows = rows[rows["text"] != ""].drop_duplicates()
    rows = rows.drop_duplicates("text", keep=False)  # what is left twice has two labels
    if len(rows) < total:
        _log.info("removed %d of %d rows: empty, duplicate, or with two labels", total - len(rows), total)
    return rows


def _split(rows: pandas.DataFrame, share: float) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    if share <= 0:
        return rows, rows.iloc[:0]
    first, second = train_test_split(rows, test_size=share, random_state=SPLIT_SEED, stratify=rows["label"])
    return first, second
