"""Deterministic automata as integer tables: trimming, minimising, numbering, products. State 0 is always the start."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DEAD = -1
_BATCH_CELLS = 1 << 23
FAR = np.iinfo(np.int32).max // 2

IntArray = NDArray[np.int64]
Table = NDArray[np.int32]
Mask = NDArray[np.bool_]
Weights = NDArray[np.float64]
Final = NDArray[Any]  # a Mask, or Weights: see `Dfa.accepting`


class Dfa(NamedTuple):
    """A partial DFA: `table` `[S, K]` (-1 dead), `accepting` `[S]`, and the column of each symbol (-1 always dead).

    `accepting` is bool, or float64: the log-weight of ending in each state, -inf where the text is not accepted.
    """

    table: Table
    accepting: Final
    column_of: IntArray


def is_accepting(final: Final) -> Mask:
    """Return bool `[S]`: the states in which a text may end."""
    return np.asarray(final if final.dtype == np.bool_ else final > -np.inf)


def log_weights(final: Final) -> Weights:
    """Return float64 `[S]`: the log-weight of ending in each state, 0 where acceptance has no weight."""
    return np.where(final, 0.0, -np.inf) if final.dtype == np.bool_ else final.astype(np.float64)


@lru_cache(maxsize=64)
def _multipliers(width: int) -> NDArray[np.uint64]:
    return np.random.default_rng(width).integers(1, 2**63, size=width, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def _hashes(rows: NDArray[np.integer]) -> NDArray[np.uint64]:
    factors, size = _multipliers(rows.shape[1]), max(1, _BATCH_CELLS // max(1, rows.shape[1]))
    batches = (rows[i : i + size].astype(np.uint64) @ factors for i in range(0, rows.shape[0], size))
    return np.concatenate(list(batches))


def unique_rows(rows: NDArray[np.integer]) -> tuple[IntArray, IntArray]:
    """Return (index of the first row of each distinct kind, kind of every row), kinds numbered by first appearance.

    Rows are compared by a 64-bit hash, and the result is checked exactly; a collision falls back to sorting.
    """
    count, width = rows.shape
    if not count:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    keys = rows[:, 0] if width == 1 else _hashes(rows)
    _, first, kind = np.unique(keys, return_index=True, return_inverse=True)
    if width > 1 and not np.array_equal(rows[first[kind]], rows):
        _, first, kind = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    kind = kind.reshape(-1)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return first[order], rank[kind]


def edges(table: Table) -> tuple[IntArray, IntArray]:
    """Return the distinct (source, target) pairs of a table, sorted by source."""
    states = table.shape[0]
    source, column = np.nonzero(table >= 0)
    pairs = np.unique(source * states + table[source, column])
    return pairs // states, pairs % states


def _spans(low: IntArray, high: IntArray) -> IntArray:
    """Concatenate the ranges low[i]..high[i]-1."""
    sizes = high - low
    offsets = np.cumsum(sizes) - sizes
    spread: IntArray = np.arange(int(sizes.sum())) - np.repeat(offsets - low, sizes)
    return spread


def distances(table: Table, goal: Mask) -> Table:
    """Return int32 `[S]`: the least number of symbols from each state to a goal state, FAR where there is no path."""
    source, target = edges(table)
    order = np.argsort(target, kind="stable")
    source, target = source[order], target[order]
    bounds = np.searchsorted(target, np.arange(table.shape[0] + 1))
    distance = np.full(table.shape[0], FAR, dtype=np.int32)
    frontier, level = np.flatnonzero(goal), 0
    distance[frontier] = 0
    while frontier.size:
        level += 1
        before = source[_spans(bounds[frontier], bounds[frontier + 1])]
        frontier = np.unique(before[distance[before] == FAR])
        distance[frontier] = level
    return distance


def _breadth_first(table: Table) -> IntArray:
    """Return int64 `[S]`: the rank of each state in breadth-first order from state 0 along the columns, or -1."""
    rank = np.full(table.shape[0], -1, dtype=np.int64)
    rank[0], count, frontier = 0, 1, np.zeros(1, dtype=np.int64)
    while frontier.size:
        targets = table[frontier].reshape(-1)
        targets = targets[targets >= 0]
        found, first = np.unique(targets[rank[targets] < 0], return_index=True)
        frontier = found[np.argsort(first)].astype(np.int64)
        rank[frontier] = np.arange(count, count + frontier.size)
        count += frontier.size
    return rank


def _keep(table: Table, accepting: Final, kept: IntArray) -> tuple[Table, Final]:
    """Return the automaton restricted to `kept`, in that order."""
    number = np.full(table.shape[0] + 1, DEAD, dtype=np.int32)
    number[kept] = np.arange(kept.size)
    return number[table[kept]], accepting[kept]


def _equivalent(table: Table, colour: IntArray) -> IntArray:
    """Refine `colour` `[S]`, numbered from 0, until states of one colour agree on the colours of all their successors.

    Moore's refinement, except that a round looks only at the predecessors of states that changed colour.
    """
    states = table.shape[0]
    source, target = edges(table)
    order = np.argsort(target, kind="stable")
    source = source[order]
    bounds = np.searchsorted(target[order], np.arange(states + 1))
    colour = np.append(colour, -1)
    sizes = np.bincount(colour[:-1], minlength=states)
    following, active = int(colour.max()) + 1, np.arange(states)
    while active.size:
        first, kind = unique_rows(np.concatenate([colour[active][:, None], colour[table[active]]], axis=1))
        old, block = np.unique(colour[active[first]], return_inverse=True)
        members = np.bincount(kind)
        # A block's members that are not looked at here kept their successors' colours, so they stay together and keep
        # their own. Where all are looked at, the largest part keeps it.
        looked_at = np.zeros(old.size, dtype=np.int64)
        np.add.at(looked_at, block, members)
        by_size = np.argsort(members, kind="stable")
        largest = np.zeros(old.size, dtype=np.int64)
        largest[block[by_size]] = by_size
        stays = (looked_at == sizes[old])[block] & (largest[block] == np.arange(first.size))
        moved = np.flatnonzero(~stays)
        fresh = old[block]
        fresh[moved] = following + np.arange(moved.size)
        np.subtract.at(sizes, old[block[moved]], members[moved])
        sizes[fresh[moved]] = members[moved]
        following += moved.size
        changed = active[~stays[kind]]
        colour[active] = fresh[kind]
        active = np.unique(source[_spans(bounds[changed], bounds[changed + 1])])
    return colour[:-1]


def minimise(table: Table, accepting: Final) -> tuple[Table, Final]:
    """Return the smallest automaton of the same language over the same columns; one dead state if it is empty.

    Texts keep their weights, where they have any.
    """
    distance = distances(table, is_accepting(accepting))
    if distance[0] == FAR:
        return np.full((1, table.shape[1]), DEAD, dtype=np.int32), accepting[:1]
    kept = np.flatnonzero((_breadth_first(table) >= 0) & (distance < FAR))
    table, accepting = _keep(table, accepting, kept)
    columns, _ = unique_rows(np.ascontiguousarray(table.T))
    # Equivalent states are equally far from acceptance, which already tells most states of a counter apart.
    _, final = np.unique(accepting, return_inverse=True)
    _, start = unique_rows(np.stack([distance[kept], final.reshape(-1)], axis=1))
    _, colour = unique_rows(_equivalent(table[:, columns], start)[:, None])
    representative, _ = unique_rows(colour[:, None])
    merged = np.append(colour, DEAD)[table[representative]].astype(np.int32)
    return merged, accepting[representative]


def canonical(dfa: Dfa, drop_dead: bool) -> Dfa:
    """Merge equal columns and number columns by first symbol and states breadth first; minimal in, unique out.

    With `drop_dead`, symbols without any transition get column -1 instead of a column of their own.
    """
    table, accepting, column_of = dfa
    first, kind = unique_rows(np.ascontiguousarray(table.T))
    dead = np.append((table[:, first] < 0).all(axis=0), True) if first.size else np.ones(1, dtype=bool)
    column_of = np.append(kind, -1)[column_of]
    if drop_dead:
        column_of = np.where(dead[column_of], -1, column_of)
    used, where = np.unique(column_of[column_of >= 0], return_index=True)
    used = used[np.argsort(where)]
    number = np.full(first.size + 1, -1, dtype=np.int64)
    number[used] = np.arange(used.size)
    table = table[:, first[used]]
    rank = _breadth_first(table)
    table, accepting = _keep(table, accepting, np.argsort(rank))
    return Dfa(np.ascontiguousarray(table), accepting, number[column_of])


def normal_form(dfa: Dfa, drop_dead: bool) -> Dfa:
    """Minimise and number canonically: automata of one language over one alphabet come out as equal arrays."""
    return canonical(Dfa(*minimise(dfa.table, dfa.accepting), dfa.column_of), drop_dead)
