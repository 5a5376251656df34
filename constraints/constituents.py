"""Constituents read off dependency trees, by the conventions of the Penn Treebank as far as these decide.

A head with what depends on it is a constituent: of a noun NP, of a preposition PP, of a verb with its subject S and
without it VP, of an adjective ADJP. A noun phrase with modifiers after it has one without them inside, and each
auxiliary opens a VP of its own; a name after "called" is a clause without a verb. What dependencies leave open (adverbs
between clauses, gaps) is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from guided_dlm.parsing.grammar import Tagged
from guided_dlm.parsing.spans import Span, is_preterminal

if TYPE_CHECKING:
    from nltk.tree import Tree

FRAGMENT = "FRAG"  # what is no constituent
# outermost first
LABELS = (FRAGMENT, "SBAR", "S", "NP", "VP", "PP", "ADJP", "ADVP", "QP", "NML", "WHNP", "WHADVP", "PRT")

_NOMINAL = frozenset({"NN", "NNS", "NNP", "NNPS", "PRP", "EX", "CD"})
_SUBJECTS = frozenset({"nsubj", "nsubjpass", "expl", "csubj"})
_AFTER = frozenset({"prep", "acl", "relcl", "appos"})
_AUXILIARY = frozenset({"aux", "auxpass"})
_CLAUSES = frozenset({"relcl", "advcl", "ccomp"})
_BARE = frozenset({"xcomp", "advcl", "pcomp"})  # clauses without a subject of their own
_RELATIVE = frozenset({"WDT", "WP", "WP$", "WRB"})


def constituents(document: Any) -> set[Span]:
    """Return (first, last, label) of the constituents of a document that spaCy parsed, words counted from 0.

    Each label stands alone: an S of a VP only is both.
    """
    return {span for token in document for span in _of_head(token) if span[0] <= span[1]}


def nested(tagged: Tagged, spans: Iterable[Span]) -> Tree | None:
    """Return the tree of (word, tag) pairs with these constituents; None where two of them cross.

    Words that have no constituent around them all get FRAG.
    """
    from nltk.tree import Tree

    top = Tree(FRAGMENT, [])
    unfinished = [(len(tagged) - 1, top)]
    starting: defaultdict[int, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (-span[1], LABELS.index(span[2]))):
        starting[span[0]].append(span)
    for place, (word, tag) in enumerate(tagged):
        for _, last, label in starting[place]:
            end, above = unfinished[-1]
            if last > end:
                return None
            above.append(Tree(label, []))
            unfinished.append((last, above[-1]))
        unfinished[-1][1].append(Tree(tag, [word]))
        while len(unfinished) > 1 and unfinished[-1][0] == place:
            unfinished.pop()
    return top[0] if len(top) == 1 and not is_preterminal(top[0]) else top


def _of_head(token: Any) -> Iterator[Span]:
    first, last = _edges(token)
    if token.tag_ in _NOMINAL and token.dep_ not in ("compound", "nummod", "nmod", "quantmod", "amod", "npadvmod"):
        yield from _nominal(token, first, last)
    elif token.dep_ in ("prep", "agent") and last > token.i:
        yield first, last, "PP"
    elif token.tag_.startswith("VB") and token.dep_ not in _AUXILIARY | {"amod", "compound"}:
        yield from _verbal(token)
    elif token.tag_ in ("JJ", "JJR", "JJS", "VBN") and (
        token.dep_ in ("acomp", "oprd") or (token.dep_ == "amod" and first < last)
    ):
        yield first, last, "ADJP"
    elif token.tag_ in ("RB", "RBR", "RBS") and token.dep_ == "advmod" and (first < last or _is_of_clause(token.head)):
        yield first, last, "ADVP"
    elif token.dep_ in ("compound", "nmod") and first < last:
        yield first, last, "NML"
    elif token.tag_ == "CD" and token.dep_ in ("nummod", "pobj") and first < token.i:
        yield first, last, "QP"
    if token.tag_ in ("WDT", "WP") and token.dep_ in _SUBJECTS | {"dobj"}:
        yield token.i, token.i, "WHNP"
    elif token.tag_ == "WRB" and token.dep_ == "advmod":
        yield token.i, token.i, "WHADVP"
    elif token.tag_ == "RP":
        yield token.i, token.i, "PRT"
    if token.dep_ == "oprd":  # (VP (VBN called) (S (NP Giraffe)))
        yield first, last, "S"


def _nominal(token: Any, first: int, last: int) -> Iterator[Span]:
    yield first, last, "NP"
    conjuncts = [child for child in token.children if child.dep_ == "conj"]
    if conjuncts:  # (NP (NP a pub) and (NP a bar)), or one flat phrase
        yield first, _own_end(token), "NP"
    after = [child for child in token.children if child.dep_ in _AFTER and child.i > token.i]
    if after:
        yield first, min(_edges(child)[0] for child in after) - 1, "NP"


def _verbal(token: Any) -> Iterator[Span]:
    """Yield the VP of each auxiliary and the verb, the clause around it, and both for all that is joined to it."""
    first, last = _edges(token)
    joined = sorted(_joined(token), key=lambda verb: verb.i)
    sharing = list(takewhile(lambda verb: not _subjects(verb), joined))  # its subject is theirs
    own = _own_end(token)
    shared = _own_end(sharing[-1]) if sharing else own
    helpers = [child for child in token.children if child.dep_ in _AUXILIARY and child.i < token.i]
    begins = [*(helper.i for helper in helpers), token.i]
    helped = bool(helpers and sharing) and _takes_helpers_of(sharing[0], token)
    for begin in begins:
        yield begin, shared if helped else own, "VP"
    if sharing and (_subjects(token) or token.dep_ != "conj"):
        yield begins[-1 if helped else 0], own if helped else shared, "VP"
    begin = min([*begins, *(_edges(child)[0] for child in token.children if _is_inside(child, token))])
    if token.dep_ in _CLAUSES and (_subjects(token) or begin > first):
        yield first, last, "SBAR"
    if _subjects(token) and token.dep_ == "ROOT":
        yield token.sent.start, token.sent.end - 1, "S"
    elif _subjects(token) or token.dep_ in _BARE or any(helper.tag_ == "TO" for helper in helpers):
        yield begin, shared if token.dep_ == "conj" else last, "S"
    if _subjects(token) and len(sharing) < len(joined):
        yield begin, shared, "S"


def _joined(verb: Any) -> Iterator[Any]:
    for child in verb.children:
        if child.dep_ == "conj":
            yield child
            yield from _joined(child)


def _takes_helpers_of(verb: Any, first: Any) -> bool:
    """Whether a verb shares the auxiliaries of the first: "is located and rated", not "is called X and serves Y"."""
    return bool(verb.tag_ == first.tag_) and not any(child.dep_ in _AUXILIARY for child in verb.children)


def _subjects(token: Any) -> list[Any]:
    return [child for child in token.children if child.dep_ in _SUBJECTS and child.i < token.i]


def _is_inside(child: Any, verb: Any) -> bool:
    """Whether what stands before a verb is of its clause: a relative pronoun, and its phrase, stand before that."""
    if child.i > verb.i or child.dep_ in ("mark", "cc", "punct"):
        return False
    return not any(token.tag_ in _RELATIVE for token in child.subtree)


def _is_of_clause(head: Any) -> bool:
    """Whether an adverb of this head is a phrase: those of nouns and adjectives are none, if they are one word."""
    return bool(head.tag_.startswith("VB")) and head.dep_ != "amod"


def _edges(token: Any) -> tuple[int, int]:
    """Return the first and last word of what depends on a token, punctuation at either end left out."""
    first, last = token.left_edge.i, token.right_edge.i
    while first < token.i and token.doc[first].is_punct:
        first += 1
    while last > token.i and token.doc[last].is_punct:
        last -= 1
    return first, last


def _own_end(token: Any) -> int:
    """Return the last word of a token's own part, before what is joined to it."""
    after = [child for child in token.children if child.i > token.i]
    cut = min((_edges(child)[0] for child in after if child.dep_ in ("conj", "cc")), default=len(token.doc))
    return int(max([token.i, *(_edges(child)[1] for child in after if child.i < cut and child.dep_ != "punct")]))
