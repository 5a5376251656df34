"""How the rules of a grammar call one another: which recursion is a loop, and which one nests and needs a bound.

Inside a strongly connected set of rules a call is one of four kinds.

LOOP: the first thing of a rule that leads back to the rule by first things only (left recursion). All rules on such a
    cycle form a group; a group runs as one automaton in which "rule X ends here" leads to whatever follows X as a
    first thing.
RESTART: the last thing of a rule is the rule itself, which is all of its group: `e: e "+" e`. What was read is an e
    whenever the inner e is, so the running automaton just starts again.
TAIL: the last thing of a rule outside groups (right recursion): nothing has to be remembered.
PUSH: anything else; what follows must be remembered. Cycles with a push are what only a bound makes finite.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

from guided_dlm.automata.grammar.networks import FINAL, START, Network, split

Node = TypeVar("Node", bound=Hashable)
MAX_UNCOUNTED = 24
CallSite = tuple[str, int, str, int]


class Kind(Enum):
    """What a call needs; see the module's docstring."""

    LOOP = auto()
    RESTART = auto()
    TAIL = auto()
    PUSH = auto()


@dataclass(frozen=True)
class Plan:
    """The kind of each call `(rule, state, called, target)`, the calls that count as nesting, and the components.

    `component[rule]` numbers the strongly connected sets, callees first. `group[rule]` lists the rules of its
    left-recursive group, or is empty.
    """

    kind: Mapping[CallSite, Kind]
    counted: frozenset[CallSite]
    component: Mapping[str, int]
    group: Mapping[str, tuple[str, ...]]


def components(nodes: Iterable[Node], successors: Callable[[Node], Iterable[Node]]) -> list[list[Node]]:
    """Return the strongly connected components reachable from `nodes`, callees first (Tarjan, without recursion)."""
    index: dict[Node, int] = {}
    low: dict[Node, int] = {}
    stack: list[Node] = []
    inside: set[Node] = set()
    found: list[list[Node]] = []
    for root in nodes:
        if root in index:
            continue
        work = [(root, iter(successors(root)))]
        index[root] = low[root] = len(index)
        stack.append(root)
        inside.add(root)
        while work:
            node, following = work[-1]
            for child in following:
                if child not in index:
                    index[child] = low[child] = len(index)
                    stack.append(child)
                    inside.add(child)
                    work.append((child, iter(successors(child))))
                    break
                if child in inside:
                    low[node] = min(low[node], index[child])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    cut = stack.index(node)
                    found.append(stack[cut:])
                    inside.difference_update(stack[cut:])
                    del stack[cut:]
    return found


def calls_of(name: str, network: Network) -> Iterable[CallSite]:
    """Yield every call of a rule's network as (rule, state, called, target)."""
    for state, row in enumerate(network.calls):
        for called, target in row:
            yield name, state, called, target


def plan(networks: Mapping[str, Network], start: str) -> Plan:
    """Sort the calls of every rule reachable from `start` into kinds, and choose the calls that count as nesting."""
    found = components([start], lambda name: [called for _, _, called, _ in calls_of(name, networks[name])])
    component = {name: number for number, names in enumerate(found) for name in names}
    inner = {
        name: [call for call in calls_of(name, networks[name]) if component[call[2]] == component[name]]
        for name in component
    }
    group = _groups(component, inner)
    kind = {call: _kind(call, group) for name in component for call in calls_of(name, networks[name])}
    counted = _counted(found, inner, kind, group, start)
    return Plan(kind, counted, component, group)


def planned(networks: Mapping[str, Network], start: str) -> tuple[dict[str, Network], Plan]:
    """Return the networks, calls split where a last call then needs nothing remembered, and their plan."""
    first = plan(networks, start)
    members: dict[int, set[str]] = {}
    for name, number in first.component.items():
        members.setdefault(number, set()).add(name)
    trial = {name: split(networks[name], members[number]) for name, number in first.component.items()}
    tried = plan(trial, start)
    free: dict[str, set[str]] = {name: set() for name in trial}
    for call, kind in tried.kind.items():
        if call[3] == FINAL and kind in (Kind.RESTART, Kind.TAIL) and call not in tried.counted:
            free[call[0]].add(call[2])
    final = {name: split(networks[name], free[name] & members[first.component[name]]) for name in trial}
    return final, plan(final, start)


def _groups(component: Mapping[str, int], inner: Mapping[str, list[CallSite]]) -> dict[str, tuple[str, ...]]:
    """Return the left-recursive groups: cycles of first things, at least one of which is not the last thing too."""
    firsts = {name: [called for _, state, called, _ in inner[name] if state == START] for name in component}
    group: dict[str, tuple[str, ...]] = dict.fromkeys(component, ())
    for names in components(component, lambda name: firsts[name]):
        members = set(names)
        if any(s == START and t != FINAL and called in members for n in names for _, s, called, t in inner[n]):
            group.update(dict.fromkeys(names, tuple(sorted(names))))
    return group


def _kind(call: CallSite, group: Mapping[str, tuple[str, ...]]) -> Kind:
    name, state, called, target = call
    if state == START and called in group[name]:
        return Kind.LOOP
    if target == FINAL and group[name] == (called,):
        return Kind.RESTART
    return Kind.TAIL if target == FINAL and not group[name] else Kind.PUSH


def _counted(
    found: list[list[str]],
    inner: Mapping[str, list[CallSite]],
    kind: Mapping[CallSite, Kind],
    group: Mapping[str, tuple[str, ...]],
    start: str,
) -> frozenset[CallSite]:
    """Choose calls so that every cycle with a push has one: those that lead back in a depth-first walk.

    Rules that reach one another without a push count as one node of the walk; a push inside a node always counts.
    """
    free = {
        name: [c[2] for c in calls if kind[c] in (Kind.LOOP, Kind.TAIL, Kind.RESTART)] for name, calls in inner.items()
    }
    node = {name: number for number, names in enumerate(components(inner, lambda n: free[n])) for name in names}
    counted: set[CallSite] = set()
    links: dict[int, dict[int, list[CallSite]]] = {number: {} for number in node.values()}
    for calls in inner.values():
        for call in calls:
            links[node[call[0]]].setdefault(node[call[2]], []).append(call)
    for names in reversed(found):
        for number in dict.fromkeys(node[name] for name in names):
            counted.update(call for call in links[number].pop(number, []) if kind[call] is Kind.PUSH)
    for before, after in _back_edges([node[name] for names in reversed(found) for name in names], links):
        counted.update(links[before][after])
    for names in found:
        # One push less to count per rule may still multiply over many rules; then every one counts.
        pushes = [call for name in names for call in inner[name] if kind[call] is Kind.PUSH]
        if len(pushes) - len(counted.intersection(pushes)) > MAX_UNCOUNTED:
            counted.update(pushes)
    return frozenset(counted)


def _back_edges(roots: Iterable[int], links: Mapping[int, Mapping[int, object]]) -> list[tuple[int, int]]:
    """Return the edges that lead to a node still being walked."""
    walked: set[int] = set()
    back = []
    for root in roots:
        if root in walked:
            continue
        work = [(root, iter(links[root]))]
        open_nodes = {root}
        walked.add(root)
        while work:
            current, following = work[-1]
            for child in following:
                if child in open_nodes:
                    back.append((current, child))
                elif child not in walked:
                    walked.add(child)
                    open_nodes.add(child)
                    work.append((child, iter(links[child])))
                    break
            else:
                work.pop()
                open_nodes.discard(current)
    return back
