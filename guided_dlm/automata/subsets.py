"""Concatenation and repetition of deterministic automata by the subset construction."""

from __future__ import annotations

import numpy as np

from guided_dlm.automata.dfa import DEAD, Dfa, Mask, Table, unique_rows
from guided_dlm.errors import AutomatonTooLarge


def concatenation(left: Dfa, right: Dfa, max_states: int) -> Dfa:
    """Return the automaton of the texts made of one of `left`, then one of `right`."""
    codes = left.column_of * (right.table.shape[1] + 1) + right.column_of
    joint, column_of = np.unique(codes, return_inverse=True)
    left_column, right_column = np.divmod(joint, right.table.shape[1] + 1)
    size = left.table.shape[0]
    second = right.table[:, right_column]
    table = np.concatenate([left.table[:, left_column], np.where(second < 0, DEAD, second + size)]).astype(np.int32)
    accepting = np.concatenate([np.zeros(size, dtype=bool), right.accepting])
    done = np.append(left.accepting, np.zeros(right.table.shape[0], dtype=bool))
    start = frozenset([0, size] if left.accepting[0] else [0])
    return Dfa(*_subsets(table, accepting, start, done, size, max_states), column_of)


def repetition(body: Dfa, max_states: int) -> Dfa:
    """Return the automaton of the texts made of any number of texts of `body`, none included."""
    size = body.table.shape[0]
    # The extra state is the empty repetition: it accepts, and nothing leads on from it.
    table = np.pad(body.table, ((0, 1), (0, 0)), constant_values=DEAD)
    accepting = np.append(body.accepting, True)
    done = np.append(body.accepting, False)
    return Dfa(*_subsets(table, accepting, frozenset([0, size]), done, 0, max_states), body.column_of)


def _subsets(
    table: Table, accepting: Mask, start: frozenset[int], done: Mask, again: int, max_states: int
) -> tuple[Table, Mask]:
    """Determinise: whenever a thread enters a `done` state, one more starts in state `again`."""
    number, order, rows = {start: 0}, [start], []
    finished = frozenset(np.flatnonzero(done).tolist())
    for threads in order:
        moves = table[sorted(threads)].T
        first, kind = unique_rows(moves)
        targets = []
        for column in moves[first].tolist():
            key = frozenset(state for state in column if state >= 0)
            if not finished.isdisjoint(key):
                key |= {again}
            if key and key not in number:
                number[key] = len(order)
                order.append(key)
            targets.append(number[key] if key else DEAD)
        rows.append(np.array(targets, dtype=np.int32)[kind])
        if len(order) > max_states:
            raise AutomatonTooLarge(
                f"A concatenation or repetition of {table.shape[0]} states needs more than {max_states} states once "
                "made deterministic, because the same text can be cut in many places. Fewer or exact counts, and fixed "
                "texts between the parts that the parts cannot hold, make it smaller."
            )
    return np.stack(rows), np.array([bool(accepting[list(threads)].any()) for threads in order])
