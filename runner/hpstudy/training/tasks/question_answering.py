"""Extractive question answering: the part of a context that answers a question, as in SQuAD."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, Features, List, Value, concatenate_datasets
from transformers import AutoModelForQuestionAnswering, EvalPrediction, PreTrainedConfig, PreTrainedTokenizerBase

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.transformers import DEFAULT_STRIDE, TransformersTrial
from hpstudy.training.answers import Window, answer_scores, best_answers
from hpstudy.training.splits import Identity, Splits
from hpstudy.training.tasks.base import Encoded, ProcessorSource, Task
from hpstudy.training.tasks.token import require_fast
from hpstudy.training.tasks.tokens import TextCollator, inputs_of, limit_length

_QUESTION, _CONTEXT, _ANSWERS, _START = "question", "context", "answers", "answerStart"


@dataclass(frozen=True)
class _Answer:
    text: str
    start: int


class QuestionAnswering(Task):
    """Long contexts are read in overlapping windows; the best answer over all of them counts."""

    auto_model = AutoModelForQuestionAnswering
    peft_task = "QUESTION_ANS"
    unsupported: Mapping[str, str] = {
        "label_smoothing_factor": "the Trainer smooths labels of other tasks only",
    }

    def __init__(self, spec: TransformersTrial) -> None:
        self._spec = spec
        self._longest = 1
        self._may_be_none = False

    def identify(self, rows: Dataset) -> Identity:
        """A context has several questions, which all go where it goes."""
        questions, contexts = _texts(rows, _QUESTION), _texts(rows, _CONTEXT)
        return Identity(
            [pair if all(pair) else None for pair in zip(questions, contexts, strict=True)],
            answers=[tuple(row) for row in _answers(rows)],
            groups=contexts,
        )

    def load_processor(self, source: ProcessorSource, train: Dataset) -> PreTrainedTokenizerBase:
        tokenizer = source.tokenizer(lambda: [*train[_QUESTION], *dict.fromkeys(train[_CONTEXT])])
        require_fast(tokenizer, self._spec.task)
        return tokenizer

    def encode(self, splits: Splits, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> Encoded:
        length = limit_length(self._spec, tokenizer, config)
        stride = self._spec.dataset.stride
        if stride is None:
            stride = min(DEFAULT_STRIDE, length // 3)
        train = self._encode(splits.train, tokenizer, config, length, stride)
        self._longest = max(
            (last - first + 1 for first, last in zip(train["start_positions"], train["end_positions"], strict=True)),
        )
        self._may_be_none = any(not row for row in _answers(splits.train))
        evaluated = [
            _with_truth(self._encode(rows, tokenizer, config, length, stride), rows) if rows is not None else None
            for rows in (splits.validation, splits.test)
        ]
        collate = TextCollator(tokenizer, labels=("start_positions", "end_positions"))
        return Encoded(train, evaluated[0], evaluated[1], collate)

    def preprocess_logits(self, logits: Any, labels: Any) -> Any:
        return tuple(logits[:2])

    def compute_metrics(self, prediction: EvalPrediction, data: Any) -> dict[str, float]:
        start, end = prediction.predictions
        windows = [
            Window(question, offsets, null)
            for question, offsets, null in zip(data["question_index"], data["offsets"], data["null"], strict=True)
        ]
        first = [row for row, window in enumerate(windows) if row == 0 or windows[row - 1].question < window.question]
        contexts, answers = data["context"], data["answers"]
        found = best_answers(
            start, end, windows, [contexts[row] for row in first], self._longest, may_be_none=self._may_be_none
        )
        scores = answer_scores(found, [answers[row] for row in first])
        return {name: scores[name] for name in self._spec.metric_names}

    def _encode(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, length: int, stride: int
    ) -> Dataset:
        contexts, answers = rows[_CONTEXT], _answers(rows)
        right = tokenizer.padding_side == "right"
        questions = [question.strip() for question in rows[_QUESTION]]
        try:
            encoded = tokenizer(
                questions if right else list(contexts),
                list(contexts) if right else questions,
                truncation="only_second" if right else "only_first",
                max_length=length,
                stride=stride,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
        except BaseException as error:  # the tokenizer's own panic is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise InvalidStudyError(
                reasons.INVALID_DATASET,
                f"dataset: a question with a window of its context and a stride of {stride} does not fit into {length} "
                f"tokens; raise dataset.maxLength or lower dataset.stride ({str(error).strip().partition(chr(10))[0]})",
            ) from None
        columns: dict[str, list[Any]] = {name: list(values) for name, values in inputs_of(encoded, config).items()}
        for name in ("start_positions", "end_positions", "question_index", "offsets", "null"):
            columns[name] = []
        side = 1 if right else 0
        for window, question in enumerate(encoded["overflow_to_sample_mapping"]):
            ids = encoded["input_ids"][window]
            offsets = [
                offset if sequence == side else (0, 0)
                for offset, sequence in zip(
                    encoded["offset_mapping"][window], encoded.sequence_ids(window), strict=True
                )
            ]
            null = ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0
            first, last = _positions(offsets, answers[question], null)
            columns["start_positions"].append(first)
            columns["end_positions"].append(last)
            columns["question_index"].append(question)
            columns["offsets"].append(offsets)
            columns["null"].append(null)
        return Dataset.from_dict(columns)


def _with_truth(encoded: Dataset, rows: Dataset) -> Dataset:
    """The windows with what scoring needs beside the logits, at the first window of each question."""
    contexts: list[str] = []
    answers: list[list[str]] = []
    texts, true = rows[_CONTEXT], _answers(rows)
    seen = -1
    for question in encoded["question_index"]:
        contexts.append(texts[question] if question > seen else "")
        answers.append([answer.text for answer in true[question]] if question > seen else [])
        seen = question
    features = Features(context=Value("string"), answers=List(Value("string")))
    return concatenate_datasets(
        [encoded, Dataset.from_dict({"context": contexts, "answers": answers}, features)], axis=1
    )


def _positions(offsets: Sequence[tuple[int, int]], answers: Sequence[_Answer], null: int) -> tuple[int, int]:
    """Tokens of the first answer's ends; where the window does not have it whole, the token that stands for none."""
    if not answers:
        return null, null
    begin, end = answers[0].start, answers[0].start + len(answers[0].text)
    inside = [place for place, (left, right) in enumerate(offsets) if right > left and left < end and right > begin]
    if not inside or offsets[inside[0]][0] > begin or offsets[inside[-1]][1] < end:
        return null, null
    return inside[0], inside[-1]


