"""Sets of JSON numbers as automata over their decimal texts, closed under and, or, not; equal values go together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np

from guided_dlm.automata.dfa import DEAD, Dfa, Table, normal_form
from guided_dlm.automata.product import Keep, product
from guided_dlm.automata.regex import regex_subsets
from guided_dlm.errors import AutomatonTooLarge

MAX_STATES = 20_000
_SYMBOLS = "0123456789.-eE+"
_PLAIN = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?"


class Numbers:
    """A set of numbers that holds every plain decimal text of each (1, 1.0, 1.00), and no exponents.

    The texts of all numbers, and of all integers, are written with exponents too: see `texts`.
    """

    def __init__(self, dfa: Dfa) -> None:
        """Bring an automaton over the symbols 0-9 . - into normal form."""
        self.dfa = normal_form(dfa, drop_dead=False)
        self.digest = (self.dfa.table.tobytes(), self.dfa.accepting.tobytes(), self.dfa.column_of.tobytes())
        self._hash, self._empty = hash(self.digest), not bool(self.dfa.accepting.any())

    def is_empty(self) -> bool:
        """Say whether there is no number in the set."""
        return self._empty

    def __and__(self, other: Numbers) -> Numbers:
        """Return the intersection."""
        if self is every_number() or other is every_number():
            return other if self is every_number() else self
        for one in (self, other):
            if one.is_empty():
                return one
        return self if self == other else self._combine(other, "both")

    def __or__(self, other: Numbers) -> Numbers:
        """Return the union."""
        for one, two in ((self, other), (other, self)):
            if one.is_empty():
                return two
        return self if self == other else self._combine(other, "either")

    def __invert__(self) -> Numbers:
        """Return the numbers that are not in the set."""
        return every_number()._combine(self, "left")

    def _combine(self, other: Numbers, keep: Keep) -> Numbers:
        return _combined(self, other, keep)

    def texts(self) -> Dfa:
        """Return the automaton of the texts that are written, over bytes."""
        if self == every_number():
            return _bytes(_symbols_of(_PLAIN + r"([eE][+-]?[0-9]+)?"))
        if self == integers():
            return _bytes(_symbols_of(r"-?(0|[1-9][0-9]*)(\.0+)?([eE]\+?[0-9]{1,2})?"))
        return _bytes(self.dfa)

    def __eq__(self, other: object) -> bool:
        """Compare as sets."""
        return isinstance(other, Numbers) and (self is other or self.digest == other.digest)

    def __hash__(self) -> int:
        """Hash the set."""
        return self._hash


@lru_cache(maxsize=4096)
def _combined(left: Numbers, right: Numbers, keep: Keep) -> Numbers:
    return Numbers(product(left.dfa, right.dfa, keep, MAX_STATES))


def _symbols_of(pattern: str) -> Dfa:
    subsets = regex_subsets(pattern, 0, 1000)
    table, accepting = subsets.determinise()
    dense = subsets.partition.dense()
    return Dfa(table, accepting, np.array([dense[ord(symbol)] for symbol in _SYMBOLS], dtype=np.int64))


def _bytes(dfa: Dfa) -> Dfa:
    column_of = np.full(256, -1, dtype=np.int64)
    column_of[list(_SYMBOLS.encode())] = dfa.column_of
    table: Table = np.pad(dfa.table, ((0, 0), (0, 1)), constant_values=DEAD)[:, column_of]
    return Dfa(table, dfa.accepting, np.arange(256))


@lru_cache(maxsize=1)
def every_number() -> Numbers:
    """Return all numbers."""
    return Numbers(_symbols_of(_PLAIN))


@lru_cache(maxsize=1)
def integers() -> Numbers:
    """Return the integers, 1.0 among them."""
    return Numbers(_symbols_of(r"-?(0|[1-9][0-9]*)(\.0+)?"))


@lru_cache(maxsize=1)
def digits_only() -> Numbers:
    """Return the integers as draft 4 has them: written without a point."""
    return Numbers(_symbols_of(r"-?(0|[1-9][0-9]*)"))


@lru_cache(maxsize=1)
def no_number() -> Numbers:
    """Return the empty set."""
    return ~every_number()


def _explore(
    start: Hashable, step: Callable[[Any, str], Any], accepts: Callable[[Any], bool], well_formed: bool = False
) -> Numbers:
    """Return the texts that lead from `start` to acceptance; `well_formed` says that all of them are numbers."""
    number, order, rows = {start: 0}, [start], []
    for state in order:
        row = []
        for symbol in _SYMBOLS:
            after = step(state, symbol) if symbol in "0123456789.-" else None
            if after is not None and after not in number:
                number[after] = len(order)
                order.append(after)
            row.append(DEAD if after is None else number[after])
        rows.append(row)
        if len(order) > MAX_STATES:
            raise AutomatonTooLarge(f"A set of numbers needs more than {MAX_STATES} states over its digits.")
    table = np.array(rows, dtype=np.int32)
    found = Numbers(Dfa(table, np.array([accepts(s) for s in order]), np.arange(len(_SYMBOLS))))
    return found if well_formed else every_number()._combine(found, "both")  # leaves out what is none: "", "-", "1."


def split(value: Decimal) -> tuple[str, str]:
    """Return the digits before and after the point of a number's magnitude, without needless zeros."""
    whole, _, fraction = f"{abs(value):f}".partition(".")
    return whole.lstrip("0") or "0", fraction.rstrip("0")


