"""From a schema to its byte automaton: one document, one normal form, and the depth that fits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from guided_dlm.automata.byte import ByteAutomaton
from guided_dlm.automata.json_schema.document import Document
from guided_dlm.automata.json_schema.emit import Library, Space
from guided_dlm.automata.json_schema.graph import FAR, Graph
from guided_dlm.automata.json_schema.normal import Normaliser
from guided_dlm.automata.json_schema.table import ByteTable
from guided_dlm.errors import AutomatonTooLarge, Infeasible, InvalidRequest

# States before minimisation: the most there may be, and how many a deeper bound on recursion is worth.
MAX_STATES = 200_000
DEPTH_STATES = (100_000, 100_000, 100_000, 100_000, 30_000, 5_000, 5_000)
SPELLED_STATES = 20_000

Built = tuple[ByteTable, int, bool]
SPACES = " \t\n\r"


@dataclass(frozen=True)
class CompiledSchema:
    r"""An automaton of JSON texts; `depth` bounds recursion, `cut` says that some value nests deeper than it allows.

    `escapes` is "any" where every spelling is accepted, "needed" where printable ASCII is not read as \u00XX.
    """

    automaton: ByteAutomaton
    depth: int
    cut: bool
    escapes: str


def check_whitespace(whitespace: str) -> None:
    """Refuse what is no text, and what `space_between` refuses."""
    if not isinstance(whitespace, str):
        raise InvalidRequest(f'whitespace={whitespace!r}: give "flexible", "compact", or a pattern.')
    space_between(whitespace)


@lru_cache(maxsize=32)
def space_between(whitespace: str) -> Space:
    """Return the automaton of the white space between tokens: "flexible", "compact", or a pattern.

    Raises:
        InvalidRequest: the pattern matches something that is no white space, or nothing at all.
        UnsupportedPattern: it does not parse, or is not regular.
    """
    pattern = {"flexible": f"[{SPACES}]*", "compact": ""}.get(whitespace, whitespace)
    automaton = ByteAutomaton.from_regex(pattern, max_states=1000)
    if automaton.is_empty() or not (automaton - ByteAutomaton.from_regex(f"[{re.escape(SPACES)}]*")).is_empty():
        raise InvalidRequest(
            f'whitespace={whitespace!r}: give "flexible", "compact", or a pattern that matches only spaces, tabs and '
            "line ends."
        )
    return Space(automaton.table[:, automaton.byte_class], automaton.accepting.tolist())


def compile_schema(
    schema: Any,
    whitespace: str = "flexible",
    any_order: bool = False,
    depth: int | None = None,
    escapes: str | None = None,
) -> CompiledSchema:
    """Return the automaton of the JSON texts of a schema's instances.

    Raises:
        InvalidRequest: the schema is not valid; the message has the JSON path.
        UnsupportedSchema: a keyword cannot be enforced; the message names it and its JSON path.
        Infeasible: the schema has no instance, or none within the depth.
        AutomatonTooLarge: more states are needed than fit; the message says what takes them.
    """
    try:
        return _compile(schema, whitespace, any_order, depth, escapes)
    except RecursionError as error:
        raise AutomatonTooLarge(
            "$: the schema nests, or refers from definition to definition, in more levels than can be followed. Lower "
            "depth=, or make the chain of $ref, the constant or the nesting shorter."
        ) from error


def _compile(schema: Any, whitespace: str, any_order: bool, depth: int | None, escapes: str | None) -> CompiledSchema:
    document = Document(schema)
    normaliser = Normaliser(document)
    graph = Graph(normaliser, normaliser.schema(schema))
    need = graph.needs[graph.root]
    if need >= FAR:
        raise Infeasible("$: the schema has no instance: what it requires contradicts itself, or nests without end.")
    if depth is not None and depth < need:
        raise Infeasible(f"$: no instance of the schema nests {depth} levels or fewer; the least is {need}.")
    space = space_between(whitespace)

    levels = need if depth is None else depth
    library, found = _spelled(graph, space, any_order, escapes, levels)
    if depth is None and found is not None and found[2]:
        levels, found = _deepest(library, levels, found)
    automaton = ByteAutomaton.empty() if found is None else ByteAutomaton(found[0].dfa(found[1]))
    if automaton.is_empty():
        raise Infeasible("$: the schema has no instance: what it requires contradicts itself.")
    return CompiledSchema(
        automaton, levels, found is not None and found[2], "any" if library.every_spelling else "needed"
    )


def _spelled(
    graph: Graph, space: Space, any_order: bool, escapes: str | None, depth: int
) -> tuple[Library, Built | None]:
    """Return the table at a depth, with every spelling of strings where that was asked for or stays small."""
    if escapes != "needed":
        library = Library(graph, space, any_order, True, MAX_STATES if escapes == "any" else SPELLED_STATES)
        try:
            found = library.table(graph.root, depth)
            library.limit = MAX_STATES
            return library, found
        except AutomatonTooLarge:
            if escapes == "any":
                raise
    library = Library(graph, space, any_order, False, MAX_STATES)
    return library, library.table(graph.root, depth)


def _deepest(library: Library, least: int, found: Built) -> tuple[int, Built | None]:
    """Return the greatest depth that stays small, and its table, from those of the least depth."""
    library.limit = DEPTH_STATES[0]
    try:
        deeper = library.table(library.graph.root, least + 1)
    except AutomatonTooLarge:
        return least, found
    assert deeper is not None
    first, levels, found = found[0].size, least + 1, deeper
    # Free JSON nests in two ways, so that a level more takes about twice what the last one took.
    growth = max(1, found[0].size - first)
    goal = levels
    for more, budget in enumerate(DEPTH_STATES[1:], 1):
        if found[0].size + growth * (2 ** (more + 1) - 2) <= budget:
            goal = levels + more
    while goal > levels:
        try:
            return goal, library.table(library.graph.root, goal)
        except AutomatonTooLarge:
            goal -= 1
    return levels, found
