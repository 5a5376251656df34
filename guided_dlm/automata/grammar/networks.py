"""Each rule as a small automaton whose edges read a terminal or call a rule: a recursive transition network."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from guided_dlm.automata.dfa import DEAD, Mask, Table, minimise
from guided_dlm.automata.grammar.rules import Call, Choice, Expression, Repeat, Sequence, Terminal, unrolled_size
from guided_dlm.errors import AutomatonTooLarge

MAX_POSITIONS = 40_000
MAX_CELLS = 8_000_000
START, FINAL = 0, 1

Terminals = frozenset[Terminal]


@dataclass(frozen=True)
class Network:
    """One rule. Nothing leads to state START, and nothing leads on from state FINAL, where the rule ends.

    `reads[s]` and `calls[s]` list (terminals, target) and (rule, target). Terminals on parallel edges are merged. The
    rule may also end in the states of `ends`, which have more to read or call, or are START.
    """

    ends: frozenset[int]
    reads: tuple[tuple[tuple[Terminals, int], ...], ...]
    calls: tuple[tuple[tuple[str, int], ...], ...]

    @property
    def size(self) -> int:
        """Return the number of states."""
        return len(self.reads)


class Graph:
    """A non-deterministic network under construction, over terminals and calls; state 0 starts, state 1 is final."""

    def __init__(self) -> None:
        """Start with two states and no edges."""
        self.empty: list[list[int]] = [[], []]
        self.edges: list[list[tuple[Terminals | str, int]]] = [[], []]

    def state(self) -> int:
        """Add a state and return its number."""
        self.empty.append([])
        self.edges.append([])
        return len(self.empty) - 1

    def add(self, expression: Expression, entry: int, nullable: Mapping[Terminal, bool]) -> int:
        """Add an expression after `entry`; return the state after it."""
        if isinstance(expression, Sequence):
            for item in expression.items:
                entry = self.add(item, entry, nullable)
            return entry
        if isinstance(expression, Choice):
            leave = self.state()
            for item in expression.items:
                self.empty[self.add(item, entry, nullable)].append(leave)
            return leave
        if isinstance(expression, Repeat):
            return self._repeat(expression, entry, nullable)
        after = self.state()
        symbol = expression.rule if isinstance(expression, Call) else frozenset([expression])
        self.edges[entry].append((symbol, after))
        if isinstance(expression, Terminal) and nullable[expression]:
            self.empty[entry].append(after)
        return after

    def _repeat(self, expression: Repeat, entry: int, nullable: Mapping[Terminal, bool]) -> int:
        for _ in range(expression.least):
            entry = self.add(expression.body, entry, nullable)
        leave = self.state()
        if expression.most is None:
            loop = self.state()
            self.empty[entry].append(loop)
            self.empty[self.add(expression.body, loop, nullable)].append(loop)
            entry = loop
        else:
            for _ in range(expression.most - expression.least):
                self.empty[entry].append(leave)
                entry = self.add(expression.body, entry, nullable)
        self.empty[entry].append(leave)
        return leave

    def copy(self, network: Network) -> tuple[int, int]:
        """Add the states and edges of a network; return its start and its final state here."""
        states = [self.state() for _ in range(network.size)]
        for state, reads, calls in zip(states, network.reads, network.calls, strict=True):
            self.edges[state] += [(terminals, states[target]) for terminals, target in reads]
            self.edges[state] += [(called, states[target]) for called, target in calls]
        for state in network.ends:
            self.empty[states[state]].append(states[FINAL])
        return states[START], states[FINAL]

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        """Return the states that empty edges lead to from any of these."""
        stack = list(states)
        met = set(stack)
        while stack:
            fresh = [s for s in self.empty[stack.pop()] if s not in met]
            met.update(fresh)
            stack += fresh
        return frozenset(s for s in met if self.edges[s] or s == FINAL)


def require_small(name: str, expression: Expression) -> None:
    """Refuse a rule whose counted repeats expand to too many positions.

    Raises:
        AutomatonTooLarge: they do.
    """
    if unrolled_size(expression) > MAX_POSITIONS:
        raise AutomatonTooLarge(
            f"The rule {name!r} expands to more than {MAX_POSITIONS} terminals and rules. Lower its counted repeats."
        )


def build(name: str, expression: Expression, nullable: Mapping[Terminal, bool]) -> Network:
    """Return the network of one rule, made deterministic and minimal over its symbols.

    Raises:
        AutomatonTooLarge: too many states are needed.
    """
    graph = Graph()
    graph.empty[graph.add(expression, START, nullable)].append(FINAL)
    return determinise(name, graph)


def determinise(name: str, graph: Graph, max_states: int = MAX_POSITIONS // 2) -> Network:
    """Return the deterministic, minimal network of a graph.

    Raises:
        AutomatonTooLarge: more than `max_states` states are needed.
    """
    symbols: dict[Terminals | str, int] = {}
    for row in graph.edges:
        for symbol, _ in row:
            symbols.setdefault(symbol, len(symbols))
    start = graph.closure([START])
    number, order, rows = {start: 0}, [start], []
    for states in order:
        moves: dict[int, set[int]] = {}
        for state in states:
            for symbol, target in graph.edges[state]:
                moves.setdefault(symbols[symbol], set()).add(target)
        cells = np.full(len(symbols), DEAD, dtype=np.int32)
        for column, targets in moves.items():
            key = graph.closure(targets)
            if key not in number:
                number[key] = len(order)
                order.append(key)
            cells[column] = number[key]
        rows.append(cells)
        if len(order) > max_states or len(order) * len(symbols) > MAX_CELLS:
            raise AutomatonTooLarge(
                f"The rule {name!r} needs more than {len(order) - 1} states once made deterministic. Make the "
                "alternatives inside its counted repeats exclusive, or lower the counts."
            )
    table, accepting = minimise(np.array(rows).reshape(len(rows), -1), np.array([FINAL in s for s in order]))
    return _normalise(table, accepting, list(symbols))


def _normalise(table: Table, accepting: Mask, symbols: list[Terminals | str]) -> Network:
    """Give the start no way in, and one final state that has no way out."""
    # State s becomes s + 2. START copies state 0; FINAL is where nothing can follow.
    onward = (table >= 0).any(axis=1)
    number = np.append(np.where(onward, np.arange(onward.size) + 2, FINAL), DEAD)[table]
    reads: list[tuple[tuple[Terminals, int], ...]] = [(), ()]
    calls: list[tuple[tuple[str, int], ...]] = [(), ()]
    for row in number.tolist():
        together: dict[int, set[Terminal]] = {}
        called: list[tuple[str, int]] = []
        for symbol, target in zip(symbols, row, strict=True):
            if target < 0:
                continue
            if isinstance(symbol, str):
                called.append((symbol, target))
            else:
                together.setdefault(target, set()).update(symbol)
        reads.append(tuple((frozenset(terminals), target) for target, terminals in together.items()))
        calls.append(tuple(called))
    ends = {state + 2 for state in np.flatnonzero(accepting & onward).tolist()} | ({START} if accepting[0] else set())
    reads[START], calls[START] = reads[2], calls[2]
    if not any(target == 2 for rows in (reads, calls) for row in rows for _, target in row):
        reads[2], calls[2] = (), ()
    return Network(frozenset(ends), tuple(reads), tuple(calls))


def split(network: Network, names: Container[str]) -> Network:
    """Tell apart, for calls of these rules, what may follow and the case that nothing does.

    A call whose target may end but need not becomes two: one to FINAL, one to a copy of the target that must go on.
    """
    reads, calls = list(network.reads), list(network.calls)
    copies: dict[int, int] = {}
    for state, row in enumerate(calls):  # grows as copies are made
        told_apart: list[tuple[str, int]] = []
        for called, target in row:
            if called in names and target in network.ends:
                if target not in copies:
                    copies[target] = len(reads)
                    reads.append(network.reads[target])
                    calls.append(network.calls[target])
                told_apart += [(called, FINAL), (called, copies[target])]
            else:
                told_apart.append((called, target))
        calls[state] = tuple(dict.fromkeys(told_apart))
    met, stack = {START}, [START]
    while stack:
        state = stack.pop()
        fresh = {target for row in (reads[state], calls[state]) for _, target in row} - met
        met |= fresh
        stack += fresh
    kept = [state in met for state in range(len(reads))]
    return Network(
        network.ends,
        tuple(row if keep else () for row, keep in zip(reads, kept, strict=True)),
        tuple(row if keep else () for row, keep in zip(calls, kept, strict=True)),
    )
