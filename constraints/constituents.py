"""Constituents read off dependency trees, by the conventions of the Penn Treebank as far as these decide.

A head with what depends on it is a constituent: of a noun NP, of a preposition PP, of a verb with its subject S and
without it VP, of an adjective ADJP. A noun phrase with modifiers after it has one without them inside, and each
auxiliary opens a VP of its own. What dependencies leave open (adverbs between clauses, gaps) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Span = tuple[int, int, str]

_NOMINAL = frozenset({"NN", "NNS", "NNP", "NNPS", "PRP", "EX", "CD"})
_SUBJECTS = frozenset({"nsubj", "nsubjpass", "expl", "csubj"})
_AFTER = frozenset({"prep", "acl", "relcl", "appos"})
_AUXILIARY = frozenset({"aux", "auxpass"})
_CLAUSES = frozenset({"relcl", "advcl", "ccomp"})


def constituents(document: Any) -> set[Span]:
    """Return (first, last, label) of the constituents of a document that spaCy parsed, words counted from 0.

    Each label stands alone: an S of a VP only is both.
    """
    return {span for token in document for span in _of_head(token) if span[0] <= span[1]}


def _of_head(token: Any) -> Iterator[Span]:
    first, last = _edges(token)
    if token.tag_ in _NOMINAL and token.dep_ not in ("compound", "nummod", "nmod", "quantmod", "amod", "npadvmod"):
        yield from _nominal(token, first, last)
    elif token.dep_ in ("prep", "agent") and last > token.i:
        yield first, last, "PP"
    elif token.tag_.startswith("VB") and token.dep_ not in _AUXILIARY | {"amod", "compound"}:
        yield from _verbal(token)
    elif token.tag_ in ("JJ", "JJR", "JJS", "VBN") and (
        token.dep_ == "acomp" or (token.dep_ == "amod" and first < last)
    ):
        yield first, last, "ADJP"
    elif token.tag_ in ("RB", "RBR", "RBS") and token.dep_ == "advmod":
        yield first, last, "ADVP"
    elif token.dep_ in ("compound", "nmod") and first < last:
        yield first, last, "NML"
    elif token.tag_ == "CD" and token.dep_ in ("nummod", "pobj") and first < token.i:
        yield first, last, "QP"
    if token.tag_ in ("WDT", "WP") and token.dep_ in _SUBJECTS | {"dobj"}:
        yield token.i, token.i, "WHNP"
    elif token.tag_ == "RP":
        yield token.i, token.i, "PRT"


def _nominal(token: Any, first: int, last: int) -> Iterator[Span]:
    yield first, last, "NP"
    conjuncts = [child for child in token.children if child.dep_ == "conj"]
    if conjuncts:  # (NP (NP a pub) and (NP a bar)), or one flat phrase
        yield first, _without(token, {"conj", "cc", "punct"}), "NP"
    after = [child for child in token.children if child.dep_ in _AFTER and child.i > token.i]
    if after:
        yield first, min(_edges(child)[0] for child in after) - 1, "NP"


def _verbal(token: Any) -> Iterator[Span]:
    """Yield the VP of each auxiliary and the verb, the clause around it, and both for all of a conjunction."""
    ends = [_edges(token)[1]]
    if any(child.dep_ == "conj" for child in token.children):
        ends.append(_without(token, {"conj", "cc", "punct"}))
    helpers = [child.i for child in token.children if child.dep_ in _AUXILIARY and child.i < token.i]
    subjects = [_edges(child)[0] for child in token.children if child.dep_ in _SUBJECTS and child.i < token.i]
    before = [
        _edges(child)[0] for child in token.children if child.i < token.i and child.dep_ not in ("mark", "cc", "punct")
    ]
    for end in ends:
        for begin in [*helpers, token.i]:
            yield begin, end, "VP"
        if subjects and (token.dep_ != "ROOT" or end < max(ends)):
            yield min([*subjects, *before]), end, "S"
    if subjects and token.dep_ == "ROOT":
        yield token.sent.start, token.sent.end - 1, "S"
    if token.dep_ in _CLAUSES:
        yield *_edges(token), "SBAR"
    if not subjects and token.dep_ in ("xcomp", "advcl"):
        yield *_edges(token), "S"


def _edges(token: Any) -> tuple[int, int]:
    """Return the first and last word of what depends on a token, punctuation at either end left out."""
    first, last = token.left_edge.i, token.right_edge.i
    while first < token.i and token.doc[first].is_punct:
        first += 1
    while last > token.i and token.doc[last].is_punct:
        last -= 1
    return first, last


def _without(token: Any, dependencies: set[str]) -> int:
    """Return the last word of a token's own part, up to the first child after it of these dependencies."""
    cut = [_edges(child)[0] for child in token.children if child.i > token.i and child.dep_ in dependencies]
    kept = [_edges(child)[1] for child in token.children if child.i > token.i and child.i < min(cut, default=0)]
    return int(max([token.i, *kept]))
