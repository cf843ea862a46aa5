"""Answers from the logits of their ends, and how they are scored: the rules of SQuAD.

Normalisation and scores are those of the evaluation script of SQuAD v1.1 (Rajpurkar et al., 2016,
https://rajpurkar.github.io/SQuAD-explorer/); where a question has no answer, those of v2.0: right is to give none.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(answer: str) -> str:
    """Lower case, without punctuation, articles and superfluous white space."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, true: str) -> float:
    """1 when both are the same after normalisation, else 0."""
    return float(normalise(predicted) == normalise(true))


def f1(predicted: str, true: str) -> float:
    """Of the words that both have, after normalisation."""
    found, wanted = normalise(predicted).split(), normalise(true).split()
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    if not common:
        return 0.0
    precision, recall = common / len(found), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def answer_scores(predicted: Iterable[str], true: Iterable[Sequence[str]]) -> dict[str, float]:
    """Means over all questions, from 0 to 1 (SQuAD's script says percent); of several true answers the nearest counts.

    Args:
        true: the answers of each question; none where it cannot be answered.
    """
    exact, overlap, count = 0.0, 0.0, 0
    for guess, answers in zip(predicted, true, strict=True):
        exact += max(exact_match(guess, answer) for answer in answers or [""])
        overlap += max(f1(guess, answer) for answer in answers or [""])
        count += 1
    return {"exact_match": exact / max(count, 1), "f1": overlap / max(count, 1)}


@dataclass(frozen=True)
class Window:
    """A part of a context, as the model saw it.

    Attributes:
        question: which question it belongs to.
        offsets: of each token, where it begins and ends in the context; (0, 0) for one of the question or between.
        null: place of the token that stands for no answer.
    """

    question: int
    offsets: Sequence[Sequence[int]]
    null: int


def best_answers(
    start: Any, end: Any, windows: Iterable[Window], contexts: Sequence[str], longest: int, *, may_be_none: bool
) -> list[str]:
    """The most likely answer to each question over all windows of its context.

    Args:
        start, end: logits of shape (windows, tokens).
        contexts: of each question.
        longest: tokens of an answer at most.
        may_be_none: "" is an answer, where its logits are above those of all others.
    """
    best: list[tuple[float, str]] = [(-numpy.inf, "")] * len(contexts)
    nulls = numpy.full(len(contexts), numpy.inf)
    for row, window in enumerate(windows):
        offsets = numpy.asarray(window.offsets)
        places = numpy.flatnonzero(offsets[:, 1] > offsets[:, 0])
        starts, ends = start[row, : len(offsets)], end[row, : len(offsets)]
        nulls[window.question] = min(nulls[window.question], starts[window.null] + ends[window.null])
        if not len(places):
            continue
        scores = starts[places][:, None] + ends[places][None, :]
        distance = places[None, :] - places[:, None]
        scores[(distance < 0) | (distance >= longest)] = -numpy.inf
        first, last = numpy.unravel_index(scores.argmax(), scores.shape)
        if scores[first, last] > best[window.question][0]:
            context = contexts[window.question]
            text = context[offsets[places[first]][0] : offsets[places[last]][1]]
            best[window.question] = (float(scores[first, last]), text)
    return ["" if may_be_none and nulls[question] > score else text for question, (score, text) in enumerate(best)]
