"""Objects in the byte table: the named properties in their order, then a loop of extras."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from guided_dlm.automata.json_schema.document import step
from guided_dlm.automata.json_schema.forms import FALSE, Extra, ObjectShape
from guided_dlm.automata.json_schema.names import key_automaton
from guided_dlm.automata.json_schema.spelling import QUOTE
from guided_dlm.automata.json_schema.table import Row
from guided_dlm.errors import UnsupportedSchema

if TYPE_CHECKING:
    from guided_dlm.automata.json_schema.emit import Writer

_COMMA, _COLON, _CLOSE = ord(","), ord(":"), ord("}")


class Point(NamedTuple):
    """Where an object stands: the names still ahead (a bit each), how many properties it has, the demands unmet."""

    ahead: int
    size: int
    unmet: frozenset[int]


class _Continuations:
    """The state before the colon of each label met so far; labels in `absent` have no value."""

    def __init__(self) -> None:
        self.states: dict[int, int] = {}
        self.known = self.absent = 0


class _Object:
    def __init__(self, writer: Writer, shape: ObjectShape, expression: int, then: int, fuel: int) -> None:
        self.writer, self.shape, self.expression, self.then, self.fuel = writer, shape, expression, then, fuel
        values = [self.left(n.value) for n in shape.names]
        self.possible = sum(1 << i for i, left in enumerate(values) if left is not None)
        self.required = sum(1 << i for i, n in enumerate(shape.names) if n.required)
        self.extras = [x for x in shape.extras if self.left(x.value) is not None]
        self.extra_labels = ((1 << len(self.extras)) - 1) << len(shape.names)
        self.counted = max(shape.low, shape.high or 0)
        self.keys = key_automaton(writer.library, [n.name for n in shape.names], [x.names for x in self.extras])
        self.after_states: dict[Point, int] = {}
        self.colons: dict[tuple[int, int], int | None] = {}
        self.continuations: dict[Hashable, _Continuations] = {}
        self.waiting: list[tuple[Point, int]] = []
        self.met: dict[tuple[int, int], bool] = {}

    def left(self, value: int) -> int | None:
        return None if value == FALSE else self.writer.fuel(self.expression, value, self.fuel)

    def start(self) -> int | None:
        if self.required & ~self.possible:
            return None
        first = Point(self.possible, 0, frozenset(range(len(self.shape.some))))
        row = self.key(first)
        if self.may_end(first):
            row[_CLOSE] = self.then
        state = self.writer.gap(row) if row else None
        while self.waiting:
            point, gap = self.waiting.pop()
            self.writer.fill_gap(gap, self.key(point))
        return state

    def may_end(self, point: Point) -> bool:
        return point.size >= self.shape.low and not point.unmet and not point.ahead & self.required

    def labels(self, point: Point) -> int:
        """Return which properties may come next, a bit per label: names, then kinds of extras."""
        if self.shape.high is not None and point.size >= self.shape.high:
            return 0
        missing = point.ahead & self.required
        if missing and not self.writer.library.any_order:
            return point.ahead & ((missing & -missing) << 1) - 1
        return point.ahead | self.extra_labels

    def following(self, point: Point, label: int) -> Point:
        """Return where the object stands after a property."""
        size = min(point.size + 1, self.counted)
        if self.writer.library.any_order:
            return Point(point.ahead & ~(1 << label), size, point.unmet)
        return Point(self.possible >> (label + 1) << (label + 1), size, point.unmet)

    def key(self, point: Point) -> Row:
        """Return the transition to the next property's name."""
        labels = self.labels(point)
        # What comes after a property depends on the names before it only where they may still come.
        kind = point if self.writer.library.any_order else (point.size, point.unmet)
        found = self.continuations.setdefault(kind, _Continuations())
        for label in _bits(labels & ~found.known):
            after = self.following(point, label)
            if label < len(self.shape.names):
                state = self.colon(self.shape.names[label].value, self.after(after))
            elif after.unmet:
                state = self.demanded(self.extras[label - len(self.shape.names)], after)
            else:
                state = self.colon(self.extras[label - len(self.shape.names)].value, self.after(after))
            if state is None:
                found.absent |= 1 << label
            else:
                found.states[label] = state
        found.known |= labels
        labels &= ~found.absent
        return {QUOTE: self.writer.strings.write(self.keys, found.states, labels)} if labels else {}

    def colon(self, value: int, after: int) -> int | None:
        """Return the state after a name, before the colon."""
        if (value, after) not in self.colons:
            fuel = self.left(value)
            row = None if fuel is None else self.writer.value(value, after, fuel)
            self.colons[value, after] = None if row is None else self.writer.gap({_COLON: self.writer.gap(row)})
        return self.colons[value, after]

    def demanded(self, extra: Extra, after: Point) -> int | None:
        """Return the state before the colon of an extra that may meet demands; the extras are split by their names."""
        both = self.writer.graph.normaliser.both
        choices = [(extra.value, after.unmet)]
        for demand in sorted(after.unmet):
            if not self.meets(extra, demand):
                continue
            choices += [(both(v, self.shape.some[demand].value), left - {demand}) for v, left in choices]
        rows = []
        for value, unmet in choices:
            fuel = self.left(value)
            row = None if fuel is None else self.writer.value(value, self.after(after._replace(unmet=unmet)), fuel)
            if row is not None:
                rows.append(row)
        return self.writer.gap({_COLON: self.writer.gap(self.writer.table.merge(rows))}) if rows else None

    def meets(self, extra: Extra, demand: int) -> bool:
        """Say whether the names of an extra are among those of a demand: all are or none, see `_split`."""
        key = (id(extra), demand)
        if key not in self.met:
            self.met[key] = (extra.names - self.shape.some[demand].names).is_empty()
        return self.met[key]

    def after(self, point: Point) -> int:
        """Return the state after a property; what follows its comma is written later."""
        if point not in self.after_states:
            row: Row = {_CLOSE: self.then} if self.may_end(point) else {}
            if self.labels(point):
                row[_COMMA] = self.writer.open_gap()
                self.waiting.append((point, row[_COMMA]))
            self.after_states[point] = self.writer.gap(row)
        return self.after_states[point]


def write(writer: Writer, shape: ObjectShape, expression: int, then: int, fuel: int) -> int | None:
    """Return the state after the opening brace of the objects of a shape, None where there are none."""
    needed = sum(n.required for n in shape.names)
    if shape.extras and shape.low > needed + 1:
        path = step(writer.graph.normaliser.path(expression), "minProperties")
        raise UnsupportedSchema(
            f"{path}: at least {shape.low} properties cannot be counted where names are free, because telling names "
            f"apart is not regular; set additionalProperties: false, or require all but one by name."
        )
    if shape.some and shape not in writer.library.split:
        writer.library.split[shape] = _split(shape)
    return _Object(writer, writer.library.split.get(shape, shape), expression, then, fuel).start()


def _bits(mask: int) -> Iterator[int]:
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1


def _split(shape: ObjectShape) -> ObjectShape:
    """Split the extras so that each demand asks for all names of one or for none."""
    extras = list(shape.extras)
    for demand in shape.some:
        parts = []
        for extra in extras:
            inside, outside = extra.names & demand.names, extra.names - demand.names
            parts += [Extra(names, extra.value) for names in (inside, outside) if not names.is_empty()]
        extras = parts
    return ObjectShape(shape.names, tuple(extras), shape.low, shape.high, shape.some)
