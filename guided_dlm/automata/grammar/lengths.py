"""Least lengths: of a text of each rule, and of a text that nests more than so many times."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping

from guided_dlm.automata.grammar.networks import FINAL, START, Network, Terminals
from guided_dlm.automata.grammar.recursion import Plan, calls_of, components

NEVER = float("inf")
Weights = Mapping[str, float]


class Lengths:
    """Least numbers of characters, by rule; `NEVER` where a rule derives no finite text.

    Attributes:
        order: the rules reachable from the start rule, callees first.
        least: of a text of the rule.
        around: of what stands around the rule in a text of the start rule.
    """

    def __init__(self, networks: Mapping[str, Network], start: str, shortest: Callable[[Terminals], float]) -> None:
        """Measure; `shortest` gives the least length of some of the terminals."""
        self.networks, self.start, self.shortest = networks, start, shortest
        self.least: dict[str, float] = dict.fromkeys(networks, NEVER)
        found = components([start], lambda name: [called for _, _, called, _ in calls_of(name, networks[name])])
        self.order = [name for names in found for name in names]
        for names in found:
            changed = True
            while changed:
                changed = False
                for name in names:
                    length = self._distances(networks[name], START)[FINAL]
                    changed |= length < self.least[name]
                    self.least[name] = min(length, self.least[name])
        self.around: dict[str, float] = dict.fromkeys(networks, NEVER)
        self._measure_around()

    def beyond(self, plan: Plan, most: float) -> Iterator[float]:
        """Yield, for n = 1, 2, ..., the least length of a text that has n nested calls which count, endlessly.

        Ends after the first that is more than `most`, as all later ones are.
        """
        edges = [
            (call, self._beside(call))
            for name in plan.component
            for call in calls_of(name, self.networks[name])
            if plan.component[call[2]] == plan.component[name]
        ]
        edges = [(call, cost) for call, cost in edges if cost < NEVER]
        cost: dict[str, float] = dict(self.least)
        while True:
            after: dict[str, float] = dict.fromkeys(cost, NEVER)
            for call, beside in edges:
                if call in plan.counted:
                    after[call[0]] = min(after[call[0]], beside + cost[call[2]])
            changed = True
            while changed:
                changed = False
                for call, beside in edges:
                    if call not in plan.counted and beside + after[call[2]] < after[call[0]]:
                        after[call[0]] = beside + after[call[2]]
                        changed = True
            cost = after
            length = min((self.around[name] + cost[name] for name in cost), default=NEVER)
            yield length
            if length > most:
                return

    def _edges(self, network: Network, state: int) -> Iterator[tuple[int, float]]:
        for terminals, target in network.reads[state]:
            yield target, self.shortest(terminals)
        for called, target in network.calls[state]:
            yield target, self.least[called]
        if state in network.ends:
            yield FINAL, 0

    def _distances(self, network: Network, source: int, reverse: bool = False) -> list[float]:
        """Return the least length from `source` to every state, or from every state to `source`."""
        links: list[list[tuple[int, float]]] = [[] for _ in range(network.size)]
        for state in range(network.size):
            for target, weight in self._edges(network, state):
                links[target if reverse else state].append((state if reverse else target, weight))
        distance = [NEVER] * network.size
        distance[source] = 0
        queue = [(0.0, source)]
        while queue:
            length, state = heapq.heappop(queue)
            if length > distance[state]:
                continue
            for target, weight in links[state]:
                if length + weight < distance[target]:
                    distance[target] = length + weight
                    heapq.heappush(queue, (distance[target], target))
        return distance

    def _both_ways(self, name: str) -> tuple[list[float], list[float]]:
        network = self.networks[name]
        return self._distances(network, START), self._distances(network, FINAL, reverse=True)

    def _beside(self, call: tuple[str, int, str, int]) -> float:
        """Return the least length of what stands beside a call in its rule."""
        if call[0] not in self._cache:
            self._cache[call[0]] = self._both_ways(call[0])
        before, after = self._cache[call[0]]
        return before[call[1]] + after[call[3]]

    def _measure_around(self) -> None:
        self._cache: dict[str, tuple[list[float], list[float]]] = {}
        self.around[self.start] = 0
        queue = [(0.0, self.start)]
        while queue:
            length, name = heapq.heappop(queue)
            if length > self.around[name]:
                continue
            for call in calls_of(name, self.networks[name]):
                total = length + self._beside(call)
                if total < self.around[call[2]]:
                    self.around[call[2]] = total
                    heapq.heappush(queue, (total, call[2]))
