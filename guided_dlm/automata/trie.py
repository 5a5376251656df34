"""The tokens of a vocabulary as a trie, and running all of them from many automaton states at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from guided_dlm.automata.dfa import DEAD, Dfa, IntArray, Table, unique_rows
from guided_dlm.errors import AutomatonTooLarge

_BATCH_CELLS = 1 << 24
MAX_CELLS = 1 << 28


class _Level(NamedTuple):
    """The trie nodes of one depth: parent node and byte of each, and which tokens end at which of them."""

    parent: IntArray
    byte: IntArray
    tokens: IntArray
    node: IntArray


class TokenTrie:
    """A trie over byte strings, stored by depth. Equal strings share a node."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        """Build from the strings; positions in the results follow this order."""
        lengths = np.array([len(token) for token in tokens], dtype=np.int64)
        data = np.frombuffer(b"".join(tokens), dtype=np.uint8).astype(np.int64)
        offsets = np.cumsum(lengths) - lengths
        node = np.zeros(len(tokens), dtype=np.int64)
        alive = np.arange(len(tokens))
        self.size = len(tokens)
        self.beginning = np.bincount(data[offsets[lengths > 0]], minlength=256)  # how many tokens begin with each byte
        self.at_root = np.flatnonzero(lengths == 0)
        self.levels: list[_Level] = []
        for depth in range(int(lengths.max(initial=0))):
            alive = alive[lengths[alive] > depth]
            codes, node[alive] = np.unique(node[alive] * 256 + data[offsets[alive] + depth], return_inverse=True)
            ending = alive[lengths[alive] == depth + 1]
            self.levels.append(_Level(codes // 256, codes % 256, ending, node[ending]))

    def run(self, dfa: Dfa, states: IntArray) -> tuple[IntArray, Table]:
        """Return (the tokens that some state survives, int32 `[those tokens, states]`: where each leads, -1 dead)."""
        size, width = dfa.table.shape
        flat = np.pad(np.where(dfa.table < 0, size, dfa.table), ((0, 1), (0, 0)), constant_values=size)
        flat = flat.astype(np.int64).reshape(-1)
        current = states.reshape(1, -1).astype(np.int64)
        tokens, rows = [self.at_root], [np.repeat(current, self.at_root.size, axis=0)]
        # Only nodes that some state survives are carried on; `place` is where each node of a level is kept, or -1.
        place = np.zeros(1, dtype=np.int64)
        for level in self.levels:
            kept = np.flatnonzero(place[level.parent] >= 0)
            column = dfa.column_of[level.byte[kept]]
            after = flat[current[place[level.parent[kept]]] * width + column[:, None]]
            survives = (after < size).any(axis=1)
            place = np.full(level.byte.size, -1, dtype=np.int64)
            place[kept[survives]] = np.arange(int(survives.sum()))
            current = after[survives]
            ended = place[level.node] >= 0
            tokens.append(level.tokens[ended])
            rows.append(current[place[level.node[ended]]])
            if not current.size:
                break
        reached = np.concatenate(rows)
        return np.concatenate(tokens), np.where(reached == size, DEAD, reached).astype(np.int32)

    def columns(self, dfa: Dfa, states: IntArray) -> tuple[Table, IntArray]:
        """Return (int32 `[states, C]`: distinct columns of the lifted table; int64 `[tokens]`: each token's column).

        States are taken in batches, so that the full table of states by tokens is never in memory: those that most
        tokens die in apart from the others, so that what is live in few states is read from few states.

        Raises:
            AutomatonTooLarge: the result would not fit in about a gigabyte.
        """
        column, following = np.zeros(self.size, dtype=np.int64), 1
        parts: list[tuple[IntArray, IntArray, Table, IntArray]] = []
        for batch in self._batches(dfa, states):
            tokens, reached = self.run(dfa, states[batch])
            first, kind = unique_rows(reached)
            parts.append((batch, tokens, reached[first], kind))
            # Tokens that are dead in this batch keep their column; the others split off.
            joint, split = unique_rows((column[tokens] * (first.size + 1) + kind)[:, None])
            column[tokens] = following + split
            following += joint.size
        first, column = unique_rows(column[:, None])
        if states.size * first.size > MAX_CELLS:
            raise AutomatonTooLarge(
                f"Lifting {states.size} states to a vocabulary of {self.size} tokens gives {first.size} token classes, "
                f"too many together (more than {MAX_CELLS} cells). Use fewer alternatives or a smaller vocabulary."
            )
        table = np.full((states.size, first.size), DEAD, dtype=np.int32)
        for batch, tokens, rows, kind in parts:
            kind_of = np.full(self.size, rows.shape[0], dtype=np.int64)
            kind_of[tokens] = kind
            padded = np.pad(rows, ((0, 1), (0, 0)), constant_values=DEAD)
            table[batch] = padded[kind_of[first]].T
        return table, column

    def _batches(self, dfa: Dfa, states: IntArray) -> list[IntArray]:
        """Return places in `states`, narrow ones first; a state is broad if a sixteenth of all tokens may live."""
        column = dfa.column_of[np.arange(256)]
        alive = np.pad(dfa.table >= 0, ((0, 0), (0, 1)))[states][:, column]
        broad = alive @ self.beginning * 16 > self.size
        widest = max([self.size, 1, *(level.byte.size for level in self.levels)])
        size = max(1, _BATCH_CELLS // widest)
        groups = (np.flatnonzero(~broad), np.flatnonzero(broad))
        return [group[begin : begin + size] for group in groups for begin in range(0, group.size, size)]
