"""Forms written into the byte table from the back: a value is given the state that it goes on to."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from guided_dlm.automata.dfa import DEAD, Dfa, Table, minimise
from guided_dlm.automata.json_schema import arrays, objects
from guided_dlm.automata.json_schema.forms import ObjectShape
from guided_dlm.automata.json_schema.graph import FAR, Graph
from guided_dlm.automata.json_schema.numbers import Numbers
from guided_dlm.automata.json_schema.spelling import QUOTE
from guided_dlm.automata.json_schema.strings import Labelled, StringWriter
from guided_dlm.automata.json_schema.table import ByteTable, Row
from guided_dlm.automata.json_schema.texts import Texts
from guided_dlm.errors import AutomatonTooLarge

# States of all tables of one schema together, before those that are equal are merged.
MAX_SPENT = 1_500_000
_WORTH_MINIMISING = 20_000


class Space:
    """The automaton of what may stand between two tokens: `table` `[W, 256]`, `accepting` `[W]`."""

    def __init__(self, table: Table, accepting: list[bool]) -> None:
        """Keep both."""
        self.table, self.accepting = table, accepting

    def __len__(self) -> int:
        """Return the number of states."""
        return len(self.accepting)


class Fragment(NamedTuple):
    """The values of one expression: `rows` `[n, 256]` (cell n is what comes after), `ending` where numbers may end."""

    rows: Table
    ending: np.ndarray[tuple[int], np.dtype[np.int64]]
    cut: bool


class Library:
    """What all tables of one schema share: settings, automata of strings and numbers, and fragments to copy."""

    def __init__(self, graph: Graph, space: Space, any_order: bool, every_spelling: bool, limit: int) -> None:
        r"""`any_order` lets properties come in any order, `every_spelling` allows \u00XX for printable ASCII."""
        self.graph, self.space, self.limit = graph, space, limit
        self.any_order, self.every_spelling = any_order, every_spelling
        self.fragments: dict[tuple[int, int], Fragment | None] = {}
        self.labelled: dict[Texts, Labelled] = {}
        self.keys: dict[Hashable, Labelled] = {}
        self.byte_numbers: dict[Numbers, Dfa] = {}
        self.split: dict[ObjectShape, ObjectShape] = {}
        self.spent = 0

    def label(self, texts: Texts) -> Labelled:
        """Return a set of strings as a labelled automaton, once."""
        if texts not in self.labelled:
            self.labelled[texts] = Labelled.of(texts)
        return self.labelled[texts]

    def number(self, numbers: Numbers) -> Dfa:
        """Return the texts of a set of numbers over bytes, once."""
        if numbers not in self.byte_numbers:
            self.byte_numbers[numbers] = numbers.texts()
        return self.byte_numbers[numbers]

    def table(self, expression: int, fuel: int) -> tuple[ByteTable, int, bool] | None:
        """Return a table with the values of an expression, where they start, and whether depth cut some off."""
        table = ByteTable(self.limit)
        writer = Writer(self, table)
        row = writer.write(expression, table.end, fuel)
        if row is None:
            return None
        start = table.add(row)
        table.resolve()
        self.spent += table.size
        if self.spent > MAX_SPENT:
            raise AutomatonTooLarge(
                f"{table.where}: the parts of the schema take more than {MAX_SPENT} states together, most of them "
                "equal in the end. Fewer overlapping alternatives (anyOf, oneOf, not) help, and a smaller depth."
            )
        return table, start, writer.cut

    def fragment(self, expression: int, fuel: int) -> Fragment | None:
        """Return the values of an expression, ready to be copied."""
        key = (expression, fuel)
        if key not in self.fragments:
            found = self.table(expression, fuel)
            self.fragments[key] = None if found is None else _fragment(*found)
        return self.fragments[key]


def _fragment(table: ByteTable, start: int, cut: bool) -> Fragment:
    """Number the states, the start first and the end of the text last."""
    # Overlapping alternatives leave many equal states, which would multiply from level to level.
    if table.unions and table.size < _WORTH_MINIMISING:
        dfa = table.dfa(start)
        small, accepting = minimise(dfa.table, dfa.accepting)
        ends = accepting & (small < 0).all(axis=1)
        number = np.append(np.where(ends, small.shape[0], np.arange(small.shape[0])), DEAD).astype(np.int32)
        return Fragment(number[small[:, dfa.column_of]], np.flatnonzero(accepting & ~ends), cut)
    kept = np.arange(1, table.size)  # the end of the text was first
    kept[[0, start - 1]] = start, 1
    number = np.empty(table.size + 1, dtype=np.int32)
    number[kept] = np.arange(kept.size)
    number[[table.end, DEAD]] = kept.size, DEAD
    ending = np.array([number[state] for state in table.ends if state != table.end], dtype=np.int64)
    return Fragment(number[table.rows[kept]], ending, cut)


class Writer:
    """Writes values into one table."""

    def __init__(self, library: Library, table: ByteTable) -> None:
        """Start with an empty memo."""
        self.library, self.graph, self.table = library, library.graph, table
        self.strings = StringWriter(table, library.every_spelling)
        self.memo: dict[Hashable, Row | None] = {}
        self.gaps: dict[Hashable, int] = {}
        self.cut = False

    def fuel(self, parent: int, child: int, fuel: int) -> int | None:
        """Return the depth left for a child, None where the bound leaves it no value."""
        left = fuel - self.graph.costs(parent, child)
        if left >= self.graph.needs[child]:
            return left
        self.cut = self.cut or self.graph.needs[child] < FAR
        return None

    def value(self, expression: int, then: int, fuel: int) -> Row | None:
        """Return the first transitions of the values of an expression, which go on to state `then`.

        The row of `then` has to be filled already: numbers end where it begins.
        """
        fuel = fuel if expression in self.graph.recursive else 0
        key = (expression, then, fuel)
        if key not in self.memo:
            before = self.table.where
            self.table.where = self.graph.normaliser.path(expression)
            if self.graph.is_shared(expression):
                self.memo[key] = self._copy(self.library.fragment(expression, fuel), then)
            else:
                self.memo[key] = self.write(expression, then, fuel)
            self.table.where = before
        return self.memo[key]

    def _copy(self, fragment: Fragment | None, then: int) -> Row | None:
        if fragment is None:
            return None
        self.cut = self.cut or fragment.cut
        size = fragment.rows.shape[0]
        base = self.table.allocate(size)
        cells = np.array([*range(base, base + size), then, DEAD], dtype=np.int32)
        return self._place(cells[fragment.rows], fragment.ending, base, then)

    def _place(self, rows: Table, ending: np.ndarray[tuple[int], np.dtype[np.int64]], base: int, then: int) -> Row:
        """Put rows at their place, let some of them go on as `then` does, and return the first."""
        rows[ending] = np.maximum(rows[ending], self.table.rows[then])
        self.table.rows[base : base + rows.shape[0]] = rows
        if then in self.table.ends:
            self.table.ends.update((base + ending).tolist())
        return {int(byte): int(rows[0, byte]) for byte in np.flatnonzero(rows[0] >= 0)}

    def write(self, expression: int, then: int, fuel: int) -> Row | None:
        """Write the values of an expression anew; see `value`."""
        form = self.graph.normaliser.form(expression)
        row: Row = {}
        for name in form.constants:
            row[ord(name[0])] = self.table.literal(name[1:].encode(), then)
        if not form.numbers.is_empty():
            row.update(self._number(form.numbers, then))
        if not form.strings.is_empty():
            row[QUOTE] = self.strings.write(self.library.label(form.strings), {0: then})
        opened = [
            s for s in (arrays.write(self, shape, expression, then, fuel) for shape in form.arrays) if s is not None
        ]
        if opened:
            row[ord("[")] = self.table.union(opened)
        opened = [
            s for s in (objects.write(self, shape, expression, then, fuel) for shape in form.objects) if s is not None
        ]
        if opened:
            row[ord("{")] = self.table.union(opened)
        return row or None

    def _number(self, numbers: Numbers, then: int) -> Row:
        table, accepting, _ = self.library.number(numbers)
        base = self.table.allocate(table.shape[0])
        return self._place(np.where(table >= 0, table + base, DEAD), np.flatnonzero(accepting), base, then)

    def gap(self, row: Row) -> int:
        """Return the state before white space and one of these tokens; equal ones are one state."""
        key = tuple(sorted(row.items()))
        if key not in self.gaps:
            self.gaps[key] = self.open_gap()
            self.fill_gap(self.gaps[key], row)
        return self.gaps[key]

    def open_gap(self) -> int:
        """Return a state whose tokens are filled in later."""
        return self.table.allocate(len(self.library.space))

    def fill_gap(self, state: int, row: Row) -> None:
        """Give an open gap its tokens."""
        block = np.where(self.library.space.table >= 0, self.library.space.table + state, DEAD)
        self.table.rows[state : state + len(self.library.space)] = block
        for index, may_end in enumerate(self.library.space.accepting):
            if may_end:
                self.table.fill(state + index, row)
