"""Token classification: named entities."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.entities import entities, entity_scores, is_tag
from tests.training.forms import prepared, run, splits_of, task_spec, write_lines

pytestmark = pytest.mark.filterwarnings("default")

PEOPLE, PLACES, OTHERS = ("anna", "bob", "carl"), ("rome", "oslo", "lima"), ("goes", "to", "sees", "in", "and", "the")


def sentences(count: int) -> Iterator[dict[str, Any]]:
    source = random.Random(0)
    for _ in range(count):
        words, tags = [], []
        for _ in range(source.randint(4, 8)):
            match source.random():
                case chance if chance < 0.2:
                    words.append(source.choice(PEOPLE))
                    tags.append("B-PER")
                case chance if chance < 0.35:
                    words += [source.choice(PEOPLE), source.choice(PEOPLE) + "son"]
                    tags += ["B-PER", "I-PER"]
                case chance if chance < 0.5:
                    words.append(source.choice(PLACES))
                    tags.append("B-LOC")
                case _:
                    words.append(source.choice(OTHERS))
                    tags.append("O")
        yield {"tokens": words, "ner_tags": tags}


def test_entities_are_learnt(tmp_path: Path) -> None:
    data = {"json": write_lines(tmp_path / "ner.json", sentences(300)), "test": 0.1}
    metrics = ["f1", "precision", "recall", "accuracy"]
    arguments = {"num_train_epochs": 3, "per_device_train_batch_size": 16}
    study = task_spec("token-classification", data, "f1", metrics=metrics, arguments=arguments)
    form = prepared(study, tmp_path)
    found, _ = run(form, study, tmp_path, learning_rate=0.01)
    assert found["eval_f1"] > 0.55, "tags at random have 0.1"
    assert found["eval_accuracy"] > 0.75, "O everywhere has 0.4"
    assert abs(found["test_f1"] - found["eval_f1"]) < 0.25
    precision, recall = found["eval_precision"], found["eval_recall"]
    assert found["eval_f1"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_each_word_has_its_tag_at_its_first_token(tmp_path: Path) -> None:
    rows = [{"tokens": ["Rome", "is", "old"], "ner_tags": ["B-LOC", "O", "O"]}, *sentences(10)]
    study = task_spec("token-classification", {"json": write_lines(tmp_path / "d.json", rows)}, "f1")
    form = prepared(study, tmp_path)
    assert list(form._data.labels) == ["B-LOC", "B-PER", "I-PER", "O"]
    row = next(row for data in (form._data.train, form._data.validation) for row in data if len(row["labels"]) == 11)
    tag = {name: index for index, name in enumerate(form._data.labels)}
    no = -100
    assert row["labels"] == [no, tag["B-LOC"], no, no, no, tag["O"], no, tag["O"], no, no, no]


def test_words_and_tags_of_a_csv_are_split_at_white_space(tmp_path: Path) -> None:
    lines = [f"{' '.join(row['tokens'])},{' '.join(row['ner_tags'])}" for row in sentences(20)]
    (tmp_path / "ner.csv").write_text("\n".join(["words,tags", *lines, *lines]))
    data = {"csv": "ner.csv", "columns": {"tokens": "words", "tags": "tags"}}
    study = task_spec("token-classification", data, "f1")
    splits = splits_of(study, tmp_path)
    assert len(splits.train) + len(splits.validation) == 20, "without the duplicates"
    assert prepared(study, tmp_path)._data.labels


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "row 0 has 2 tokens and 1 tags; each needs one"),
        ({"tokens": ["a"], "ner_tags": None}, "the tags of row 0 must be a list, got None"),
        ({"tokens": ["a", None], "ner_tags": ["O", "O"]}, "the tokens of row 0 must be a list, got ['a', None]"),
        ({"tokens": ["a"], "ner_tags": ["NOUN"]}, "NOUN are no tags of such (B-TYPE, I-TYPE, O); set metrics to"),
    ],
)
def test_tags_that_do_not_fit_are_refused(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    rows = [row, *sentences(20), row | {"tokens": ["c"] * len(row["tokens"])}]
    study = task_spec("token-classification", {"json": write_lines(tmp_path / "d.json", rows)}, "f1")
    with pytest.raises(InvalidStudyError) as refusal:
        prepared(study, tmp_path)
    assert complaint in refusal.value.message


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O O O", []),
        ("B-A I-A O B-B", [("A", 0, 1), ("B", 3, 3)]),
        ("B-A B-A", [("A", 0, 0), ("A", 1, 1)]),
        ("I-A I-A O I-B", [("A", 0, 1), ("B", 3, 3)]),
        ("B-A I-B I-B", [("A", 0, 0), ("B", 1, 2)]),
        ("S-A B-B E-B I-B", [("A", 0, 0), ("B", 1, 2), ("B", 3, 3)]),
    ],
)
def test_entities_are_those_of_conlleval(tags: str, found: list[tuple[str, int, int]]) -> None:
    assert list(entities(tags.split())) == found


def test_scores_of_entities_are_those_of_seqeval() -> None:
    """The example of its README."""
    true = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    guessed = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    assert entity_scores(true, guessed) == {"f1": 0.5, "precision": 0.5, "recall": 0.5}
    assert entity_scores([["B-A", "O", "B-A"]], [["B-A", "O", "O"]]) == pytest.approx(
        {"f1": 2 / 3, "precision": 1.0, "recall": 0.5}
    )
    assert entity_scores([["O"]], [["O"]]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    assert [is_tag(name) for name in ("O", "B-PER", "I_X", "PER", "NOUN")] == [True, True, True, False, False]
