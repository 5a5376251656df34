"""Whether texts do what a target asks, by the rules of Diffusion-LM's tables (2205.14217) and by stricter ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guided_dlm.errors import InvalidRequest
from guided_dlm.evaluation.bracketing import cut_or_padded, parse
from guided_dlm.evaluation.tagging import nltk_tags, spacy_tags, tokenize
from guided_dlm.parsing.spans import Span, bracket_f1, read_tree, spans_of

MARKS = frozenset({"START", "END", "PAD"})


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A text without START, END and PAD: its white-space runs, and its tokens by spaCy's blank English tokenizer."""

    runs: tuple[str, ...]
    tokens: tuple[str, ...]

    @property
    def joined(self) -> str:
        """The tokens with one space between them."""
        return " ".join(self.tokens)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A number from 0 to 1 for each text: by the published rule and by the stricter one.

    `second` is the published rule with the tags, or trees, of a second judge; None where there is none.
    """

    published: list[float]
    strict: list[float]
    second: list[float] | None = None


def read_text(text: str) -> Reading:
    """Drop START, END and PAD where they stand as words of their own, and tokenise again."""
    runs = tuple(run for run in text.split() if run not in MARKS)
    return Reading(runs=runs, tokens=tuple(tokenize(" ".join(runs))))


def semantic_scores(texts: Sequence[Reading], value: str) -> Scores:
    """Published: the value is a substring of the joined tokens. Stricter: it has no letter or digit next to it."""
    whole = re.compile(rf"(?<!\w){re.escape(value)}(?!\w)")
    return Scores(
        published=[float(value in text.joined) for text in texts],
        strict=[float(whole.search(text.joined) is not None) for text in texts],
    )


def length_scores(texts: Sequence[Reading], length: int) -> Scores:
    """Published: the text has so many tokens. Stricter: it has so many white-space runs as well."""
    published = [len(text.tokens) == length for text in texts]
    strict = [right and len(text.runs) == length for right, text in zip(published, texts, strict=True)]
    return Scores(published=list(map(float, published)), strict=list(map(float, strict)))


def pos_scores(texts: Sequence[Reading], tags: Sequence[str]) -> Scores:
    """Published: share of positions with the target's tag. Stricter: the whole sequence of tags is the target's.

    Raises:
        InvalidRequest: no spaCy pipeline is installed.
    """
    tokens = [text.tokens for text in texts]
    first, second = spacy_tags(tokens), nltk_tags(tokens)
    return Scores(
        published=[tag_share(found, tags) for found in first],
        strict=[float(found == list(tags)) for found in first],
        second=None if second is None else [tag_share(found, tags) for found in second],
    )


def span_scores(texts: Sequence[Reading], span: Span) -> Scores:
    """The judge's tree has the span, with its whole chain of labels; no stricter rule is needed.

    Raises:
        InvalidRequest: the judge's data are not installed.
    """
    found = [float(bool(text.tokens) and span in spans_of(parse(text.tokens))) for text in texts]
    return Scores(published=found, strict=found)


def tree_scores(texts: Sequence[Reading], tree: str) -> Scores:
    """Published: labelled bracketing F1 of the text, cut or padded with "." to the tree's leaves.

    Stricter: the text as it is has exactly the target's constituents.

    Raises:
        InvalidRequest: the judge's data are not installed.
    """
    target = read_tree(tree)
    gold, length = spans_of(target), len(target.leaves())
    published = [bracket_f1(spans_of(parse(cut_or_padded(text.tokens, length))), gold) for text in texts]
    strict = [float(bool(text.tokens) and spans_of(parse(text.tokens)) == gold) for text in texts]
    return Scores(published=published, strict=strict)


def tag_share(found: Sequence[str], target: Sequence[str]) -> float:
    """Return the share of the target's positions that have its tag; `found` is cut, or padded with what is wrong."""
    return sum(a == b for a, b in zip(found, target, strict=False)) / len(target)


def bootstrap(values: Sequence[float], draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean of these values: percentiles of the means of resamples.

    Raises:
        InvalidRequest: there is no value.
    """
    if not values:
        raise InvalidRequest("There is no value to take the mean of.")
    drawn = np.random.default_rng(seed).choice(np.asarray(values, dtype=np.float64), size=(draws, len(values)))
    low, high = np.percentile(drawn.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
