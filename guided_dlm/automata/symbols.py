"""Tokens that can be read in several ways: each way is a symbol with a weight, and automata run over symbols.

A word that may be a noun or a verb is two symbols, p(noun | word) and p(verb | word). An automaton over tags is then
deterministic over symbols, and a canvas weighs the sum, over all its accepted readings, of the products of their
weights: a hidden Markov model's emissions times an automaton. Such sets have an intersection, and no other operation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guided_dlm.automata.dfa import IntArray


class Symbols(NamedTuple):
    """The readings of a vocabulary's tokens: `token` int64 `[E]`, sorted, and `weight` float64 `[E]` in (0, 1]."""

    token: IntArray
    weight: NDArray[np.float64]

    def digest(self) -> bytes:
        """Return the bytes that tell two sets of symbols apart."""
        return self.token.tobytes() + self.weight.tobytes()


def join(left: Symbols | None, right: Symbols | None, size: int) -> tuple[Symbols | None, IntArray, IntArray]:
    """Return the readings of each token by both, and which symbol of either each of them comes from.

    Where a side has none, its symbols are the `size` tokens themselves. Weights multiply.
    """
    if left is None and right is None:
        every = np.arange(size)
        return None, every, every
    if right is None and left is not None:
        return left, np.arange(left.token.size), left.token
    if left is None and right is not None:
        return right, right.token, np.arange(right.token.size)
    assert left is not None and right is not None
    low, high = (np.searchsorted(right.token, left.token, side=side) for side in ("left", "right"))
    count = high - low
    mine = np.repeat(np.arange(left.token.size), count)
    other = np.arange(mine.size) - np.repeat(np.cumsum(count) - count - low, count)
    return Symbols(left.token[mine], left.weight[mine] * right.weight[other]), mine, other


def merged(symbols: Symbols, class_of: NDArray[np.int32]) -> tuple[Symbols, NDArray[np.int32]]:
    """Return the symbols without those of no class, and one for each token and class, which weighs what they did."""
    live = class_of >= 0
    pairs, kind = np.unique(np.stack([symbols.token[live], class_of[live]]), axis=1, return_inverse=True)
    weight = np.bincount(kind.reshape(-1), symbols.weight[live], minlength=pairs.shape[1]).astype(np.float64)
    return Symbols(pairs[0].astype(np.int64), weight), pairs[1].astype(np.int32)
