"""A probabilistic grammar over tags, counted from trees (Klein and Manning, 2003: markovised, parents annotated)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from guided_dlm.errors import InvalidRequest
from guided_dlm.parsing.chart import Rules, best_tree
from guided_dlm.parsing.spans import JOIN, is_preterminal

if TYPE_CHECKING:
    from nltk.tree import Tree

ROOT = "TOP"
_ENDS = frozenset(".!?")
_MADE, _UP = "@", "^"
_SPLIT = re.compile(r"[-=|].*")  # what follows a label: its function, and traces
_MEMORIES = ((1, 1.0), (0, 0.05))  # how many children to the left binarisation remembers, and how much that counts
Tagged = Sequence[tuple[str, str]]
Rule = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TreeGrammar:
    """Rules with log-probabilities: `binary` (A, B, C), and `leaf` (A, tag).

    A symbol is a chain of labels with the label above it, or one made by binarisation, which knows the child to its
    left; with a small weight also one that does not, so that sequences of children that no tree had can be parsed.
    """

    binary: Mapping[tuple[str, str, str], float]
    leaf: Mapping[tuple[str, str], float]

    @classmethod
    def count(cls, trees: Iterable[Tree]) -> TreeGrammar:
        """Count the rules of trees over words; empty elements and the functions of labels are left out.

        Raises:
            InvalidRequest: there is no tree.
        """
        counts: Counter[Rule] = Counter()
        for tree in map(clean, trees):
            for memory, weight in _MEMORIES:
                for rule in _rules(tree, ROOT, memory) if tree is not None else ():
                    counts[rule] += weight  # type: ignore[assignment]
        if not counts:
            raise InvalidRequest("A grammar is counted from trees, and there is none.")
        total: Counter[str] = Counter()
        for rule, number in counts.items():
            total[rule[0]] += number
        logs: dict[Rule, float] = {rule: math.log(number / total[rule[0]]) for rule, number in counts.items()}
        return cls(
            {(rule[0], rule[1], rule[2]): log_p for rule, log_p in logs.items() if len(rule) == 3},
            {(rule[0], rule[1]): log_p for rule, log_p in logs.items() if len(rule) == 2},
        )

    @cached_property
    def rules(self) -> Rules:
        """The rules as arrays."""
        return Rules.of(self.binary, self.leaf)

    def parse(self, sentence: Tagged) -> Tree:
        """Return the likeliest tree of (word, tag) pairs; a flat one labelled "X" where the grammar has none.

        Raises:
            InvalidRequest: the sentence has no word.
        """
        from nltk.tree import Tree

        if not sentence:
            raise InvalidRequest("There is no word to parse.")
        found = best_tree(self.rules, [tag for _, tag in sentence], _is_whole)
        if found is None:
            return Tree("X", [Tree(tag, [word]) for word, tag in sentence])
        return _restored(found, iter(sentence))[0]


def sentences(tagged: Tagged) -> Iterator[Tagged]:
    """Cut after each mark that ends a sentence."""
    begin = 0
    for place, (word, _) in enumerate(tagged, start=1):
        if word in _ENDS or place == len(tagged):
            yield tagged[begin:place]
            begin = place


def clean(tree: Tree) -> Tree | None:
    """Return the tree with bare labels, without empty elements; None where nothing is left."""
    if is_preterminal(tree):
        return None if tree.label() == "-NONE-" else type(tree)(tree.label(), list(tree))
    children = [child for child in map(clean, tree) if child is not None]
    label = _SPLIT.sub("", tree.label())
    if len(children) == 1 and children[0].label() == label:
        return children[0]
    return type(tree)(label or ROOT, children) if children else None


def _rules(tree: Tree, above: str, memory: int) -> Iterator[Rule]:
    symbol, tree, label = _chain(tree, above)
    if is_preterminal(tree):
        if symbol != tree.label():
            yield symbol, tree.label()
        else:
            yield symbol, symbol
        return
    names = [_chain(child, label)[0] for child in tree]
    for place, name in enumerate(names[:-1]):
        rest = names[-1] if place == len(names) - 2 else _made(symbol, names[: place + 1], memory)
        yield symbol if place == 0 else _made(symbol, names[:place], memory), name, rest
    for child in tree:
        yield from _rules(child, label, memory)


def _chain(tree: Tree, above: str) -> tuple[str, Tree, str]:
    """Return the symbol of a node and its only children, the last of these, and its label."""
    labels = []
    while not is_preterminal(tree):
        labels.append(tree.label())
        if len(tree) > 1:
            break
        tree = tree[0]
    return (JOIN.join(labels) + _UP + above if labels else tree.label()), tree, (labels or [""])[-1]


def _made(symbol: str, before: Sequence[str], memory: int) -> str:
    return f"{_MADE}{symbol}:{before[-1].partition(_UP)[0] if memory else ''}"


def _is_whole(symbol: str) -> bool:
    return symbol.endswith(_UP + ROOT) and not symbol.startswith(_MADE)


def _restored(tree: tuple[object, ...], sentence: Iterator[tuple[str, str]]) -> list[Tree]:
    """Return the children that a binary tree of symbols stands for, with their words."""
    from nltk.tree import Tree

    name, parts = str(tree[0]), tree[1:]
    if parts:
        inner = [child for part in parts for child in _restored(part, sentence)]  # type: ignore[arg-type]
    else:
        word, tag = next(sentence)
        inner = [Tree(tag, [word])]
    if name.startswith(_MADE) or _UP not in name:
        return inner
    for label in reversed(name.partition(_UP)[0].split(JOIN)):
        inner = [Tree(label, inner)]
    return inner
