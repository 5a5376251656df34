"""Strings in the byte table: a labelled automaton over characters, every character in each of its JSON spellings."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from guided_dlm.automata.dfa import DEAD, IntArray, Table
from guided_dlm.automata.json_schema.spelling import QUOTE, Block, Choice, Template, template
from guided_dlm.automata.json_schema.table import ByteTable
from guided_dlm.automata.json_schema.texts import Texts

_BATCH_CELLS = 1 << 22


class Labelled:
    """A character automaton whose accepting states carry labels: `table` `[S, C]`, `label` `[S]` (-1 none).

    `reach[s]` has a bit for each label that can still be met from state s; None stands for one label, 0, everywhere.
    """

    def __init__(
        self, table: Table, label: IntArray, starts: IntArray, labels: IntArray, reach: Sequence[int] | None
    ) -> None:
        """Keep the parts as they are."""
        self.table, self.label, self.starts, self.labels, self.reach = table, label, starts, labels, reach
        self.choices: dict[tuple[int, ...], Choice] = {}
        self.rows: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def row(self, state: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the distinct states after one, in the order of the classes, and which of them each class leads to."""
        if state not in self.rows:
            slots: dict[int, int] = {}
            row = tuple(DEAD if a < 0 else slots.setdefault(a, len(slots)) for a in self.table[state].tolist())
            self.rows[state] = tuple(slots), row
        return self.rows[state]

    @classmethod
    def of(cls, texts: Texts) -> Labelled:
        """Return the automaton of a set of strings, label 0."""
        return cls(texts.table, np.where(texts.accepting, 0, -1), texts.starts, texts.labels, None)

    def choice(self, slots: tuple[int, ...]) -> Choice:
        """Return the choice among code points that a row with these slots makes."""
        if slots not in self.choices:
            by_interval = np.append(np.array(slots, dtype=np.int64), -1)[self.labels]
            kept = np.flatnonzero(np.diff(by_interval, prepend=-2))
            self.choices[slots] = tuple(self.starts[kept].tolist()), tuple(by_interval[kept].tolist())
        return self.choices[slots]


class StringWriter:
    """Writes strings into a table; equal rests with equal continuations are written once."""

    def __init__(self, table: ByteTable, every: bool) -> None:
        r"""`every` allows \\u00XX for printable ASCII."""
        self.table, self.every = table, every
        self.memo: dict[Hashable, int] = {}
        self.kept: dict[int, Mapping[int, int]] = {}  # so that no other mapping gets its id
        self.blocks: dict[tuple[Block, int], int] = {}

    def write(self, strings: Labelled, then: Mapping[int, int], allowed: int = 1) -> int:
        """Return the state after the opening quote; past the closing one, label i goes on in state `then[i]`.

        `allowed` has a bit for each label that may be met. A mapping may grow, but what it holds stays.
        """
        fresh: list[tuple[int, int]] = []
        entry = self._state(strings, 0, then, allowed, fresh)
        targets: list[tuple[int, tuple[int, ...], list[int]]] = []
        for state, number in fresh:  # grows while it is walked
            afters, row = strings.row(state)
            reached = [self._state(strings, after, then, allowed, fresh) for after in afters]
            slots: dict[int, int] = {}
            renamed = [DEAD if t == DEAD else slots.setdefault(t, len(slots)) for t in reached]
            if renamed != list(range(len(renamed))):
                row = tuple(DEAD if slot < 0 else renamed[slot] for slot in row)
            targets.append((number, row, list(slots)))
        groups: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
        for number, row_key, reached in targets:
            if reached:
                groups.setdefault(row_key, []).append((number, reached))
        for row_key, members in groups.items():
            self._instantiate(template(strings.choice(row_key), self.every), members)
        for state, number in fresh:
            label = int(strings.label[state])
            if label >= 0 and allowed >> label & 1:
                self.table.rows[number, QUOTE] = then[label]
        return entry

    def _state(
        self, strings: Labelled, state: int, then: Mapping[int, int], allowed: int, fresh: list[tuple[int, int]]
    ) -> int:
        """Return the number of a character state under these continuations, DEAD where none can be met."""
        if strings.reach is None:
            key: Hashable = (id(strings), state, then[0])
        else:
            rest = strings.reach[state] & allowed
            if not rest:
                return DEAD
            key = (id(strings), state, id(then), rest)
            self.kept.setdefault(id(then), then)
        if key not in self.memo:
            self.memo[key] = self.table.allocate(1)
            fresh.append((state, self.memo[key]))
        return self.memo[key]

    def _instantiate(self, piece: Template, members: list[tuple[int, list[int]]]) -> None:
        """Fill the rows of states that make the same choice, and add the states inside their characters."""
        inner = piece.own.shape[0] - 1
        base = self.table.allocate(inner * len(members)) if inner else 0
        lists = []
        for index, (number, reached) in enumerate(members):
            first = base + index * inner
            cells = [DEAD, number, *range(first, first + inner)]
            for target, block in zip(reached, piece.blocks, strict=True):
                cells.append(target)
                start = self._block(block, target)
                cells += range(start, start + block.rows.shape[0])
            lists.append(cells)
        size = max(1, _BATCH_CELLS // piece.own.size)
        for at in range(0, len(members), size):
            filled = np.array(lists[at : at + size], dtype=np.int32)[:, piece.own]
            self.table.rows[[number for number, _ in members[at : at + size]]] = filled[:, 0]
            first = base + at * inner
            self.table.rows[first : first + inner * filled.shape[0]] = filled[:, 1:].reshape(-1, 256)

    def _block(self, block: Block, target: int) -> int:
        count = block.rows.shape[0]
        if not count:
            return 0
        if (block, target) not in self.blocks:
            base = self.table.allocate(count)
            cells = np.array([target, *range(base, base + count), DEAD], dtype=np.int32)
            self.table.rows[base : base + count] = cells[block.rows]
            self.blocks[block, target] = base
        return self.blocks[block, target]
