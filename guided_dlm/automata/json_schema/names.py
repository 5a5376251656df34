"""The names that an object's properties may have, as one labelled automaton: declared ones, then kinds of extras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guided_dlm.automata.codepoints import SURROGATES
from guided_dlm.automata.dfa import DEAD
from guided_dlm.automata.json_schema.strings import Labelled
from guided_dlm.automata.json_schema.texts import Texts, trie
from guided_dlm.errors import AutomatonTooLarge

if TYPE_CHECKING:
    from guided_dlm.automata.json_schema.emit import Library

_MAX_STATES = 40_000


def key_automaton(library: Library, names: Sequence[str], extras: Sequence[Texts]) -> Labelled:
    """Return the automaton: label i is names[i], label len(names) + j a name of extras[j] that is not declared."""
    key = (tuple(names), tuple(extras))
    if key not in library.keys:
        plain = not extras or (len(extras) == 1 and extras[0].is_any())
        library.keys[key] = _open(names, bool(extras)) if plain else _general(names, extras)
    return library.keys[key]


def _trie_of(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the tree of the names with one class for other characters: table, label, starts, labels."""
    dfa, starts = trie(names)
    others = dfa.table.shape[1]
    table = np.pad(dfa.table, ((0, 0), (0, 1)), constant_values=DEAD)
    surrogate = (starts >= SURROGATES[0]) & (starts < SURROGATES[1])
    labels = np.where((dfa.column_of < 0) & ~surrogate, others, dfa.column_of)
    label = np.full(table.shape[0], -1, dtype=np.int64)
    for index, name in enumerate(names):
        node = 0
        for character in name:
            node = int(table[node, labels[np.searchsorted(starts, ord(character), side="right") - 1]])
        label[node] = index
    return table, label, starts, labels


def _open(names: Sequence[str], extra: bool) -> Labelled:
    table, label, starts, labels = _trie_of([n for n in names if _writable(n)])
    kept = [i for i, n in enumerate(names) if _writable(n)]
    label = np.append(np.array(kept, dtype=np.int64), -1)[label]
    below = [1 << int(own) if own >= 0 else 0 for own in label]
    for node in range(len(below) - 1, -1, -1):  # children come after their parents
        for child in table[node].tolist():
            if child >= 0:
                below[node] |= below[child]
    if extra:
        other = table.shape[0]
        table = np.append(np.where(table < 0, other, table), np.full((1, table.shape[1]), other), axis=0)
        label = np.append(np.where(label < 0, len(names), label), len(names))
        below = [mask | 1 << len(names) for mask in (*below, 0)]
    return Labelled(table.astype(np.int32), label, starts, labels, below)


def _writable(name: str) -> bool:
    return not any(SURROGATES[0] <= ord(c) < SURROGATES[1] for c in name)


def _general(names: Sequence[str], extras: Sequence[Texts]) -> Labelled:
    """Multiply the tree of the names with the automaton of every kind of extra."""
    kept = [i for i, n in enumerate(names) if _writable(n)]
    table, label, starts, labels = _trie_of([names[i] for i in kept])
    joint = np.unique(np.concatenate([starts, *(x.starts for x in extras)]))
    columns = np.stack(
        [
            s_labels[np.searchsorted(s_starts, joint, side="right") - 1]
            for s_starts, s_labels in [(starts, labels), *((x.starts, x.labels) for x in extras)]
        ]
    )
    symbols, column_of = np.unique(columns, axis=1, return_inverse=True)
    column_of = column_of.reshape(-1)
    surrogate = labels[np.searchsorted(starts, joint, side="right") - 1] < 0
    tables = [t.tolist() for t in (table, *(x.table for x in extras))]
    number: dict[tuple[int, ...], int] = {(0,) * len(tables): 0}
    order, rows = list(number), []
    for state in order:
        row = []
        for symbol in symbols.T.tolist():
            after = tuple(
                DEAD if s == DEAD or c < 0 else tables[i][s][c]
                for i, (s, c) in enumerate(zip(state, symbol, strict=True))
            )
            if max(after) == DEAD:
                row.append(DEAD)
                continue
            if after not in number:
                number[after] = len(order)
                order.append(after)
            row.append(number[after])
        rows.append(row)
        if len(order) > _MAX_STATES:
            raise AutomatonTooLarge(
                f"The property names and patterns of an object take more than {_MAX_STATES} states."
            )
    found = []
    for node, *kinds in order:
        own = int(label[node]) if node >= 0 else -1
        met = [j for j, (s, x) in enumerate(zip(kinds, extras, strict=True)) if s >= 0 and x.accepting[s]]
        found.append(kept[own] if own >= 0 else len(names) + met[0] if met else -1)
    column_of = np.where(surrogate, -1, column_of)
    return Labelled(np.array(rows, dtype=np.int32), np.array(found), joint, column_of, _reach(rows, found))


def _reach(rows: list[list[int]], found: list[int]) -> list[int]:
    """Return for every state the labels that can be met from it, a bit each."""
    parents: list[set[int]] = [set() for _ in rows]
    for state, row in enumerate(rows):
        for after in row:
            if after >= 0:
                parents[after].add(state)
    reach = [1 << own if own >= 0 else 0 for own in found]
    waiting = [state for state, mask in enumerate(reach) if mask]
    while waiting:
        state = waiting.pop()
        for parent in parents[state]:
            if reach[state] & ~reach[parent]:
                reach[parent] |= reach[state]
                waiting.append(parent)
    return reach
