"""Precision, recall and F1 of named entities, as the CoNLL shared tasks count them."""

from collections.abc import Iterable, Iterator, Sequence

Entity = tuple[str, int, int]
"""Type, first token, last token."""


def is_tag(label: str) -> bool:
    """Whether a label is a tag of the schemes BIO (IOB1, IOB2) or BIOES: O, or one of B, I, E, S before a type."""
    return label == "O" or (len(label) > 2 and label[0] in "BIES" and label[1] in "-_")


def entities(tags: Sequence[str]) -> Iterator[Entity]:
    """The entities of a sentence, by the rules of the ``conlleval`` script of CoNLL-2000
    (https://www.clips.uantwerpen.be/conll2000/chunking/), as seqeval reads them in its default mode: I- after O, or
    after another type, begins an entity."""
    kind, begin, before = "", 0, "O"
    for place, tag in enumerate([*tags, "O"]):
        prefix, following = tag[0], tag[2:]
        if kind and (prefix in "BSO" or before in "ES" or following != kind):
            yield kind, begin, place - 1
            kind = ""
        if not kind and prefix != "O":
            kind, begin = following, place
        before = prefix


def entity_scores(true: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]) -> dict[str, float]:
    """Micro averages over all sentences: an entity counts when its type and both its ends are right.

    Returns:
        f1, precision, recall; 0 where there is nothing to divide by.
    """
    correct = found = wanted = 0
    for tags, guesses in zip(true, predicted, strict=True):
        expected, guessed = set(entities(tags)), set(entities(guesses))
        correct += len(expected & guessed)
        found += len(guessed)
        wanted += len(expected)
    precision = correct / found if found else 0.0
    recall = correct / wanted if wanted else 0.0
    return {
        "f1": 2 * precision * recall / (precision + recall) if correct else 0.0,
        "precision": precision,
        "recall": recall,
    }
