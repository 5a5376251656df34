r"""From a choice among code points to the JSON spellings of each: raw UTF-8, short escapes, \uXXXX, surrogate pairs."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from guided_dlm.automata.codepoints import LIMIT
from guided_dlm.automata.dfa import DEAD, Table

QUOTE, BACKSLASH = 0x22, 0x5C
_SHORT = {0x22: 0x22, 0x5C: 0x5C, 0x2F: 0x2F, 0x62: 8, 0x66: 12, 0x6E: 10, 0x72: 13, 0x74: 9}
_HEX = [tuple(f"{digit:x}{digit:X}".encode()) for digit in range(16)]

# A choice: code points from starts[i] on go to slot slots[i], -1 is nowhere.
Choice = tuple[tuple[int, ...], tuple[int, ...]]


class Template(NamedTuple):
    """A piece of automaton that reads one character; cells index a list of states that is filled in on use.

    That list is: dead, the `own` states (the first reads the character), then for every slot its target and the states
    of its `blocks[slot]`, which lead to that target only and are shared by all that do. Block cells count from 1; their
    target is 0.
    """

    own: Table
    blocks: tuple[Block, ...]


class Block:
    """States that lead to one target: `rows` `[n, 256]`, cells -1 dead, 0 the target, i + 1 the block's state i."""

    def __init__(self, rows: Table) -> None:
        self.rows = rows


class _Nodes:
    """Hash-consed nodes: byte -> node (>= 0) or slot (~slot)."""

    def __init__(self, choice: Choice, every: bool) -> None:
        self.starts, self.slots = (*choice[0], LIMIT), (*choice[1], -1)
        self.every = every
        self.number: dict[tuple[tuple[int, int], ...], int] = {}
        self.edges: list[tuple[tuple[int, int], ...]] = []
        self.full_memo: dict[tuple[str, int, int], int] = {}

    def node(self, edges: dict[int, int]) -> int | None:
        """Return the node with these edges; None where there are none."""
        if not edges:
            return None
        key = tuple(sorted(edges.items()))
        found = self.number.setdefault(key, len(self.edges))
        if found == len(self.edges):
            self.edges.append(key)
        return found

    def slot(self, point: int) -> int:
        return self.slots[bisect_right(self.starts, point) - 1]

    def constant(self, low: int, high: int) -> int | None:
        """Return the slot of all code points in [low, high), None where they differ."""
        first = bisect_right(self.starts, low) - 1
        return self.slots[first] if first + 1 == len(self.starts) or self.starts[first + 1] >= high else None

    def utf8(self, low: int, levels: int) -> int | None:
        """Return what reads `levels` continuation bytes, for the code points from `low` on."""
        size = 64**levels
        slot = self.constant(low, low + size)
        if slot is not None and slot < 0:
            return None
        if not levels:
            assert slot is not None
            return ~slot
        if slot is not None:
            key = ("utf8", levels, slot)
            if key not in self.full_memo:
                below = self.utf8(low, levels - 1)
                assert below is not None
                self.full_memo[key] = self.node(dict.fromkeys(range(0x80, 0xC0), below)) or 0
            return self.full_memo[key]
        step = size // 64
        found = {0x80 + i: self.utf8(low + i * step, levels - 1) for i in range(64)}
        return self.node({byte: node for byte, node in found.items() if node is not None})

    def overlong(self, first: int, least: int, step: int, levels: int) -> int | None:
        """Like `utf8`, for a lead byte under which the code points below `least` are overlong."""
        found = {0x80 + i: self.utf8(i * step, levels - 1) for i in range(64) if first + i * step >= least}
        return self.node({byte: node for byte, node in found.items() if node is not None})

    def hexadecimal(self, unit: int, levels: int) -> int | None:
        r"""Return what reads the last `levels` digits of a \u escape whose value is in [unit, unit + 16^levels)."""
        size = 16**levels
        surrogate = 0xD800 <= unit < 0xE000
        if not surrogate and not unit <= 0xD800 < unit + size:
            slot = self.constant(unit, unit + size)
            kind = "hex"
            skipped = not self.every and slot is not None and unit >= 0x20 and unit + size <= 0x7F
            if (slot is not None and slot < 0) or skipped:
                return None
            if not levels:
                assert slot is not None
                return ~slot
            mixed = not self.every and unit < 0x80
            slot = None if mixed else slot
        elif surrogate:
            if unit >= 0xDC00:
                return None
            low = 0x10000 + (unit - 0xD800) * 0x400
            slot = self.constant(low, low + size * 0x400)
            kind = "pair"
            if slot is not None and slot < 0:
                return None
            if not levels:
                return self.second_half(low)
        else:
            slot, kind = None, ""
        key = (kind, levels, slot if slot is not None else -1)
        if slot is not None and key in self.full_memo:
            return self.full_memo[key]
        step = size // 16
        edges: dict[int, int] = {}
        for digit in range(16):
            node = self.hexadecimal(unit + digit * step, levels - 1)
            if node is not None:
                edges.update(dict.fromkeys(_HEX[digit], node))
        found = self.node(edges)
        if slot is not None and found is not None:
            self.full_memo[key] = found
        return found

    def second_half(self, low: int) -> int | None:
        r"""Return what reads \uDC00 to \uDFFF for the 1024 code points from `low` on."""
        slot = self.constant(low, low + 0x400)
        if slot is not None and ("second", 0, slot) in self.full_memo:
            return self.full_memo["second", 0, slot]
        top: dict[int, int] = {}
        for digit in range(12, 16):
            middle: dict[int, int] = {}
            for upper in range(16):
                base = low + (digit - 12) * 256 + upper * 16
                cells = {lower: self.slot(base + lower) for lower in range(16)}
                last = self.node({b: ~s for lower, s in cells.items() if s >= 0 for b in _HEX[lower]})
                if last is not None:
                    middle.update(dict.fromkeys(_HEX[upper], last))
            node = self.node(middle)
            if node is not None:
                top.update(dict.fromkeys(_HEX[digit], node))
        found = self.node(top)
        for label in (b"dD", b"u", b"\\"):
            found = None if found is None else self.node(dict.fromkeys(label, found))
        if slot is not None and found is not None:
            self.full_memo["second", 0, slot] = found
        return found

    def root(self) -> int | None:
        """Return what reads one character in any spelling."""
        edges: dict[int, int | None] = {}
        for point in range(0x20, 0x80):
            if point not in (QUOTE, BACKSLASH):
                edges[point] = self.utf8(point, 0)
        for lead in range(0xC2, 0xE0):
            edges[lead] = self.utf8((lead - 0xC0) * 64, 1)
        edges[0xE0] = self.overlong(0, 0x800, 64, 2)
        for lead in range(0xE1, 0xF0):
            edges[lead] = self.utf8((lead - 0xE0) << 12, 2)
        edges[0xF0] = self.overlong(0, 0x10000, 1 << 12, 3)
        for lead in range(0xF1, 0xF5):
            edges[lead] = self.utf8((lead - 0xF0) << 18, 3)
        escapes: dict[int, int | None] = {byte: self.utf8(point, 0) for byte, point in _SHORT.items()}
        escapes[0x75] = self.hexadecimal(0, 4)
        edges[BACKSLASH] = self.node({byte: node for byte, node in escapes.items() if node is not None})
        return self.node({byte: node for byte, node in edges.items() if node is not None})