@lru_cache(maxsize=512)
def compare(bound: Decimal, upper: bool, strict: bool) -> Numbers:
    """Return the numbers at least `bound`, or with `upper` at most; with `strict` the bound itself is left out."""
    whole, fraction = split(bound)
    negative = bound < 0
    flip = -1 if upper else 1

    def side(minus: bool, magnitude: int) -> bool:
        """Judge a number by its sign and by how its magnitude compares with that of the bound."""
        if whole == "0" and not fraction:
            order = 0 if magnitude == 0 else (-1 if minus else 1)
        elif minus != negative:
            order = -1 if minus else 1
        else:
            order = -magnitude if minus else magnitude
        return order * flip > 0 or (order == 0 and not strict)

    # (minus, "whole", digits so far, comparison so far) or (minus, "after", place in the fraction, comparison)
    def step(state: Any, symbol: str) -> Any:
        minus, phase, count, order = state
        if symbol == "-":
            return (True, phase, 0, 0) if phase == "whole" and not count and not minus else None
        if symbol == ".":
            if phase != "whole" or not count:
                return None
            if count != len(whole):
                order = -1 if count < len(whole) else 1
            return (minus, "after", 0, order)
        digits = whole if phase == "whole" else fraction
        if order == 0:
            wanted = digits[count] if count < len(digits) else "0"
            order = (symbol > wanted) - (symbol < wanted)
        most = len(whole) + 1 if phase == "whole" else (len(fraction) if order == 0 else 0)
        return (minus, phase, min(count + 1, most), order)

    def accepts(state: Any) -> bool:
        minus, phase, count, order = state
        if phase == "whole":
            if count != len(whole):
                order = -1 if count < len(whole) else 1
            return side(minus, order or (-1 if fraction else 0))
        return side(minus, order or (-1 if count < len(fraction) else 0))

    return _explore((False, "whole", 0, 0), step, accepts)


@lru_cache(maxsize=256)
def multiples(step_size: Decimal) -> Numbers:
    """Return the multiples of a positive decimal number.

    Raises:
        AutomatonTooLarge: it has too many digits.
    """
    _, fraction = split(step_size)
    places = len(fraction)
    modulus = int(step_size.scaleb(places))
    if modulus * (places + 2) > MAX_STATES:
        raise AutomatonTooLarge(
            f"multipleOf {step_size} takes about {modulus * (places + 2)} states, one per remainder and place; the "
            f"most is {MAX_STATES}."
        )

    def step(state: Any, symbol: str) -> Any:
        remainder, place = state
        if symbol == "-":
            return state if place < 0 and remainder == 0 else None
        if symbol == ".":
            return (remainder, 0) if place < 0 else None
        if place == places:
            return state if symbol == "0" else None
        return ((10 * remainder + int(symbol)) % modulus, place + 1 if place >= 0 else -1)

    def accepts(state: Any) -> bool:
        remainder, place = state
        return bool(remainder * 10 ** (places - max(place, 0)) % modulus == 0)

    return _explore((0, -1), step, accepts)


def constants(values: Iterable[Decimal]) -> Numbers:
    """Return a finite set of numbers."""
    return _listed(tuple(sorted({value if value else Decimal(0) for value in values})))


@lru_cache(maxsize=1024)
def _listed(wanted: tuple[Decimal, ...]) -> Numbers:
    if not wanted:
        return no_number()
    children: list[dict[str, int]] = [{}]
    ends: dict[int, int] = {}
    for value in wanted:
        whole, fraction = split(value)
        signs = ("-",) if value < 0 else ("", "-") if value == 0 else ("",)
        for sign in signs:
            _insert(children, ends, sign + whole, fraction)
    return _explore_trie(children, ends)


def _insert(children: list[dict[str, int]], ends: dict[int, int], whole: str, fraction: str) -> None:
    node = 0
    for symbol in whole + ("." + fraction if fraction else ""):
        node = children[node].setdefault(symbol, len(children))
        if node == len(children):
            children.append({})
    ends[node] = 2 if fraction else 1


def _explore_trie(children: Sequence[dict[str, int]], ends: dict[int, int]) -> Numbers:
    """Walk the tree of canonical texts; past a number's end a fraction of zeros may follow (state "zeros")."""

    def step(state: Any, symbol: str) -> Any:
        node, zeros = state
        after = children[node].get(symbol) if node >= 0 else None
        if symbol == ".":
            follows = zeros == 0 and ends.get(node) == 1
        else:
            follows = symbol == "0" and (zeros > 0 or ends.get(node) == 2)
        if after is None and not follows:
            return None
        return (-1 if after is None else after, 1 if follows and symbol == "." else 2 if follows else 0)

    def accepts(state: Any) -> bool:
        node, zeros = state
        return zeros == 2 or node in ends

    return _explore((0, 0), step, accepts, well_formed=True)
