"""What texts take over from each other and from the texts that a model was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from guided_dlm.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True)
class Copying:
    """How much of texts stands in training texts.

    `mean_run` and `longest_run` are over the texts, of the longest run of consecutive words of each that stands in one
    training text; `verbatim` is the share of texts that are a training text, word for word.
    """

    mean_run: float
    longest_run: int
    verbatim: float


def copying(texts: Sequence[str], training: Collection[str]) -> Copying:
    """Compare texts with training texts, by white-space words and with their case.

    Raises:
        InvalidRequest: there is no text.
    """
    _refuse_none(texts)
    runs = longest_runs(texts, training)
    whole = {" ".join(text.split()) for text in training}
    return Copying(
        mean_run=sum(runs) / len(runs),
        longest_run=max(runs),
        verbatim=sum(" ".join(text.split()) in whole for text in texts) / len(texts),
    )


def longest_runs(texts: Sequence[str], training: Collection[str]) -> list[int]:
    """Return how many consecutive words of each text stand in one training text, at most.

    A run of n words begins with a run of n - 1: so runs grow by a word at a time, and only where one of that length
    stood is the training text read again. That is few places beyond some five words.
    """
    split = [text.split() for text in texts]
    corpus = tuple(word for text in training for word in (*text.split(), None))  # no run crosses a None
    runs, places = [0] * len(split), list(range(len(corpus)))
    for n in range(1, 1 + max(map(len, split), default=0)):
        grams = {i: _grams(words, n) for i, words in enumerate(split) if runs[i] == n - 1}
        asked = set().union(*grams.values())
        places = [place for place in places if corpus[place : place + n] in asked]
        found = {corpus[place : place + n] for place in places}
        if not found:
            break
        for i, own in grams.items():
            runs[i] += not own.isdisjoint(found)
    return runs


def _grams(words: Sequence[str], n: int) -> set[tuple[str | None, ...]]:
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def duplicates(texts: Sequence[str]) -> float:
    """Return the share of texts that are equal to another of them: 2/3 of ["a", "a", "b"].

    Raises:
        InvalidRequest: there is no text.
    """
    _refuse_none(texts)
    return sum(count for count in Counter(texts).values() if count > 1) / len(texts)


def _refuse_none(texts: Sequence[str]) -> None:
    if not texts:
        raise InvalidRequest("There is no text to measure.")
