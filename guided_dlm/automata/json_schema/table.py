"""One growing table of byte transitions, and the unions that are resolved when everything else stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from guided_dlm.automata.dfa import DEAD, Dfa, IntArray, Table, unique_rows
from guided_dlm.errors import AutomatonTooLarge

Row = dict[int, int]
_BATCH_CELLS = 1 << 20


class ByteTable:
    """States are rows of `[S, 256]`; one is the end of the text. `limit` bounds S; `where` is the JSON path at work.

    A state is complete once its row is filled; `union` promises a state that is filled by `resolve`.
    """

    def __init__(self, limit: int) -> None:
        """Start with the end of the text as the only state."""
        self.limit = limit
        self.rows = np.full((64, 256), DEAD, dtype=np.int32)
        self.size = 0
        self.where = "$"
        self.built: Counter[str] = Counter()
        self.members: dict[int, frozenset[int]] = {}
        self.unions: dict[frozenset[int], int] = {}
        self.ends: set[int] = set()
        self.end = self.allocate(1)
        self.ends.add(self.end)

    def allocate(self, count: int) -> int:
        """Add states without transitions; return the first.

        Raises:
            AutomatonTooLarge: there would be more than the limit; the message names the part that takes most.
        """
        base = self.size
        self.size += count
        self.built[self.where] += count
        if self.size > self.limit:
            self._refuse()
        while self.size > self.rows.shape[0]:
            rows = np.full((2 * self.rows.shape[0], 256), DEAD, dtype=np.int32)
            rows[:base] = self.rows[:base]
            self.rows = rows
        return base

    def _refuse(self) -> None:
        path, states = self.built.most_common(1)[0]
        raise AutomatonTooLarge(
            f"The schema needs more than {self.limit} byte states before minimisation; {path} alone takes {states} of "
            "them. Counted repeats cost most (maxLength, maxItems, {m,n} in a pattern), then nested free JSON: lower "
            "the counts there, give a smaller depth, or close objects with additionalProperties: false."
        )

    def add(self, row: Mapping[int, int]) -> int:
        """Add one state with these transitions."""
        state = self.allocate(1)
        self.fill(state, row)
        return state

    def fill(self, state: int, row: Mapping[int, int]) -> None:
        """Give a state its transitions."""
        if row:
            self.rows[state, list(row)] = list(row.values())

    def literal(self, data: bytes, then: int) -> int:
        """Return the state that reads these bytes, then goes on as `then`."""
        for byte in reversed(data):
            then = self.add({byte: then})
        return then

    def union(self, states: Iterable[int]) -> int:
        """Return a state that reads what any of these read."""
        members = frozenset(m for state in states for m in self.members.get(state, (state,)))
        if len(members) == 1:
            return next(iter(members))
        if members not in self.unions:
            state = self.allocate(1)
            self.unions[members], self.members[state] = state, members
        return self.unions[members]

    def merge(self, rows: Iterable[Row]) -> Row:
        """Return the transitions of several states as those of one."""
        targets: dict[int, set[int]] = {}
        for row in rows:
            for byte, state in row.items():
                targets.setdefault(byte, set()).add(state)
        return {byte: self.union(states) for byte, states in targets.items()}

    def resolve(self) -> None:
        """Fill every promised union, and those that they lead to, one generation after the other."""
        self.where = "alternatives that share a beginning"
        # Members of a union have rows of their own, so that all rows to be joined are complete by now.
        first, column_of = unique_rows(np.ascontiguousarray(self.rows[: self.size].T))
        columns = self.rows[: self.size, first]
        waiting = list(self.members)
        while waiting:
            before = self.size
            sizes: dict[int, list[int]] = {}
            for state in waiting:
                sizes.setdefault(len(self.members[state]), []).append(state)
            for size, states in sizes.items():
                step = max(1, _BATCH_CELLS // (size * first.size))
                for batch in (states[i : i + step] for i in range(0, len(states), step)):
                    self._join(batch, columns, column_of)
            waiting = list(range(before, self.size))

    def _join(self, states: list[int], columns: Table, column_of: IntArray) -> None:
        """Fill unions of equally many members each, whose rows are given as columns `[S, C]`."""
        members = [list(self.members[state]) for state in states]
        self.ends.update(s for s, of in zip(states, members, strict=True) if not self.ends.isdisjoint(of))
        cells = columns[np.array(members)].transpose(0, 2, 1).reshape(-1, len(members[0]))
        first, kind = unique_rows(cells)
        targets = ({cell for cell in row if cell >= 0} for row in cells[first].tolist())
        found = np.array([self.union(cell) if cell else DEAD for cell in targets], dtype=np.int32)
        self.rows[states] = found[kind].reshape(len(states), -1)[:, column_of]

    def dfa(self, start: int) -> Dfa:
        """Return what is built as an automaton that starts in a state, equal bytes in one column."""
        rows = self.rows[: self.size]
        first, column_of = unique_rows(np.ascontiguousarray(rows.T))
        rows = np.ascontiguousarray(rows[:, first])
        accepting = np.zeros(self.size, dtype=bool)
        accepting[list(self.ends)] = True
        order = np.arange(self.size)
        order[[0, start]] = start, 0
        place = np.append(order, DEAD).astype(np.int32)
        return Dfa(place[rows[order]], accepting[order], column_of)