@lru_cache(maxsize=1 << 16)
def template(choice: Choice, every: bool) -> Template:
    r"""Return the automaton piece that reads one character of a choice.

    Without `every`, printable ASCII is not read in its \u00XX spelling, which no serialiser writes.
    """
    nodes = _Nodes(choice, every)
    root = nodes.root()
    slots = 1 + max(choice[1])
    own_slots: list[set[int]] = []
    for edges in nodes.edges:  # children come first
        own_slots.append({s for _, t in edges for s in ([~t] if t < 0 else own_slots[t])})
    count = len(nodes.edges)
    shared: list[list[int]] = [[] for _ in range(slots)]
    own = [] if root is None else [root]
    for node in range(count):
        if node != root and len(own_slots[node]) > 1:
            own.append(node)
        elif node != root:
            shared[next(iter(own_slots[node]))].append(node)
    blocks = tuple(_block(tuple(tuple(nodes.edges[n]) for n in members), tuple(members)) for members in shared)
    cell, offset = {}, 1
    for index, node in enumerate(own):
        cell[node] = 1 + index
    offset += max(1, len(own))
    for slot, members in enumerate(shared):
        cell[~slot] = offset
        cell.update({node: offset + 1 + i for i, node in enumerate(members)})
        offset += 1 + len(members)
    rows = np.zeros((max(1, len(own)), 256), dtype=np.int32)
    for index, node in enumerate(own):
        for byte, target in nodes.edges[node]:
            rows[index, byte] = cell[target]
    return Template(rows, blocks)


def _block(edges: tuple[tuple[tuple[int, int], ...], ...], members: tuple[int, ...]) -> Block:
    """Return the block of some nodes; equal blocks are one object, so that their states are shared."""
    place = {node: i + 1 for i, node in enumerate(members)}
    return _interned(tuple(tuple((b, 0 if t < 0 else place[t]) for b, t in row) for row in edges))


@lru_cache(maxsize=1 << 14)
def _interned(rows: tuple[tuple[tuple[int, int], ...], ...]) -> Block:
    table = np.full((len(rows), 256), DEAD, dtype=np.int32)
    for index, row in enumerate(rows):
        for byte, cell in row:
            table[index, byte] = cell
    return Block(table)
