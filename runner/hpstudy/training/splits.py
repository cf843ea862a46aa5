"""Splitting rows into training, validation and test data, so that nothing leaks from one to another."""

import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas
from datasets import Dataset
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.transformers import Dataset as DatasetSpec
from hpstudy.training.sources import Source

_log = logging.getLogger(__name__)

SPLIT_SEED = 0
"""Every trial of every study of the same file sees the same split: only then do values compare."""
_FEWEST_IN_A_CLASS = 3


@dataclass(frozen=True)
class Identity:
    """What decides where a row may go; each sequence has one entry for each row.

    Attributes:
        keys: rows with the same key are duplicates; one of an empty key (None) is dropped.
        answers: duplicates with different answers contradict each other.
        strata: every split gets the same shares of them.
        groups: rows of the same group go into the same split.
    """

    keys: Sequence[Hashable]
    answers: Sequence[Hashable] | None = None
    strata: Sequence[str] | None = None
    groups: Sequence[Hashable] | None = None


class Identify(Protocol):
    """The task's view of its rows."""

    def __call__(self, rows: Dataset) -> Identity: ...


@dataclass(frozen=True)
class Splits:
    """Rows by what they are for; ``test`` is None where there are none."""

    train: Dataset
    validation: Dataset
    test: Dataset | None


def read_splits(source: Source, spec: DatasetSpec, identify: Identify) -> Splits:
    """Read all splits. What has no place of its own is a share of the training data, without its duplicates: a row that
    appears more than once is kept once, or else the test set would hold what was trained on; one that appears with
    different answers is dropped. Splits that the user gives are taken as they are.

    Raises:
        InvalidStudyError: a source cannot be read, or has too few rows to split.
    """
    rows, validation, test = source.train(), source.validation(), source.test()
    identity = identify(rows)
    kept = _unique(identity) if validation is None or spec.test else range(len(rows))
    table = pandas.DataFrame({"row": list(kept)})
    if spec.max_rows is not None and spec.max_rows < len(table):
        table = table.sample(spec.max_rows, random_state=SPLIT_SEED)
    chosen = [int(row) for row in table["row"]]
    if identity.strata is not None:
        _check_classes([identity.strata[row] for row in chosen], spec)
    share = spec.validation_share
    if share + spec.test > 0:
        train, rest = _split(chosen, share + spec.test, identity, spec)
        validation_rows, test_rows = _split(rest, spec.test / (share + spec.test), identity, spec)
    else:
        train, validation_rows, test_rows = chosen, [], []
    if identity.strata is None:  # lines that follow one another, say; the Trainer shuffles where order is nothing
        train, validation_rows, test_rows = sorted(train), sorted(validation_rows), sorted(test_rows)
    if validation is not None:
        _warn_of_leaks(rows.select(train), validation, identify)
    return Splits(
        train=rows.select(train),
        validation=rows.select(validation_rows) if validation is None else validation,
        test=(rows.select(test_rows) if test_rows else None) if test is None else test,
    )


def _unique(identity: Identity) -> list[int]:
    answers: dict[Hashable, set[Hashable]] = {}
    first: dict[Hashable, int] = {}
    for row, key in enumerate(identity.keys):
        if key is not None:
            first.setdefault(key, row)
            answers.setdefault(key, set()).add(identity.answers[row] if identity.answers is not None else None)
    kept = [row for key, row in first.items() if len(answers[key]) == 1]
    if len(kept) < len(identity.keys):
        removed = len(identity.keys) - len(kept)
        _log.info("removed %d of %d rows: empty, duplicate, or with two answers", removed, len(identity.keys))
    return kept


def _split(rows: list[int], share: float, identity: Identity, spec: DatasetSpec) -> tuple[list[int], list[int]]:
    """Put a share of the rows aside."""
    if share <= 0:
        return rows, []
    if share >= 1:
        return [], rows
    strata = [identity.strata[row] for row in rows] if identity.strata is not None else None
    counts = Counter(strata or ())
    field = f"dataset.{spec.source}"
    try:
        if identity.groups is not None:
            splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=SPLIT_SEED)
            first, second = next(splitter.split(rows, groups=_numbered([identity.groups[row] for row in rows])))
            return [rows[place] for place in first], [rows[place] for place in second]
        first, second = train_test_split(rows, test_size=share, random_state=SPLIT_SEED, stratify=strata)
        return first, second
    except ValueError as error:
        shares = ", ".join(f"{label!r}: {count}" for label, count in counts.most_common())
        raise InvalidStudyError(
            reasons.INVALID_DATASET,
            f"{field}: its {len(rows)} rows cannot be split: {error}" + (f"; it has {shares}" if shares else ""),
        ) from None


def _numbered(groups: Sequence[Hashable]) -> list[int]:
    """Groups as numbers in the order of their first rows: hashes of strings are others in every process."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(group, len(numbers)) for group in groups]


def _check_classes(strata: Sequence[str], spec: DatasetSpec) -> None:
    """There must be something to tell apart, and enough of each to be in every split."""
    counts = Counter(strata)
    few = _FEWEST_IN_A_CLASS if spec.validation_from is None else 1
    if len(counts) < 2 or min(counts.values()) < few:
        raise InvalidStudyError(
            reasons.INVALID_DATASET,
            f"dataset.{spec.source}: it needs two classes or more with three rows or more each; it has "
            + (", ".join(f"{label!r}: {count}" for label, count in counts.most_common()) or "no rows"),
        )


def _warn_of_leaks(train: Dataset, validation: Dataset, identify: Identify) -> None:
    seen = set(identify(train).keys)
    shared = sum(key in seen for key in identify(validation).keys)
    if shared:
        _log.warning("%d of %d validation rows are in the training data too", shared, len(validation))
