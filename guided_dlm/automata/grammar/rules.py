"""What a grammar says, in whatever notation: rules made of terminals, calls, sequences, choices and repeats."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any

# What `re.escape` makes of a text: plain characters, and a backslash before those that mean something.
_LITERAL = re.compile(r"(?:[^\\.^$*+?{}\[\]|()]|\\[^0-9A-Za-z])+", re.DOTALL)
_SURROGATE = re.compile("[\\ud800-\\udfff]")
_parser: Any = importlib.import_module("re._parser")


@dataclass(frozen=True)
class Terminal:
    """A regular set of texts: a pattern of `re`, and the name or literal that messages call it by.

    A pattern with a lazy repeat (`*?`) stops as soon as it can: it stands for those of its texts that do not begin with
    a shorter one.
    """

    pattern: str
    name: str = field(compare=False)

    @property
    def lazy(self) -> bool:
        """Say whether the pattern has a lazy repeat."""
        return "?" in self.pattern and _is_lazy(self.pattern)

    @property
    def literal(self) -> str | None:
        """Return the one text that the pattern stands for, where it plainly is one and not the empty text."""
        if not _LITERAL.fullmatch(self.pattern):
            return None
        plain = re.sub(r"\\(.)", r"\1", self.pattern, flags=re.DOTALL)
        return None if _SURROGATE.search(plain) else plain


@dataclass(frozen=True)
class Call:
    """A text of another rule."""

    rule: str


@dataclass(frozen=True)
class Sequence:
    """One text of each item, in order; nothing at all where there are no items."""

    items: tuple[Expression, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A text of one of the items."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Repeat:
    """`least` to `most` texts of the body; `most` None is without end."""

    body: Expression
    least: int
    most: int | None


Expression = Terminal | Call | Sequence | Choice | Repeat


@dataclass(frozen=True)
class Rules:
    """A grammar: rules by name in order of appearance, the start rule, and what stands between terminals.

    `ignored` terminals may stand before, between and after terminals, any number of them. A `separator` pattern stands
    between every two terminals.
    """

    rules: Mapping[str, Expression]
    start: str
    ignored: tuple[Terminal, ...] = ()
    separator: str | None = None


def parts(expression: Expression) -> tuple[Expression, ...]:
    """Return the parts of an expression, one level down."""
    if isinstance(expression, Sequence | Choice):
        return expression.items
    return (expression.body,) if isinstance(expression, Repeat) else ()


def leaves(expression: Expression) -> Iterator[Terminal | Call]:
    """Yield the terminals and calls of an expression, left to right."""
    stack = [expression]
    while stack:
        current = stack.pop()
        if isinstance(current, Terminal | Call):
            yield current
        stack += reversed(parts(current))


def unrolled_size(expression: Expression) -> int:
    """Return how many terminals and calls are left once every counted repeat is written out."""
    if isinstance(expression, Terminal | Call):
        return 1
    size = reduce(lambda total, part: total + unrolled_size(part), parts(expression), 1)
    if isinstance(expression, Repeat):
        size *= max(1, expression.least if expression.most is None else expression.most)
    return size


@lru_cache(maxsize=1024)
def _is_lazy(pattern: str) -> bool:
    def walk(items: Iterable[Any]) -> bool:
        return any(
            str(item) == "MIN_REPEAT" or (isinstance(item, tuple | list | _parser.SubPattern) and walk(item))
            for item in items
        )

    return walk(_parser.parse(pattern))
