"""The Viterbi pass of a binarised grammar over a chart (Cocke, Younger and Kasami), a tensor operation per width."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Node = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rules:
    """A grammar as arrays: N symbols, P pairs of children, R binary rules sorted by their left side."""

    symbols: list[str]
    tags: Mapping[str, NDArray[np.float32]]  # by tag, the log-probability that each symbol is over it [N]
    left_P: NDArray[np.int64]
    right_P: NDArray[np.int64]
    pair_R: NDArray[np.int64]
    log_R: NDArray[np.float32]
    parents: NDArray[np.int64]  # symbols with binary rules, and where each one's rules begin
    begins: NDArray[np.int64]

    @classmethod
    def of(cls, binary: Mapping[tuple[str, str, str], float], leaf: Mapping[tuple[str, str], float]) -> Rules:
        """Number the symbols and sort the rules."""
        symbols = sorted({name for rule in binary for name in rule} | {symbol for symbol, _ in leaf})
        number = {name: i for i, name in enumerate(symbols)}
        tags: dict[str, NDArray[np.float32]] = {}
        for (symbol, tag), log_p in leaf.items():
            column = tags.setdefault(tag, np.full(len(symbols), -np.inf, dtype=np.float32))
            column[number[symbol]] = log_p
        rules = sorted((number[a], number[b], number[c], log_p) for (a, b, c), log_p in binary.items())
        table = np.array([rule[:3] for rule in rules], dtype=np.int64).reshape(-1, 3)
        pairs, pair_R = np.unique(table[:, 1:], axis=0, return_inverse=True)
        parents, begins = np.unique(table[:, 0], return_index=True)
        return cls(
            symbols=symbols,
            tags=tags,
            left_P=pairs[:, 0],
            right_P=pairs[:, 1],
            pair_R=pair_R.reshape(-1),
            log_R=np.array([rule[3] for rule in rules], dtype=np.float32),
            parents=parents,
            begins=begins,
        )


def best_tree(rules: Rules, tags: Sequence[str], starts: Callable[[str], bool]) -> Node | None:
    """Return the likeliest tree over tags as nested (symbol, left, right), a leaf as (symbol,); None without any.

    The root is a symbol that `starts`. Time grows with the cube of the number of tags.
    """
    if any(tag not in rules.tags for tag in tags):
        return None
    chart = _fill(rules, tags)
    root_N = np.where([starts(symbol) for symbol in rules.symbols], chart[0, len(tags)], -np.inf)
    if root_N.max() == -np.inf:
        return None
    return _read(rules, chart, 0, len(tags), int(root_N.argmax()))


def _fill(rules: Rules, tags: Sequence[str]) -> NDArray[np.float32]:
    """Return the log-probability `[L, L + 1, N]` of the likeliest tree of each symbol over the words from i to j."""
    length = len(tags)
    chart = np.full((length, length + 1, len(rules.symbols)), -np.inf, dtype=np.float32)
    for place, tag in enumerate(tags):
        chart[place, place + 1] = rules.tags[tag]
    for width in range(2, length + 1):
        for i in range(length - width + 1):
            chart[i, i + width, rules.parents] = _best_rules(rules, *_children(rules, chart, i, i + width))
    return chart


def _children(
    rules: Rules, chart: NDArray[np.float32], i: int, j: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the left and right children's scores, `[K, N]` each, at every place to split."""
    return chart[i, i + 1 : j], chart[np.arange(i + 1, j), j]


def _best_rules(rules: Rules, left_KN: NDArray[np.float32], right_KN: NDArray[np.float32]) -> NDArray[np.float32]:
    pair_P = (left_KN[:, rules.left_P] + right_KN[:, rules.right_P]).max(axis=0)
    return np.maximum.reduceat(pair_P[rules.pair_R] + rules.log_R, rules.begins)


def _read(rules: Rules, chart: NDArray[np.float32], i: int, j: int, symbol: int) -> Node:
    """Follow the best rules back from a symbol over the words from i to j."""
    if j == i + 1:
        return (rules.symbols[symbol],)
    left_KN, right_KN = _children(rules, chart, i, j)
    at = int(np.searchsorted(rules.parents, symbol))
    begin = rules.begins[at]
    end = rules.begins[at + 1] if at + 1 < len(rules.begins) else len(rules.log_R)
    pairs = rules.pair_R[begin:end]
    score_KR = left_KN[:, rules.left_P[pairs]] + right_KN[:, rules.right_P[pairs]] + rules.log_R[begin:end]
    split, best = np.unravel_index(score_KR.argmax(), score_KR.shape)
    middle, pair = i + 1 + int(split), pairs[best]
    return (
        rules.symbols[symbol],
        _read(rules, chart, i, middle, int(rules.left_P[pair])),
        _read(rules, chart, middle, j, int(rules.right_P[pair])),
    )
