"""Extractive question answering: SQuAD's rules, windows, and that it is learnt."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from hpstudy.api.errors import InvalidStudyError
from hpstudy.training.answers import Window, answer_scores, best_answers, exact_match, f1, normalise
from tests.training.forms import prepared, run, splits_of, task_spec, write_lines

pytestmark = pytest.mark.filterwarnings("default")


def questions(count: int) -> Iterator[dict[str, Any]]:
    """Two questions on each context; who is where, of three people."""
    source = random.Random(0)
    for _ in range(count):
        people = source.sample(["anna", "bob", "carl", "dora", "emil"], 3)
        places = [source.choice(["rome", "oslo", "lima", "riga", "kiev"]) for _ in people]
        context = " ".join(f"{person} in {place}." for person, place in zip(people, places, strict=True))
        for asked in source.sample(range(3), 2):
            start = context.index(f"{people[asked]} in ") + len(people[asked]) + 4
            answers = {"text": [places[asked]], "answer_start": [start]}
            yield {"question": f"{people[asked]}?", "context": context, "answers": answers}


def test_answers_are_learnt(tmp_path: Path) -> None:
    data = {"json": write_lines(tmp_path / "qa.json", questions(250)), "maxLength": 64}
    arguments = {"num_train_epochs": 6, "per_device_train_batch_size": 16}
    study = task_spec("question-answering", data, "f1", arguments=arguments)
    form = prepared(study, tmp_path)
    found, recorder = run(form, study, tmp_path, learning_rate=0.005)
    assert found["eval_f1"] > 0.45, "one of the three places at random has 0.33, parts of words 0"
    assert found["eval_exact_match"] <= found["eval_f1"] == max(report["eval_f1"] for report in recorder.metrics)


def test_all_questions_on_a_context_are_in_the_same_split(tmp_path: Path) -> None:
    data = {"json": write_lines(tmp_path / "qa.json", questions(40)), "validation": 0.3, "test": 0.2}
    study = task_spec("question-answering", data, "f1")
    splits = splits_of(study, tmp_path)
    assert splits.test is not None
    parts = [set(part["context"]) for part in (splits.train, splits.validation, splits.test)]
    assert all(parts)
    assert not any(one & other for one in parts for other in parts if one is not other)
    again = splits_of(study, tmp_path)
    assert again.train[:] == splits.train[:]


def test_long_contexts_are_read_in_windows_and_answered_once(tmp_path: Path) -> None:
    """A model that knows the answer gives it, wherever its window is; a window without it is asked for none."""
    rows = [
        {
            "question": "who?",
            "context": f"{n} " + "x" * n + " anna lives here" + "y" * 30,
            "answers": {"text": ["anna"], "answer_start": [len(str(n)) + 2 + n]},
        }
        for n in range(40)
    ]
    data = {"json": write_lines(tmp_path / "qa.json", rows), "maxLength": 40, "stride": 10}
    form = prepared(task_spec("question-answering", data, "f1"), tmp_path)
    evaluated = form._data.validation
    assert len(evaluated) > len(set(evaluated["question_index"])) == 8
    assert max(map(len, evaluated["input_ids"])) == 40
    start, end = (numpy.full((len(evaluated), 40), -5.0) for _ in range(2))
    whole = 0
    for row, window in enumerate(evaluated):
        start[row, window["start_positions"]] = end[row, window["end_positions"]] = 5.0
        whole += window["start_positions"] != window["null"]
    assert 0 < whole < len(evaluated)

    class Prediction:
        predictions = (start, end)

    assert form._task.compute_metrics(Prediction(), evaluated) == {"exact_match": 1.0, "f1": 1.0}
    Prediction.predictions = (end, start)
    assert form._task.compute_metrics(Prediction(), evaluated)["exact_match"] < 0.5


def test_a_question_without_an_answer_is_right_when_none_is_given(tmp_path: Path) -> None:
    offsets = [(0, 0), (0, 0), (0, 4), (5, 9)]
    windows = [Window(0, offsets, 0), Window(1, offsets, 0)]
    start = numpy.array([[9.0, 0, 1, 0], [0.0, 0, 1, 0]])
    found = best_answers(start, start, windows, ["anna bobo", "anna bobo"], 2, may_be_none=True)
    assert found == ["", "anna"]
    assert best_answers(start, start, windows, ["anna bobo"] * 2, 2, may_be_none=False) == ["anna", "anna"]
    assert answer_scores(found, [[], ["anna"]]) == {"exact_match": 1.0, "f1": 1.0}
    assert answer_scores(["anna", ""], [[], ["anna"]]) == {"exact_match": 0.0, "f1": 0.0}


def test_an_answer_is_the_likeliest_pair_in_order_and_not_too_long() -> None:
    offsets = [(0, 0), (0, 1), (2, 3), (4, 5)]
    start, end = numpy.array([[0.0, 5, 1, 4]]), numpy.array([[0.0, 1, 2, 6]])
    text = ["a b c"]
    assert best_answers(start, end, [Window(0, offsets, 0)], text, 3, may_be_none=False) == ["a b c"]
    assert best_answers(start, end, [Window(0, offsets, 0)], text, 2, may_be_none=False) == ["c"]
    assert best_answers(end, start, [Window(0, offsets, 0)], text, 3, may_be_none=False) == ["c"]


def test_scores_are_those_of_squads_script() -> None:
    assert normalise("The  Cat, a dog!") == "cat dog"
    assert exact_match("the Eiffel Tower.", "Eiffel tower") == 1
    assert f1("in the year 1066", "1066") == pytest.approx(2 * (1 / 3) * 1 / (1 / 3 + 1))
    assert f1("a cat cat", "cat") == pytest.approx(2 * 0.5 / 1.5)
    assert f1("dog", "cat") == 0
    scores = answer_scores(["in 1066", "paris"], [["1066", "in 1066"], ["rome"]])
    assert scores == {"exact_match": 0.5, "f1": 0.5}


def test_answers_may_be_text_alone_or_json_in_a_csv(tmp_path: Path) -> None:
    rows = list(questions(15))
    forms = {
        "squad.csv": [{**row, "answers": json.dumps(row["answers"])} for row in rows],
        "text.csv": [{**row, "answers": row["answers"]["text"][0]} for row in rows],
        "start.csv": [
            {**row, "answers": row["answers"]["text"][0], "answer_start": row["answers"]["answer_start"][0]}
            for row in rows
        ],
    }
    forms["floats.csv"] = [{**row, "answer_start": float(row["answer_start"])} for row in forms["start.csv"]]
    found = {}
    for name, written in forms.items():
        import pandas

        pandas.DataFrame(written).to_csv(tmp_path / name, index=False)
        study = task_spec("question-answering", {"csv": name, "maxLength": 64}, "f1")
        form = prepared(study, tmp_path)
        found[name] = [tuple(form._data.train[column]) for column in ("start_positions", "end_positions")]
    assert found["squad.csv"] == found["start.csv"] == found["floats.csv"]


@pytest.mark.parametrize(
    ("change", "dataset", "complaint"),
    [
        (
            {"answers": {"text": ["nobody"], "answer_start": [0]}},
            {},
            "row 0: the answer 'nobody' is not in its context",
        ),
        ({"answers": {"words": ["x"]}}, {}, "the answers of row 0 are neither text nor"),
        ({"answers": {"text": "words", "answer_start": 4}}, {}, "the answers of row 0 are neither text nor"),
        ({"answers": {"text": ["a", "b"], "answer_start": [0]}}, {}, "with as many of the one as of the other"),
        ({"answers": {"text": ["a"], "answer_start": [0.5]}}, {}, "row 0: an answer's start must be a whole number"),
        ({"question": None}, {}, "the question of row 0 is no text, but None"),
        ({"context": None}, {}, "the context of row 0 is no text, but None"),
        ({}, {"maxLength": 12, "stride": 10}, "raise dataset.maxLength or lower dataset.stride"),
        ({}, {"maxLength": 100}, "dataset.maxLength: 100, but the model takes texts of 64 tokens at most"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, change: dict[str, Any], dataset: dict[str, Any], complaint: str
) -> None:
    rows = list(questions(10))
    rows = [row | change for row in rows] if "words" in str(change) else [rows[0] | change, *rows[1:]]
    data = {"json": write_lines(tmp_path / "qa.json", rows)} | dataset
    with pytest.raises(InvalidStudyError) as refusal:
        prepared(task_spec("question-answering", data, "f1"), tmp_path)
    assert complaint in refusal.value.message
