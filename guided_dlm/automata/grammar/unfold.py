"""The grammar as one automaton of threads: where a text may stand in the rules that are open, and what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from guided_dlm.automata.grammar.networks import FINAL, START, Network, Terminals
from guided_dlm.automata.grammar.recursion import Kind, Plan
from guided_dlm.errors import AutomatonTooLarge

ACCEPT = -1


class Context(NamedTuple):
    """How a rule was entered: nesting so far, the point to go to when it ends (ACCEPT: the text is complete).

    `target` is the rule that was called where it belongs to a left-recursive group: the group runs as one.
    """

    depth: int
    then: int
    target: str


class Point(NamedTuple):
    """A state of one rule's network in one context."""

    rule: str
    state: int
    context: Context


class Unfolding:
    """Points, numbered as they are met, for one bound on the depth."""

    def __init__(self, networks: Mapping[str, Network], plan: Plan, start: str, depth: int, max_points: int) -> None:
        """Start where the start rule starts."""
        self.networks, self.plan, self.depth, self.max_points = networks, plan, depth, max_points
        self.points: list[Point] = []
        self.number: dict[Point, int] = {}
        self.after: dict[str, list[tuple[str, int]]] = {name: [] for name in networks}
        for (name, _, called, target), kind in plan.kind.items():
            if kind is Kind.LOOP:
                self.after[called].append((name, target))
        self.start = self._enter(start, 1, ACCEPT)

    def point(self, rule: str, state: int, context: Context) -> int:
        """Return the number of a point.

        Raises:
            AutomatonTooLarge: there are too many.
        """
        key = Point(rule, state, context)
        if key not in self.number:
            if len(self.points) >= self.max_points:
                counts: dict[str, int] = {}
                for known in self.points:
                    counts[known.rule] = counts.get(known.rule, 0) + 1
                most = max(counts, key=lambda name: counts[name])
                raise AutomatonTooLarge(
                    f"At a depth of {self.depth} the grammar has more than {self.max_points} places to stand, most of "
                    f"them in the rule {most!r}. Lower depth=, or call that rule from fewer places and less often."
                )
            self.number[key] = len(self.points)
            self.points.append(key)
        return self.number[key]

    def ready(self, points: list[int]) -> tuple[list[tuple[Terminals, int]], bool]:
        """Return what can be read next from any of the points, as (terminals, point after), and whether it may end."""
        stack, met = list(points), set(points)
        reads: list[tuple[Terminals, int]] = []
        accepts = False
        while stack:
            rule, state, context = self.points[stack.pop()]
            network = self.networks[rule]
            reads += [(terminals, self.point(rule, target, context)) for terminals, target in network.reads[state]]
            following = self._ends(rule, context) if state == FINAL else self._calls(rule, state, context)
            if state in network.ends:
                following.append(self.point(rule, FINAL, context))
            for point in following:
                if point == ACCEPT:
                    accepts = True
                elif point not in met:
                    met.add(point)
                    stack.append(point)
        return reads, accepts

    def _enter(self, rule: str, depth: int, then: int) -> list[int]:
        group = self.plan.group[rule]
        context = Context(depth, then, rule if group else "")
        return [self.point(member, START, context) for member in group or (rule,)]

    def _ends(self, rule: str, context: Context) -> list[int]:
        if not context.target:
            return [context.then]
        following = [self.point(name, target, context) for name, target in self.after[rule]]
        return [*following, context.then] if rule == context.target else following

    def _calls(self, rule: str, state: int, context: Context) -> list[int]:
        entered: list[int] = []
        for called, target in self.networks[rule].calls[state]:
            call = (rule, state, called, target)
            kind = self.plan.kind[call]
            inside = self.plan.component[called] == self.plan.component[rule]
            depth = context.depth + (call in self.plan.counted) if inside else 1
            if kind is Kind.LOOP or depth > self.depth:
                continue
            if kind is Kind.RESTART:
                entered.append(self.point(rule, START, context))
            else:
                then = context.then if kind is Kind.TAIL else self.point(rule, target, context)
                entered += self._enter(called, depth, then)
        return entered
