"""Products of automata over the pairs of states that can be reached, in a canvas where its length is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from guided_dlm.automata.dfa import DEAD, FAR, Dfa, Final, IntArray, distances, is_accepting, log_weights
from guided_dlm.errors import AutomatonTooLarge

Keep = Literal["both", "either", "left", "soft"]
MAX_STATES = 100_000
_DENSE_PAIRS = 1 << 27
_BATCH_CELLS = 1 << 22


class _Seen:
    """The pair codes met so far: a bitmap where it fits in memory, else a sorted array."""

    def __init__(self, size: int) -> None:
        self.bitmap: NDArray[np.bool_] | None = np.zeros(size, dtype=bool) if size <= _DENSE_PAIRS else None
        self.sorted = np.zeros(0, dtype=np.int64)
        self.count = 0

    def fresh(self, codes: IntArray) -> IntArray:
        """Return the distinct codes not met before, and remember them."""
        if self.bitmap is not None:
            new = np.unique(codes[~self.bitmap[codes]])
            self.bitmap[new] = True
        else:
            new = np.setdiff1d(codes, self.sorted)
            self.sorted = np.union1d(self.sorted, new)
        self.count += new.size
        return new

    def all(self) -> IntArray:
        """Return every code met, sorted."""
        return self.sorted if self.bitmap is None else np.flatnonzero(self.bitmap)


class _Pairs:
    """Pairs of states, coded as left * (right states + 1) + right, with a dead state last on either side."""

    def __init__(self, left: Dfa, right: Dfa, keep: Keep, length: int | None) -> None:
        codes = (left.column_of + 1) * (right.table.shape[1] + 2) + right.column_of + 1
        joint, self.column_of = np.unique(codes, return_inverse=True)
        left_column, right_column = np.divmod(joint, right.table.shape[1] + 2)
        self.left, self.right = _padded(left)[:, left_column - 1], _padded(right)[:, right_column - 1]
        self.left_dead, self.right_dead = left.table.shape[0], right.table.shape[0]
        self.width, self.keep, self.length = joint.size, keep, length
        both = (left, right) if length is not None else ()
        self.rest = [np.append(distances(dfa.table, is_accepting(dfa.accepting)), FAR) for dfa in both]

    def step(self, codes: IntArray) -> IntArray:
        """Return the codes after each joint column, -1 where the product is dead."""
        a, b = np.divmod(codes, self.right_dead + 1)
        a, b = self.left[a], self.right[b]
        here, there = a < self.left_dead, b < self.right_dead
        alive = {"both": here & there, "either": here | there}.get(self.keep, here)
        return np.where(alive, a * (self.right_dead + 1) + b, -1)

    def in_time(self, codes: IntArray, level: int) -> IntArray:
        """Return the codes from which, after `level` symbols, acceptance may still be reached within the canvas."""
        if self.length is None:
            return codes
        here, there = (rest[one] for rest, one in zip(self.rest, np.divmod(codes, self.right_dead + 1), strict=True))
        least = {"both": np.maximum(here, there), "either": np.minimum(here, there)}.get(self.keep, here)
        kept: IntArray = codes[least <= self.length - level]
        return kept

    def batches(self, codes: IntArray) -> Iterator[IntArray]:
        """Split codes so that one step fits in memory."""
        size = max(1, _BATCH_CELLS // max(1, self.width))
        return (codes[i : i + size] for i in range(0, codes.size, size))


def _padded(dfa: Dfa) -> IntArray:
    """Return the table with an explicit dead state and a dead column, both last, so that -1 indexes them."""
    states = dfa.table.shape[0]
    padded = np.pad(dfa.table.astype(np.int64), ((0, 1), (0, 1)), constant_values=states)
    return np.where(padded < 0, states, padded)


def product(left: Dfa, right: Dfa, keep: Keep, max_states: int = MAX_STATES, length: int | None = None) -> Dfa:
    """Return the product that accepts where both do, either does, or the left does and the right does not.

    "soft" accepts where the left does, and adds the right's log-weight where that accepts too. Where either has
    weights, so has the product of both. With a `length`, pairs that no accepted text of that many symbols passes are
    left out, as far as the distances in both automata tell: then only texts of exactly that length are told rightly.

    Raises:
        AutomatonTooLarge: more than `max_states` pairs can be reached.
    """
    pairs = _Pairs(left, right, keep, length)
    seen = _Seen((pairs.left_dead + 1) * (pairs.right_dead + 1))
    level, frontier = 0, seen.fresh(np.zeros(1, dtype=np.int64))
    while frontier.size:
        level, found = level + 1, [np.zeros(0, dtype=np.int64)]
        for batch in pairs.batches(frontier):
            codes = pairs.step(batch)
            found.append(seen.fresh(pairs.in_time(codes[codes >= 0], level)))
            if seen.count > max_states:
                raise AutomatonTooLarge(_too_large(pairs, max_states))
        frontier = np.concatenate(found)
    codes = seen.all()
    table = np.empty((codes.size, pairs.width), dtype=np.int32)
    done = 0
    for batch in pairs.batches(codes):
        after = pairs.step(batch)
        place = np.minimum(np.searchsorted(codes, after), codes.size - 1)
        table[done : done + batch.size] = np.where(codes[place] == after, place, DEAD)
        done += batch.size
    a, b = np.divmod(codes, pairs.right_dead + 1)
    return Dfa(table, _final(left, right, a, b, keep), pairs.column_of.astype(np.int64))


def _too_large(pairs: _Pairs, max_states: int) -> str:
    within = "" if pairs.length is None else f" in a canvas of {pairs.length} tokens"
    return (
        f"Combining an automaton of {pairs.left_dead} states with one of {pairs.right_dead} reaches more than "
        f"{max_states} pairs of states{within}. Combine the more selective ones first, allow fewer characters (a wide "
        "Unicode class costs hundreds of states each time it is counted), or lift texts first and combine them as "
        "tokens."
    )


def _final(left: Dfa, right: Dfa, a: IntArray, b: IntArray, keep: Keep) -> Final:
    """Return what the pairs of states (a, b) accept, or with which weight."""
    yes_left, yes_right = (np.append(is_accepting(dfa.accepting), False) for dfa in (left, right))
    plain = left.accepting.dtype == right.accepting.dtype == np.bool_
    if keep in ("either", "left") or (keep == "both" and plain):
        here, there = yes_left[a], yes_right[b]
        return np.asarray({"either": here | there, "left": here & ~there, "both": here & there}[keep])
    weight_left, weight_right = (np.append(log_weights(dfa.accepting), -np.inf) for dfa in (left, right))
    if keep == "soft":
        weight_right[~yes_right] = 0.0
    return np.asarray(weight_left[a] + weight_right[b])
