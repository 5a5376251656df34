r"""Regular expressions of JSON Schema (ECMA-262), read so that what is written matches under ECMA and Python's `re`."""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from typing import Any

from guided_dlm.automata.codepoints import CodepointSet
from guided_dlm.automata.json_schema.texts import Texts, regex
from guided_dlm.errors import AutomatonTooLarge, UnsupportedPattern

# Python's own parser, as in `guided_dlm.automata.regex`.
_parser: Any = importlib.import_module("re._parser")

_TOKEN = re.compile(
    r"\\u\{(?P<long>[0-9A-Fa-f]+)\}|\\u(?P<unit>[0-9A-Fa-f]{4})|\\x(?P<byte>[0-9A-Fa-f]{2})|\\c(?P<control>[A-Za-z])"
    r"|\\(?P<category>[dDwWsS])|(?P<property>\\[pP]\{[^}]*\})|(?P<named>\\k<)|(?P<group>\(\?<(?![=!]))"
    r"|(?P<flags>\(\?(?!i:)[A-Za-z]*-?[A-Za-z]+[:)])|(?P<upto>\{,[0-9]+\})|(?P<octal>\\0[0-9])|\\(?P<other>.)"
    r"|(?P<plain>.)",
    re.DOTALL,
)
# What Python's `re` reads as ECMA does after a backslash.
_SAME = frozenset("bBfnrtv0")
# What one of the two does not read, and what the other makes of it is not what was meant.
_REFUSED = {
    "property": "Python's re does not read it; list the characters",
    "named": "a reference to a group is not regular; write the group out",
    "flags": "ECMA 262 and Python do not share this flag; write the characters out",
    "upto": "ECMA 262 and Python read it differently; write {0,n}",
    "octal": r"ECMA 262 and Python read it differently; write \x00 to \xff",
    "range": r"a class such as \d is no end of a range; put the - last",
    "empty": "ECMA 262 and Python read a class that starts with ] differently; write \\]",
    "other": r"ECMA 262 and Python do not read it alike; write the character itself, or \u and four digits",
}
_ANY = r"\x00-\U0010ffff"


def _ranges(members: CodepointSet) -> str:
    pairs = zip(members.bounds[::2], members.bounds[1::2], strict=True)
    return "".join(rf"\U{low:08x}-\U{high - 1:08x}" for low, high in pairs)


@lru_cache(maxsize=1)
def _categories() -> dict[str, tuple[str, str]]:
    r"""Return for \d, \w, \s and their complements: what both dialects match, and what either does."""
    short_space = CodepointSet.of("\t\n\x0b\x0c\r ")
    space = CodepointSet.space() | CodepointSet.of("\ufeff")
    digits, words = CodepointSet.range("0", "9"), CodepointSet.of("_") | CodepointSet.range("a", "z")
    words = words | CodepointSet.range("A", "Z") | digits
    return {
        "d": ("0-9", r"\d"),
        "D": (r"\D", _ranges(~digits)),
        "w": ("A-Za-z0-9_", r"\w"),
        "W": (r"\W", _ranges(~words)),
        # A no-break space is white in both dialects.
        "s": (_ranges(short_space | (CodepointSet.space() - CodepointSet.of("\x1c\x1d\x1e\x1f\x85"))), _ranges(space)),
        "S": (_ranges(~space), _ranges(~short_space)),
    }


