"""Rewriting rules that call one another so that less recursion is left, without changing a text.

Direct left and right recursion becomes a loop: with `a: a x | y a | a z a | w` an a is y* w, then any number of
(x or z y* w). A rule that does not call itself is put in place of the calls of it. Together they turn, say,
`np: det n | np pp` and `pp: p np` into det n (p det n)*, which needs no bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from guided_dlm.automata.grammar.networks import FINAL, START, Graph, Network, determinise, split
from guided_dlm.automata.grammar.recursion import calls_of, components
from guided_dlm.errors import AutomatonTooLarge

MAX_INLINED = 400
MAX_TRIALS = 8
MAX_TRIED = 4_000


def simplify(networks: Mapping[str, Network], start: str) -> dict[str, Network]:
    """Return the networks with loops for direct recursion, and recursive rules put in place of their calls."""
    simpler = dict(networks)
    for names in components([start], lambda name: _called(networks[name])):
        remaining, tried = set(names), 0
        # Many rules that all call one another grow for nothing: nesting is what they are for.
        while len(remaining) > 1 and tried < MAX_TRIED:
            # Loops are made last: seen from `np: np pp`, a `pp: p np` in its place is worth more than in (pp)*.
            trials = [(name, _inlined(simpler, remaining, name)) for name in _candidates(simpler, remaining)]
            tried += sum(network.size for _, changed in trials for network in (changed or {}).values())
            possible = [
                (sum(_nested(name, network) for name, network in changed.items()), place, chosen, changed)
                for place, (chosen, changed) in enumerate(trials)
                if changed is not None
            ]
            if not possible:
                break
            _, _, chosen, changed = min(possible, key=lambda item: item[:2])
            simpler.update(changed)
            remaining.discard(chosen)
        simpler.update({name: _looped(name, simpler[name]) for name in names})
    return simpler


def _nested(name: str, network: Network) -> int:
    """Return how many calls of a rule by itself no loop can replace."""
    return _called(_looped(name, network)).count(name)


def _called(network: Network) -> list[str]:
    return [called for row in network.calls for called, _ in row]


def _looped(name: str, network: Network) -> Network:
    """Turn calls of the rule itself, as first or last thing, into ways back to its end and its start."""
    if name not in _called(network):
        return network
    network = split(network, {name})
    direct = [
        (state, target)
        for _, state, called, target in calls_of(name, network)
        if called == name and (state == START or target == FINAL)
    ]
    if not direct:
        return network
    graph = Graph()
    graph.copy(network)
    first, last = 2 + START, 2 + FINAL
    graph.empty[START].append(first)
    graph.empty[last].append(FINAL)
    for state, target in direct:
        graph.edges[state + 2].remove((name, target + 2))
        if state == START:
            graph.empty[last].append(target + 2 if target != FINAL else last)
        else:
            graph.empty[state + 2].append(first)
    return _smaller(name, graph) or network


def _candidates(networks: Mapping[str, Network], remaining: Iterable[str]) -> list[str]:
    """Return the rules that need not call themselves, those that cost least to put in place first."""
    free = [name for name in remaining if not _nested(name, networks[name])]
    sites = {name: sum(_called(networks[caller]).count(name) for caller in remaining) for name in free}
    costs = sorted((sites[name] * networks[name].size, name) for name in free if sites[name])
    return [name for _, name in costs[:MAX_TRIALS]]


def _inlined(networks: Mapping[str, Network], remaining: set[str], chosen: str) -> dict[str, Network] | None:
    """Return the remaining rules that call one, with it in place of the calls; None if one of them grows too large."""
    body = _looped(chosen, networks[chosen])
    changed = {}
    for name in remaining - {chosen}:
        if chosen not in _called(networks[name]):
            continue
        graph = Graph()
        first, last = graph.copy(networks[name])
        graph.empty[START].append(first)
        graph.empty[last].append(FINAL)
        for state in range(first, first + networks[name].size):
            for symbol, target in graph.edges[state][:]:
                if symbol == chosen:
                    graph.edges[state].remove((symbol, target))
                    entry, leave = graph.copy(body)
                    graph.empty[state].append(entry)
                    graph.empty[leave].append(target)
        smaller = _smaller(name, graph)
        if smaller is None:
            return None
        changed[name] = smaller
    return changed


def _smaller(name: str, graph: Graph) -> Network | None:
    """Return the graph made deterministic, or None where that is too large to be worth it."""
    if len(graph.empty) > 4 * MAX_INLINED:
        return None
    try:
        return determinise(name, graph, MAX_INLINED)
    except AutomatonTooLarge:
        return None
