"""Regular expressions of Python's `re`, read by its own parser and turned into character automata."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any

from guided_dlm.automata import nfa
from guided_dlm.automata.codepoints import CodepointSet, matching
from guided_dlm.errors import UnsupportedPattern

# The only use of a private module: re-implementing the parser would mean two dialects that drift apart, and its
# syntax tree has kept its shape since Python 3.11. The tests compare with `re.fullmatch` on every version.
_parser: Any = importlib.import_module("re._parser")

_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}

# What is refused: how it looks in a pattern, its name, and what to do instead.
_REFUSED = {
    "ASSERT": (
        r"\(\?<?=",
        "look-ahead or look-behind",
        "Use the & of two automata or constraints: one for each thing that must hold.",
    ),
    "ASSERT_NOT": (
        r"\(\?<?!",
        "negative look-ahead or look-behind",
        "Use & with the complement (~) of an automaton or constraint for what must not hold.",
    ),
    "GROUPREF": (
        r"\\[1-9]|\(\?P=",
        "a back-reference",
        "It is not regular; list the repeated texts as alternatives where they are few.",
    ),
    "GROUPREF_EXISTS": (r"\(\?\((?!\?)", "a conditional group", "Write the two cases as alternatives, a|b."),
    "ATOMIC_GROUP": (
        r"\(\?>",
        "an atomic group",
        "Use a plain group, (?:...), if it still says what you mean.",
    ),
    "POSSESSIVE_REPEAT": (
        r"[*+?}]\+",
        "a possessive repeat",
        "Use a plain repeat if it still says what you mean.",
    ),
}
_TYPE_FLAGS = int(re.ASCII | re.LOCALE | re.UNICODE)
_CASE_FLAGS = int(re.ASCII | re.IGNORECASE)


def regex_subsets(pattern: str, flags: int, max_states: int) -> nfa.Subsets:
    """Parse a pattern as for `re.fullmatch(pattern, text, flags)` and return its automaton, not yet deterministic.

    Raises:
        UnsupportedPattern: it does not parse, or uses a construct that is refused.
        AutomatonTooLarge: it expands to too many positions.
    """
    try:
        tree = _parser.parse(pattern, int(flags) & ~int(re.DEBUG))
        builder = _Builder(pattern, max_states)
        final = builder.sequence(tree, tree.state.flags, 0)
    except re.error as error:
        where = "" if error.pos is None else f" at position {error.pos}"
        raise UnsupportedPattern(f"The pattern {pattern!r} does not parse{where}: {error.msg}.") from error
    except RecursionError as error:
        raise UnsupportedPattern(f"The pattern {pattern[:40]!r}... is nested too deeply; flatten it.") from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, UnsupportedPattern):
            raise
        raise UnsupportedPattern(f"The pattern {pattern!r} cannot be used with flags {flags}: {error}.") from error
    return nfa.Subsets(builder.nfa, final)


class _Builder:
    """Walks the syntax tree; every method takes the entry state and returns the exit state."""

    def __init__(self, pattern: str, max_states: int) -> None:
        self.pattern = pattern
        self.sets: dict[tuple[str, str, int], CodepointSet] = {}
        shown = pattern if len(pattern) <= 60 else pattern[:57] + "..."
        self.nfa = nfa.Nfa(max_states, f"The pattern {shown!r}")

    def sequence(self, items: Sequence[tuple[Any, Any]], flags: int, entry: int) -> int:
        for operation, argument in items:
            entry = self.item(str(operation), argument, flags, entry)
        return entry

    def item(self, name: str, argument: Any, flags: int, entry: int) -> int:
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            key = (name, repr(argument), flags)
            if key not in self.sets:
                self.sets[key] = _characters(name, argument, flags)
            return self.nfa.read(entry, self.sets[key])
        if name == "BRANCH":
            return self.branch(argument[1], flags, entry)
        if name == "SUBPATTERN":
            _, added, removed, body = argument
            if added & _TYPE_FLAGS:
                flags &= ~_TYPE_FLAGS
            return self.sequence(body, (flags | added) & ~removed, entry)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, body = argument
            return self.repeat(least, most, body, flags, entry)
        if name == "AT":
            return self.anchor(str(argument), flags, entry)
        if name == "FAILURE":
            return self.nfa.read(entry, CodepointSet())
        raise self.refusal(name)

    def branch(self, alternatives: Sequence[Any], flags: int, entry: int) -> int:
        leave = self.nfa.state()
        for alternative in alternatives:
            self.nfa.empty[self.sequence(alternative, flags, entry)].append(leave)
        return leave

    def repeat(self, least: int, most: Any, body: Any, flags: int, entry: int) -> int:
        if body.getwidth()[1] == 0:  # anchors, or nothing at all: once says as much as a billion times
            least, most = min(least, 1), min(most, 1)
        endless = most is _parser.MAXREPEAT
        for _ in range(least - 1 if endless else least):
            entry = self.sequence(body, flags, entry)
        leave = self.nfa.state()
        if endless:
            again = self.nfa.state()
            self.nfa.empty[entry].append(again)
            after = self.sequence(body, flags, again)
            self.nfa.empty[after] += [again, leave]
            if not least:
                self.nfa.empty[again].append(leave)
            return leave
        # Every optional copy may leave at once, so that a thread never stands in many copies without reading.
        for _ in range(most - least):
            self.nfa.empty[entry].append(leave)
            entry = self.sequence(body, flags, entry)
        self.nfa.empty[entry].append(leave)
        return leave

    def anchor(self, name: str, flags: int, entry: int) -> int:
        lines, ascii_only = bool(flags & re.MULTILINE), not flags & re.UNICODE
        if name == "AT_BEGINNING":
            return self.nfa.anchor(entry, nfa.line_start if lines else nfa.text_start)
        if name == "AT_END":
            return self.nfa.anchor(entry, nfa.line_end if lines else nfa.text_end, newline_may_follow=not lines)
        tests = {
            "AT_BEGINNING_STRING": nfa.text_start,
            "AT_END_STRING": nfa.text_end,
            "AT_BOUNDARY": nfa.boundary(ascii_only),
            "AT_NON_BOUNDARY": nfa.non_boundary(ascii_only),
        }
        if name not in tests:
            raise self.refusal(name)
        return self.nfa.anchor(entry, tests[name])

    def refusal(self, name: str) -> UnsupportedPattern:
        """Return the error for a construct, with its place: the tree does not keep it, so look for its spelling."""
        spelling, called, remedy = _REFUSED.get(name, ("(?!)", name, "Write it with groups, sets, | and repeats."))
        scan = re.compile(rf"(?P<found>{spelling})|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
        place = next((m.start() for m in scan.finditer(self.pattern) if m["found"] is not None), None)
        where = "" if place is None else f" at position {place}"
        return UnsupportedPattern(
            f"The pattern {self.pattern!r} uses {called}{where}, which is not supported. {remedy}"
        )


def _characters(name: str, argument: Any, flags: int) -> CodepointSet:
    """Return the characters that a one-character node matches under these flags."""
    if name == "ANY":
        return CodepointSet.any() if flags & re.DOTALL else ~CodepointSet.of("\n")
    if name == "IN":
        negated = str(argument[0][0]) == "NEGATE"
        items = argument[1:] if negated else argument
    else:
        negated, items = name == "NOT_LITERAL", [("LITERAL", argument)]
    if not flags & re.IGNORECASE:
        found = CodepointSet()
        for kind, value in items:
            found = found | _one(str(kind), value, flags)
        return ~found if negated else found
    # IGNORECASE has many special cases (K and the Kelvin sign, the two sigmas): `re` itself decides.
    body = "".join(_spell(str(kind), value) for kind, value in items)
    return matching(f"[{'^' if negated else ''}{body}]", flags & _CASE_FLAGS)


def _one(kind: str, value: Any, flags: int) -> CodepointSet:
    if kind == "LITERAL":
        return CodepointSet((value, value + 1))
    if kind == "RANGE":
        return CodepointSet.range(*value)
    return matching(_CATEGORIES[str(value)], flags & int(re.ASCII))


def _spell(kind: str, value: Any) -> str:
    if kind == "LITERAL":
        return rf"\U{value:08x}"
    if kind == "RANGE":
        return rf"\U{value[0]:08x}-\U{value[1]:08x}"
    return _CATEGORIES[str(value)]
