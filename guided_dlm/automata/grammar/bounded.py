"""A grammar ready to be made into automata, one for each bound on how deep it nests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from guided_dlm.automata.byte import ByteAutomaton
from guided_dlm.automata.grammar.determine import MAX_WORK, Determiniser
from guided_dlm.automata.grammar.lengths import NEVER, Lengths
from guided_dlm.automata.grammar.networks import Network, Terminals, build, require_small
from guided_dlm.automata.grammar.recursion import planned
from guided_dlm.automata.grammar.rules import Call, Rules, Terminal, leaves
from guided_dlm.automata.grammar.simplify import simplify
from guided_dlm.automata.grammar.terminals import Lexeme, alphabet, least_length, lexeme, merged
from guided_dlm.automata.grammar.unfold import Unfolding
from guided_dlm.automata.product import MAX_STATES
from guided_dlm.errors import AutomatonTooLarge, Infeasible

MAX_DEPTH = 4096
STATE_BUDGET = 10_000
DEFAULT_BYTES = 256
WORK_PER_STATE = 100


class Bounded(NamedTuple):
    """An automaton of a grammar, its bound on the depth, and whether a text may exist that only the bound keeps out."""

    automaton: ByteAutomaton
    depth: int
    can_bind: bool


class BoundedGrammar:
    """The texts of a grammar, exactly, but for a bound on how deep rules nest inside themselves.

    Left and right recursion are loops and need no bound. `nests` says whether anything is left that does: rules that
    come back to themselves with something still to follow. Depth 1 is no such return at all.
    """

    def __init__(self, rules: Rules) -> None:
        """Compile terminals and rules, and sort out the recursion.

        Raises:
            Infeasible: the grammar has no finite text.
            UnsupportedPattern: a terminal is not regular.
            AutomatonTooLarge: a terminal or a rule is too large on its own, or the shortest text is.
        """
        self.rules = rules
        used = _reachable(rules)
        for name in used:
            require_small(name, rules.rules[name])
        found = (leaf for name in used for leaf in leaves(rules.rules[name]) if isinstance(leaf, Terminal))
        shortest_of = {terminal: least_length(terminal) for terminal in dict.fromkeys(found)}
        nullable = {terminal: length == 0 for terminal, length in shortest_of.items()}
        networks = {name: build(name, rules.rules[name], nullable) for name in used}
        self._gap = 0.0 if rules.separator is None else least_length(Terminal(rules.separator, "spaces"))

        def shortest(terminals: Terminals) -> float:
            return self._gap + min(shortest_of[terminal] for terminal in terminals)

        _require_finite(rules, Lengths(networks, rules.start, shortest))
        least = Lengths(networks, rules.start, shortest).least
        networks = {name: _productive(network, least) for name, network in networks.items() if least[name] < NEVER}
        self.networks, self.plan = planned(simplify(networks, rules.start), rules.start)
        self.lengths = Lengths(self.networks, rules.start, shortest)
        self._number_terminals()

    @property
    def nests(self) -> bool:
        """Say whether some recursion needs a bound; if not, the automaton is exact."""
        return bool(self.plan.counted)

    def automaton(
        self, depth: int, max_states: int = MAX_STATES, max_work: int = MAX_WORK, start: str | None = None
    ) -> ByteAutomaton:
        """Return the texts that have a derivation in which rules nest at most `depth` deep.

        Raises:
            AutomatonTooLarge: more than `max_states` states are needed.
        """
        unfolding = Unfolding(
            self.networks, self.plan, start or self.rules.start, depth, min(MAX_STATES, 4 * max_states)
        )
        threads = Determiniser(unfolding, self.alphabet, self.later, self.first, self.ignored)
        table, accepting = threads.run(max_states, max_work)
        return ByteAutomaton._from_characters(table, accepting, self.alphabet.classes, max_states)

    def least_beyond(self, depth: int) -> float:
        """Return the least number of bytes of a text that needs more than `depth`, or a number that is less."""
        if not self.nests:
            return NEVER
        return next(itertools.islice(self.lengths.beyond(self.plan, NEVER), depth - 1, None)) - self._gap

    def enough_for(self, size: int, limit: int = MAX_DEPTH) -> int:
        """Return the least depth, `limit` at most, that no text of up to `size` bytes needs more than."""
        if not self.nests:
            return 1
        most = size + self._gap
        return 1 + sum(length <= most for length in itertools.islice(self.lengths.beyond(self.plan, most), limit - 1))

    def at_depth(self, depth: int, size: int = DEFAULT_BYTES) -> Bounded:
        """Return the automaton for a given depth; whether it can bind is about texts of up to `size` bytes."""
        return Bounded(self.automaton(depth), depth, self.nests and self.least_beyond(depth) <= size)

    def deepest(self, size: int = DEFAULT_BYTES, budget: int = STATE_BUDGET) -> Bounded:
        """Return the automaton for texts of up to `size` bytes: as deep as they need, or the budget allows.

        Raises:
            AutomatonTooLarge: even the least depth with a text does not fit the hard limit.
        """
        depth, best = 1, self.automaton(1)
        while best.is_empty():
            depth += 1
            best = self.automaton(depth)
        enough = max(depth, self.enough_for(size))
        # The least depth that is known to be too much; a sixteenth less than the deepest is not worth looking for.
        sizes, beyond = {depth: best.num_states}, enough + 1
        while depth + 1 < beyond and (beyond > enough or beyond - depth > 1 + depth // 16):
            following = _next(sizes, budget) if beyond > enough else (depth + beyond) // 2
            following = min(following, beyond - 1)
            found = self._within(following, budget)
            if found is None:
                beyond = following
                continue
            if found == best and self._settled(depth, budget):
                return Bounded(best, depth, False)
            depth, best = following, found
            sizes[depth] = best.num_states
        return Bounded(best, depth, self.nests and self.least_beyond(depth) <= size)

    def _within(self, depth: int, budget: int, start: str | None = None) -> ByteAutomaton | None:
        """Return the automaton for a depth, or None where it costs more than the budget."""
        try:
            found = self.automaton(depth, budget, budget * WORK_PER_STATE, start)
        except AutomatonTooLarge:
            return None
        return found if found.num_states <= budget else None

    def _settled(self, depth: int, budget: int) -> bool:
        """Say whether one level more adds nothing to any rule that nests, so that no level ever will."""
        for name in sorted({call[2] for call in self.plan.counted}):
            now, more = (self._within(level, budget, name) for level in (depth, depth + 1))
            if now is None or now != more:
                return False
        return True

    def _number_terminals(self) -> None:
        """Give every set of terminals an automaton: at the start of the text, and after other terminals."""
        sets = dict.fromkeys(t for n in self.networks.values() for row in n.reads for t, _ in row)
        separator = self.rules.separator
        lexemes: list[Lexeme] = []

        def number(terminals: Iterable[Terminal], separator: str | None) -> tuple[int, ...]:
            together = merged(terminals, separator)
            lexemes.extend(map(lexeme, together))
            return tuple(range(len(lexemes) - len(together), len(lexemes)))

        self.first = {terminals: number(terminals, None) for terminals in sets}
        self.later = self.first if separator is None else {terms: number(terms, separator) for terms in sets}
        self.ignored = number(dict.fromkeys(self.rules.ignored), None)
        self.alphabet = alphabet(lexemes)


def _next(sizes: Mapping[int, int], budget: int) -> int:
    """Return a deeper depth to try: twice the last, or less where states that grow on as they did would not fit."""
    depth = max(sizes)
    if len(sizes) < 3:
        return depth + 1
    before = sorted(sizes)[-2]
    power = math.log(max(1.0, sizes[depth] / sizes[before])) / math.log(depth / before)
    hopeful = depth * (budget / sizes[depth]) ** (1 / max(power, 0.1)) if sizes[depth] < budget else depth
    return max(depth + 1, int(min(2 * depth, hopeful)))


def _reachable(rules: Rules) -> list[str]:
    """Return the rules that the start rule leads to."""
    order = {rules.start: None}
    queue = [rules.start]
    for name in queue:
        for leaf in leaves(rules.rules[name]):
            if isinstance(leaf, Call) and leaf.rule not in order:
                order[leaf.rule] = None
                queue.append(leaf.rule)
    return queue


def _productive(network: Network, least: Mapping[str, float]) -> Network:
    """Return the network without calls of rules that have no finite text."""
    calls = tuple(tuple(call for call in row if least[call[0]] < NEVER) for row in network.calls)
    return Network(network.ends, network.reads, calls)


def _require_finite(rules: Rules, lengths: Lengths) -> None:
    if lengths.least[rules.start] == NEVER:
        name = next(name for name in lengths.order if lengths.least[name] == NEVER)
        raise Infeasible(
            f"The grammar has no finite text: the rule {rules.start!r} needs the rule {name!r}, and every text of that "
            "rule needs another one without end, or a terminal that no text matches. Give it an alternative that ends."
        )
    for name in lengths.order:
        if NEVER > lengths.least[name] > MAX_STATES:
            raise AutomatonTooLarge(
                f"The shortest text of the rule {name!r} has more than {MAX_STATES} characters, which is more states "
                "than an automaton may have. Lower the counts, or how often rules call one another."
            )