class _Reader:
    """Rewrites a pattern token by token, to what both dialects match or, if `wide`, to what either does.

    A negated class needs the other reading of what it holds.
    """

    def __init__(self, pattern: str, wide: bool) -> None:
        self.pattern, self.wide = pattern, wide
        self.out: list[str] = []
        self.bracket: str | None = None  # "[" or "[^" while inside one
        self.seen: set[str] = set()
        self.first = 0
        self.dash = False  # whether a range may be waiting for its end
        self.empty = False

    def read(self) -> str:
        for match in _TOKEN.finditer(self.pattern):
            kind = match.lastgroup or "plain"
            self.token(kind, match[kind], match.start())
        return "".join(self.out)

    def refuse(self, reason: str, value: str) -> None:
        raise UnsupportedPattern(f"The pattern {self.pattern!r} uses {value}: {_REFUSED[reason]}.")

    def token(self, kind: str, value: str, at: int) -> None:
        dashed, self.dash = self.dash, kind == "plain" and value == "-" and self.bracket is not None and at > self.first
        if kind in ("long", "unit", "byte"):
            self.out.append(rf"\U{int(value, 16):08x}")
        elif kind == "control":
            self.out.append(rf"\x{ord(value) % 32:02x}")
        elif kind == "category":
            after = self.pattern[at + 2 : at + 4]
            if self.bracket is not None and (dashed or (after[:1] == "-" and after != "-]")):
                self.refuse("range", f"\\{value}")
            self.category(value)
        elif self.bracket is not None and kind in ("flags", "upto", "group"):
            for offset, character in enumerate(value):
                self.inside(character, at + offset)
        elif kind in _REFUSED and kind != "other":
            self.refuse(kind, value)
        elif kind == "group":
            self.out.append("(?P<")
        elif kind == "other":
            self.other(value)
        elif self.bracket is None:
            self.outside(value, at)
        else:
            self.inside(value, at, dashed)

    def other(self, value: str) -> None:
        """Read a backslash before what is no escape of several characters."""
        if value in _SAME and not (value == "B" and self.bracket is not None):
            self.out.append("\\" + value)
        elif value.isascii() and value.isalnum():
            self.refuse("other", f"\\{value}")
        else:
            self.out.append(value if value.isalnum() else "\\" + value)

    def category(self, letter: str) -> None:
        narrow, wide = _categories()[letter]
        if self.bracket is None:
            self.out.append(f"[{wide if self.wide else narrow}]")
            return
        self.seen.add(letter)
        both = letter.swapcase() in self.seen
        self.out.append(_ANY if both else wide if (self.bracket == "[^") != self.wide else narrow)

    def outside(self, value: str, at: int) -> None:
        if value == "[":
            negated = self.pattern.startswith("^", at + 1)
            self.bracket, self.first, self.seen = ("[^", at + 2, set()) if negated else ("[", at + 1, set())
            self.out.append(self.bracket)
        elif value == "$":
            self.out.append(r"(?:\n?\Z)" if self.wide else r"\Z")
        elif value == ".":
            self.out.append(r"[^\n]" if self.wide else r"[^\n\r\u2028\u2029]")
        else:
            self.out.append(value)

    def inside(self, value: str, at: int, dashed: bool = False) -> None:
        if at < self.first:  # the ^ of a negated class
            return
        if value == "]" and at == self.first:  # ECMA: [] is nothing, [^] is anything
            opened = self.out.pop()
            self.empty = True
            self.out.append(f"[{_ANY}]" if opened == "[^" else f"[^{_ANY}]")
            self.bracket = None
        elif value == "]":
            self.out.append(value)
            self.bracket = None
        else:
            # A dash at the start, or as the end of a range, is one that Python's parser takes for a set difference.
            self.out.append(
                "\\" + value if value in "[&~|" or (value == "-" and (dashed or at == self.first)) else value
            )


def translate(pattern: str, wide: bool = False) -> str:
    """Return a pattern for Python's `re` that finds what both dialects find, or if `wide` what either does.

    Raises:
        UnsupportedPattern: a construct has no common reading.
    """
    reader = _Reader(pattern, wide)
    found = reader.read()
    if reader.empty and is_python(pattern):
        reader.refuse("empty", "[] or [^]")
    return found


def is_python(pattern: str) -> bool:
    """Say whether Python's `re` reads a pattern as it stands."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


@lru_cache(maxsize=1024)
def search(pattern: str) -> Texts:
    """Return the strings in which a pattern is found; it is anchored only where it says so.

    Raises:
        UnsupportedPattern: it does not parse, or is not regular.
        AutomatonTooLarge: it takes too many states.
    """
    narrow, wide = translate(pattern), translate(pattern, True)
    try:
        re.compile(narrow)
    except (re.error, RecursionError, OverflowError) as error:
        reason = error.msg if isinstance(error, re.error) else str(error)  # a position would be that of the rewritten
        raise UnsupportedPattern(f"The pattern {pattern!r} does not parse: {reason}.") from error
    word = _word(narrow)
    if word is not None:
        return Texts.of([word]).widened(lambda: Texts.of([word, word + "\n"]))
    found = _regex(narrow, pattern)
    return found if narrow == wide else found.widened(lambda: _regex(wide, pattern))


def _regex(rewritten: str, pattern: str) -> Texts:
    """Return the texts in which a rewritten pattern is found; errors show the pattern as it was written."""
    whole = _whole(rewritten)
    try:
        return regex(whole)
    except (UnsupportedPattern, AutomatonTooLarge) as error:
        message = str(error).replace(repr(whole), repr(pattern))
        raise type(error)(re.sub(r" at position \d+", "", message)) from error


def _word(pattern: str) -> str | None:
    """Return the one text that a rewritten pattern is found in, None where there may be others."""
    tree = [(str(name), argument) for name, argument in _parser.parse(pattern)]
    if len(tree) < 2 or (tree[0][0], str(tree[0][1])) != ("AT", "AT_BEGINNING"):
        return None
    if (tree[-1][0], str(tree[-1][1])) != ("AT", "AT_END_STRING") or any(name != "LITERAL" for name, _ in tree[1:-1]):
        return None
    return "".join(chr(character) for _, character in tree[1:-1])


def _whole(pattern: str) -> str:
    """Return the pattern of the texts in which a pattern is found, without the anchors that stand at its ends."""
    tree = list(_parser.parse(pattern))
    starts = bool(tree) and str(tree[0][1]) == "AT_BEGINNING" and pattern.startswith("^")
    ends = bool(tree) and str(tree[-1][1]) == "AT_END_STRING" and pattern.endswith(r"\Z")
    body = pattern[starts : len(pattern) - 2 * ends]
    return f"{'' if starts else '(?s:.*)'}(?:{body}){'' if ends else '(?s:.*)'}"
