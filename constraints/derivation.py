"""Whether a grammar derives a text: Earley's algorithm over characters, for any context-free grammar, to any depth.

It shares the reading of the grammar with the automata whose outputs it checks, and nothing else: no bound, no
rewriting, terminals matched by position.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from constraints.matching import ends
from guided_dlm.automata.grammar import Call, Choice, Expression, Repeat, Rules, Sequence, Terminal

# An item is (state, rule, origin): somewhere in a rule that began at a position of the text.
Item = tuple[int, str, int]


class Derivation:
    """The rules of a grammar as one graph of states, ready to recognise texts."""

    def __init__(self, rules: Rules) -> None:
        """Lay out every rule that the start rule leads to."""
        self.rules = rules
        self.empty: list[list[int]] = []
        self.edge: list[tuple[Terminal | Call, int] | None] = []
        self.entry: dict[str, int] = {}
        self.final: dict[str, int] = {}
        waiting = [rules.start]
        for name in waiting:
            if name not in self.entry:
                self.entry[name] = self._state()
                self.final[name] = self._lay(rules.rules[name], self.entry[name], waiting)

    def accepts(self, text: str) -> bool:
        """Say whether the start rule derives the text."""
        return _Recogniser(self, text).accepts()

    def _state(self) -> int:
        self.empty.append([])
        self.edge.append(None)
        return len(self.empty) - 1

    def _lay(self, expression: Expression, entry: int, waiting: list[str]) -> int:
        """Add the states of an expression after `entry`; return the one after it."""
        if isinstance(expression, Sequence):
            for item in expression.items:
                entry = self._lay(item, entry, waiting)
            return self._after(entry)
        after = self._state()
        if isinstance(expression, Choice):
            for item in expression.items:
                self.empty[self._lay(item, self._after(entry), waiting)].append(after)
        elif isinstance(expression, Repeat):
            for _ in range(expression.least):
                entry = self._lay(expression.body, entry, waiting)
            self.empty[entry].append(after)
            if expression.most is None:
                self.empty[self._lay(expression.body, self._after(after), waiting)].append(after)
            for _ in range((expression.most or 0) - expression.least):
                entry = self._lay(expression.body, entry, waiting)
                self.empty[entry].append(after)
        else:
            before = self._after(entry)
            self.edge[before] = (expression, after)
            if isinstance(expression, Call):
                waiting.append(expression.rule)
        return after

    def _after(self, state: int) -> int:
        after = self._state()
        self.empty[state].append(after)
        return after


class _Recogniser:
    """One run over one text: the items that hold at each position."""

    def __init__(self, derivation: Derivation, text: str) -> None:
        self.graph, self.text = derivation, text
        self.items: list[list[Item]] = [[] for _ in range(len(text) + 1)]
        self.met: list[set[Item]] = [set() for _ in range(len(text) + 1)]
        self.callers: list[dict[str, list[Item]]] = [{} for _ in range(len(text) + 1)]
        self.ends = cache(self._ends)

    def accepts(self) -> bool:
        rules = self.graph.rules
        self._add(0, (self.graph.entry[rules.start], rules.start, 0))
        for position, items in enumerate(self.items):
            for item in items:  # grows while it is walked
                self._follow(position, item)
        done = (self.graph.final[rules.start], rules.start, 0)
        return any(done in met and len(self.text) in self._skip(position) for position, met in enumerate(self.met))

    def _add(self, position: int, item: Item) -> None:
        if item not in self.met[position]:
            self.met[position].add(item)
            self.items[position].append(item)

    def _follow(self, position: int, item: Item) -> None:
        state, rule, origin = item
        for target in self.graph.empty[state]:
            self._add(position, (target, rule, origin))
        if state == self.graph.final[rule]:
            for caller, called_by, began in list(self.callers[origin].get(rule, ())):
                self._add(position, (caller, called_by, began))
        edge = self.graph.edge[state]
        if edge is None:
            return
        symbol, after = edge
        if isinstance(symbol, Terminal):
            for end in self.ends(symbol, position):
                self._add(end, (after, rule, origin))
            return
        self.callers[position].setdefault(symbol.rule, []).append((after, rule, origin))
        self._add(position, (self.graph.entry[symbol.rule], symbol.rule, position))
        # The rule may have been completed here already, by nothing, before this call of it was met.
        if (self.graph.final[symbol.rule], symbol.rule, position) in self.met[position]:
            self._add(position, (after, rule, origin))

    def _ends(self, terminal: Terminal, position: int) -> frozenset[int]:
        """Return where the terminal can end that begins here, after what may or must stand before it."""
        starts: Iterable[int] = self._skip(position)
        if self.graph.rules.separator is not None and position:
            starts = ends(self.graph.rules.separator, self.text, position)
        return frozenset().union(*(self._match(terminal, start) for start in starts))

    def _match(self, terminal: Terminal, start: int) -> frozenset[int]:
        found = ends(terminal.pattern, self.text, start)
        return frozenset([min(found)]) if found and terminal.lazy else found

    def _skip(self, position: int) -> set[int]:
        """Return where ignored terminals from here can end, none of them included."""
        reached, waiting = {position}, [position]
        while waiting:
            start = waiting.pop()
            for terminal in self.graph.rules.ignored:
                fresh = self._match(terminal, start) - reached
                reached |= fresh
                waiting += fresh
        return reached