def _texts(rows: Dataset, column: str) -> list[str]:
    texts = rows[column]
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidStudyError(
                reasons.INVALID_DATASET, f"dataset: the {column} of row {number} is no text, but {text!r:.80}"
            )
    return [text.strip() for text in texts]


def _answers(rows: Dataset) -> list[list[_Answer]]:
    """The answers of each question: SQuAD's {text: [...], answer_start: [...]}, the same as JSON in a string, or a
    string with the answer itself, whose place is in a column of its own or where it first appears.

    Raises:
        InvalidStudyError: an answer is not where it is said to be.
    """
    starts = rows[_START] if _START in rows.column_names else [None] * len(rows)
    return [
        _answers_of(answers, start, context, number)
        for number, (answers, start, context) in enumerate(zip(rows[_ANSWERS], starts, rows[_CONTEXT], strict=True))
    ]


def _answers_of(answers: Any, start: Any, context: str, number: int) -> list[_Answer]:
    if isinstance(answers, str) and answers.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            answers = json.loads(answers)
    if isinstance(answers, str) or answers is None:
        texts: list[str] = [answers] if answers else []
        starts = [context.find(text) if start in (None, "") else _place(start, number) for text in texts]
    elif isinstance(answers, Mapping) and _is_listed(answers):
        texts, starts = list(answers["text"]), [_place(start, number) for start in answers["answer_start"]]
    else:
        raise InvalidStudyError(
            reasons.INVALID_DATASET,
            f"dataset: the answers of row {number} are neither text nor {{text: [...], answer_start: [...]}} with as "
            "many of the one as of the other",
        )
    for text, place in zip(texts, starts, strict=True):
        if place < 0 or context[place : place + len(text)] != text:
            raise InvalidStudyError(
                reasons.INVALID_DATASET, f"dataset: row {number}: the answer {text!r:.80} is not in its context there"
            )
    return [_Answer(text, place) for text, place in zip(texts, starts, strict=True)]


def _is_listed(answers: Mapping[str, Any]) -> bool:
    texts, starts = answers.get("text"), answers.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return False
    return all(isinstance(text, str) for text in texts)


def _place(start: Any, number: int) -> int:
    """A whole number, also as pandas writes it into a CSV where some rows have none: 4.0."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if float(start).is_integer():
            return int(float(start))
    raise InvalidStudyError(
        reasons.INVALID_DATASET, f"dataset: row {number}: an answer's start must be a whole number, got {start!r:.80}"
    )
