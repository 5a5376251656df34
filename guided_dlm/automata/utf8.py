"""From classes of characters to bytes: the trie of UTF-8, and the expansion of a character automaton along it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from guided_dlm.automata.codepoints import LIMIT, Partition
from guided_dlm.automata.dfa import DEAD, Dfa, IntArray, Mask, Table, unique_rows
from guided_dlm.errors import AutomatonTooLarge


class Utf8Trie(NamedTuple):
    """The minimal trie from UTF-8 bytes to character classes.

    `ascii` `[128]` holds classes. A node one continuation byte before the end of a character is a row of `last`
    `[., 64]` (classes), two before a row of `middle` (indices into `last`), three before a row of `first` (into
    `middle`). `two`, `three` and `four` are the nodes after lead bytes C2.., E0.. and F0... -1 is dead.
    """

    ascii: IntArray
    last: IntArray
    middle: IntArray
    first: IntArray
    two: IntArray
    three: IntArray
    four: IntArray


@lru_cache(maxsize=32)
def utf8_trie(partition: Partition) -> Utf8Trie:
    """Build the trie of a partition of the code points; surrogates and overlong forms are dead."""
    label = partition.dense()
    short = label[:0x800]
    three = np.where(np.arange(0x10000) < 0x800, DEAD, label[:0x10000])
    four = np.full(5 << 18, DEAD, dtype=np.int16)
    four[0x10000:LIMIT] = label[0x10000:]
    blocks = np.concatenate([short[0x80:], three, four]).reshape(-1, 64)
    rows, node = unique_rows(blocks)
    last = blocks[rows].astype(np.int64)
    node_two, node_upper = node[:30], node[30:].reshape(-1, 64)
    rows, upper = unique_rows(node_upper)
    middle = node_upper[rows]
    node_four = upper[16:].reshape(-1, 64)
    rows, top = unique_rows(node_four)
    return Utf8Trie(short[:128].astype(np.int64), last, middle, node_four[rows], node_two, upper[:16], top)


def _level(children: Table, nodes: IntArray) -> tuple[Table, Table]:
    """Return (state of every pair of text state and trie node `[S, N]`, -1 dead; successor rows `[M, 64]`).

    `children` `[S, .]` gives, for a text state, the state reached at each entry of a trie node's row.
    """
    padded = np.pad(children, ((0, 0), (0, 1)), constant_values=DEAD)
    kinds, rows, offset = [], [], 0
    for row in nodes:
        used, position = np.unique(row, return_inverse=True)
        reached = padded[:, used]
        first, kind = unique_rows(reached)
        kinds.append(kind + offset)
        rows.append(reached[first][:, position])
        offset += first.size
    stacked = np.concatenate(rows)
    first, same = unique_rows(stacked)
    live = (stacked[first] >= 0).any(axis=1)
    number = np.where(live, np.cumsum(live) - 1, DEAD).astype(np.int32)
    return number[same][np.stack(kinds, axis=1)], stacked[first][live]


def expand(dfa: Table, accepting: Mask, partition: Partition, max_states: int) -> Dfa:
    """Return the byte automaton of a minimal automaton over character classes; it is minimal too.

    Raises:
        AutomatonTooLarge: the byte automaton has more than `max_states` states.
    """
    trie = utf8_trie(partition)
    states = dfa.shape[0]
    shifts, blocks, children = states, [], dfa
    reached = []
    for nodes in (trie.last, trie.middle, trie.first):
        ids, rows = _level(children, nodes)
        children = np.where(ids >= 0, ids + shifts, DEAD).astype(np.int32)
        reached.append(children)
        blocks.append(rows)
        shifts += rows.shape[0]
        if shifts > max_states:
            raise AutomatonTooLarge(
                f"{states} states over {partition.size} character classes need more than {max_states} states over "
                "UTF-8 bytes. Large Unicode classes cost most; use the ASCII flag or narrower sets."
            )
    table = np.full((shifts, 256), DEAD, dtype=np.int32)
    table[:states, :128] = np.pad(dfa, ((0, 0), (0, 1)), constant_values=DEAD)[:, trie.ascii]
    table[:states, 0xC2:0xE0] = reached[0][:, trie.two]
    table[:states, 0xE0:0xF0] = reached[1][:, trie.three]
    table[:states, 0xF0:0xF5] = reached[2][:, trie.four]
    table[states:, 0x80:0xC0] = np.concatenate(blocks)
    return Dfa(table, np.append(accepting, np.zeros(shifts - states, dtype=bool)), np.arange(256))
