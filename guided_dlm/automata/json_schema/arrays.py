"""Arrays in the byte table: item by item, then a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guided_dlm.automata.json_schema.forms import FALSE, ArrayShape
from guided_dlm.automata.json_schema.table import Row

if TYPE_CHECKING:
    from guided_dlm.automata.json_schema.emit import Writer

_COMMA, _CLOSE = ord(","), ord("]")

# How many items there are (no longer counted where it does not matter), and the demands still unmet.
Point = tuple[int, frozenset[int]]


class _Array:
    def __init__(self, writer: Writer, shape: ArrayShape, expression: int, then: int, fuel: int) -> None:
        self.writer, self.shape, self.expression, self.then, self.fuel = writer, shape, expression, then, fuel
        last_start = max((start for start, _ in shape.some), default=0)
        self.settled = max(len(shape.prefix), shape.low, last_start)
        self.after_states: dict[Point, int] = {}
        self.waiting: list[tuple[Point, int]] = []

    def start(self) -> int | None:
        first: Point = (0, frozenset(range(len(self.shape.some))))
        row = self.items(first)
        if self.may_end(first):
            row[_CLOSE] = self.then
        state = self.writer.gap(row) if row else None
        while self.waiting:
            point, gap = self.waiting.pop()
            self.writer.fill_gap(gap, self.items(point))
        return state

    def may_end(self, point: Point) -> bool:
        return point[0] >= self.shape.low and not point[1]

    def has_more(self, point: Point) -> bool:
        index = point[0]
        if self.shape.high is not None and index >= self.shape.high:
            return False
        value = self.item(index)
        return value != FALSE and self.writer.fuel(self.expression, value, self.fuel) is not None

    def item(self, index: int) -> int:
        return self.shape.prefix[index] if index < len(self.shape.prefix) else self.shape.rest

    def items(self, point: Point) -> Row:
        """Return the first transitions of the next item."""
        if not self.has_more(point):
            return {}
        index, unmet = point
        value = self.item(index)
        choices = [(value, unmet)]
        for demand in sorted(unmet):
            start, wanted = self.shape.some[demand]
            if index >= start:
                both = self.writer.graph.normaliser.both
                choices += [(both(v, wanted), left - {demand}) for v, left in choices]
        rows = []
        for choice, left in choices:
            fuel = None if choice == FALSE else self.writer.fuel(self.expression, choice, self.fuel)
            if fuel is not None:
                row = self.writer.value(choice, self.after(self.next(index, left)), fuel)
                if row is not None:
                    rows.append(row)
        return dict(rows[0]) if len(rows) == 1 else self.writer.table.merge(rows)

    def next(self, index: int, unmet: frozenset[int]) -> Point:
        return (index + 1 if self.shape.high is not None else min(index + 1, self.settled), unmet)

    def after(self, point: Point) -> int:
        """Return the state after an item; what follows its comma is written later."""
        if point not in self.after_states:
            row: Row = {_CLOSE: self.then} if self.may_end(point) else {}
            if self.has_more(point):
                row[_COMMA] = self.writer.open_gap()
                self.waiting.append((point, row[_COMMA]))
            self.after_states[point] = self.writer.gap(row)
        return self.after_states[point]


def write(writer: Writer, shape: ArrayShape, expression: int, then: int, fuel: int) -> int | None:
    """Return the state after the opening bracket of the arrays of a shape, None where there are none."""
    return _Array(writer, shape, expression, then, fuel).start()
