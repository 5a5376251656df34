"""Trees as sets of labelled spans: reading brackets, unary chains joined, labelled F1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from guided_dlm.errors import InvalidRequest

if TYPE_CHECKING:
    from nltk.tree import Tree

Span = tuple[int, int, str]
JOIN = "::"
_ROOTS = frozenset({"", "ROOT", "TOP"})


def read_tree(text: str) -> Tree:
    """Read one bracketed tree, or several under an unnamed root, ROOT or TOP.

    Raises:
        InvalidRequest: brackets do not match, a node has no label or no child, or there is more than one tree.
    """
    from nltk.tree import Tree  # seconds to import, so only where trees are read

    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            raise InvalidRequest(f"Brackets: one closes at position {place} that was never opened, in {text!r}.")
    if depth:
        raise InvalidRequest(f"Brackets: {depth} opened and never closed, in {text!r}.")
    try:
        tree = Tree.fromstring(text)
    except ValueError as error:
        raise InvalidRequest(
            f"Brackets: {text!r} is no tree; write it like '(S (NP (DT the) (NN pub)) ...)'."
        ) from error
    while tree.label() in _ROOTS and len(tree) == 1 and not isinstance(tree[0], str):
        tree = tree[0]
    for node in tree.subtrees():
        if not len(node) or (node.label() in _ROOTS and node is not tree):
            raise InvalidRequest(f"Brackets: every node needs a label and a child, in {text!r}.")
    return tree


def spans_of(tree: Tree) -> list[Span]:
    """Return (first, last, label) of each constituent, words counted from 0, last included.

    Pre-terminals are none, nor is a root above several trees. Constituents of the same words are one, their labels
    joined from the outermost by "::", as in the published targets.
    """
    return list(_spans(tree, 0))


def _spans(tree: Tree, begin: int) -> Iterator[Span]:
    labels = []
    while not is_preterminal(tree):
        if tree.label() not in _ROOTS:
            labels.append(tree.label())
        if len(tree) > 1 or isinstance(tree[0], str):
            break
        tree = tree[0]
    if labels:
        yield begin, begin + len(tree.leaves()) - 1, JOIN.join(labels)
    if is_preterminal(tree):
        return
    for child in tree:
        if not isinstance(child, str):
            yield from _spans(child, begin)
        begin += 1 if isinstance(child, str) else len(child.leaves())


def is_preterminal(tree: Tree) -> bool:
    """Whether a node is a part of speech: it has one child, a word."""
    return len(tree) == 1 and isinstance(tree[0], str)


def bracket_f1(found: Sequence[Span], gold: Sequence[Span]) -> float:
    """Return labelled bracketing F1 of one sentence; labels of a unary chain count together, as one."""
    common = (Counter(found) & Counter(gold)).total()
    return 2 * common / max(1, len(found) + len(gold))
