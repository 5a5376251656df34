r"""Regular expressions of JSON Schema (ECMA-262), read so that what is written matches under ECMA and Python's `re`."""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from typing import Any

from guided_dlm.automata.codepoints import CodepointSet
from guided_dlm.automata.json_schema.texts import Texts, regex
from guided_dlm.errors import UnsupportedPattern

# Python's own parser, as in `guided_dlm.automata.regex`.
_parser: Any = importlib.import_module("re._parser")

_TOKEN = re.compile(
    r"\\u\{(?P<long>[0-9A-Fa-f]+)\}|\\u(?P<unit>[0-9A-Fa-f]{4})|\\c(?P<control>[A-Za-z])|\\(?P<category>[dDwWsS])"
    r"|(?P<property>\\[pP]\{[^}]*\})|(?P<named>\\k<)|(?P<group>\(\?<(?![=!]))|\\(?P<other>.)|(?P<plain>.)",
    re.DOTALL,
)
# What Python's `re` reads as ECMA does after a backslash.
_SAME = frozenset("bBfnrtv0123456789")
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

    def read(self) -> str:
        for match in _TOKEN.finditer(self.pattern):
            kind = match.lastgroup or "plain"
            self.token(kind, match[kind], match.start())
        return "".join(self.out)

    def token(self, kind: str, value: str, at: int) -> None:
        if kind in ("long", "unit"):
            self.out.append(rf"\U{int(value, 16):08x}")
        elif kind == "control":
            self.out.append(rf"\x{ord(value) % 32:02x}")
        elif kind == "category":
            self.category(value)
        elif kind in ("property", "named"):
            raise UnsupportedPattern(f"The pattern {self.pattern!r} uses {value}, which Python's re does not read.")
        elif kind == "group":
            self.out.append("(?P<")
        elif kind == "other":
            self.out.append("\\" + value if value in _SAME or not value.isalnum() else value)
        elif self.bracket is None:
            self.outside(value, at)
        else:
            self.inside(value, at)

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

    def inside(self, value: str, at: int) -> None:
        if at < self.first:  # the ^ of a negated class
            return
        if value == "]" and at == self.first:  # ECMA: [] is nothing, [^] is anything
            opened = self.out.pop()
            self.out.append(f"[{_ANY}]" if opened == "[^" else f"[^{_ANY}]")
            self.bracket = None
        elif value == "]":
            self.out.append(value)
            self.bracket = None
        else:
            self.out.append("\\" + value if value in "[&~|" else value)


def translate(pattern: str, wide: bool = False) -> str:
    """Return a pattern for Python's `re` that finds what both dialects find, or if `wide` what either does.

    Raises:
        UnsupportedPattern: a construct has no common reading.
    """
    return _Reader(pattern, wide).read()


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
        raise UnsupportedPattern(f"The pattern {pattern!r} does not parse: {error}.") from error
    found = regex(_whole(narrow))
    return found if narrow == wide else found.widened(lambda: regex(_whole(wide)))


def _whole(pattern: str) -> str:
    """Return the pattern of the texts in which a pattern is found, without the anchors that stand at its ends."""
    tree = list(_parser.parse(pattern))
    starts = bool(tree) and str(tree[0][1]) == "AT_BEGINNING" and pattern.startswith("^")
    ends = bool(tree) and str(tree[-1][1]) == "AT_END_STRING" and pattern.endswith(r"\Z")
    body = pattern[starts : len(pattern) - 2 * ends]
    return f"{'' if starts else '(?s:.*)'}(?:{body}){'' if ends else '(?s:.*)'}"
