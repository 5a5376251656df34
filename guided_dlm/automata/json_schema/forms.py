"""What a schema comes to: a union over the JSON types, closed under and, or, not.

Children are expressions (ints, see `normal.Normaliser`), so a form is one level deep and recursion costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import product
from typing import NamedTuple, Protocol, TypeVar

from guided_dlm.automata.json_schema.numbers import Numbers, every_number, no_number
from guided_dlm.automata.json_schema.texts import Texts, any_text, no_text
from guided_dlm.errors import AutomatonTooLarge

S = TypeVar("S")

TRUE, FALSE = 0, 1
CONSTANTS = frozenset({"null", "true", "false"})
MAX_SHAPES = 256


class Name(NamedTuple):
    """A property that a shape names: its value's expression, and whether it has to be there."""

    name: str
    value: int
    required: bool


class Extra(NamedTuple):
    """Property names outside those that the shape names, and the expression of their values."""

    names: Texts
    value: int


@dataclass(frozen=True)
class ArrayShape:
    """Arrays: `prefix` item by item, then `rest`; `low` to `high` items.

    Every `some` (start, e) asks that an item from `start` on is e.
    """

    prefix: tuple[int, ...] = ()
    rest: int = TRUE
    low: int = 0
    high: int | None = None
    some: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ObjectShape:
    """Objects: `names` in their order, then `extras` (disjoint); `low` to `high` properties.

    Every `some` asks that an extra is among its names and has its value.
    """

    names: tuple[Name, ...] = ()
    extras: tuple[Extra, ...] = ()
    low: int = 0
    high: int | None = None
    some: tuple[Extra, ...] = ()


@lru_cache(maxsize=1)
def any_extra() -> tuple[Extra, ...]:
    """Return the extras of an open object."""
    return (Extra(any_text(), TRUE),)


@dataclass(frozen=True)
class Form:
    """A set of JSON values, type by type; shapes are alternatives, which may overlap."""

    constants: frozenset[str]
    numbers: Numbers
    strings: Texts
    arrays: tuple[ArrayShape, ...]
    objects: tuple[ObjectShape, ...]


@lru_cache(maxsize=1)
def everything() -> Form:
    """Return the form of all JSON values."""
    return Form(CONSTANTS, every_number(), any_text(), (ArrayShape(),), (ObjectShape(extras=any_extra()),))


@lru_cache(maxsize=1)
def nothing() -> Form:
    """Return the form of no value."""
    return Form(frozenset(), no_number(), no_text(), (), ())


class Expressions(Protocol):
    """The algebra of child expressions."""

    def both(self, left: int, right: int) -> int:
        """Return the expression of the values of both."""

    def invert(self, value: int) -> int:
        """Return the expression of the other values."""


def either(left: Form, right: Form) -> Form:
    """Return the union."""
    return Form(
        left.constants | right.constants,
        left.numbers | right.numbers,
        left.strings | right.strings,
        _distinct((*left.arrays, *right.arrays), ArrayShape()),
        _distinct((*left.objects, *right.objects), ObjectShape(extras=any_extra())),
    )


def _distinct(shapes: Iterable[S], every: S) -> tuple[S, ...]:
    found = tuple(dict.fromkeys(shapes))
    return (every,) if every in found else found


def _limited(shapes: list[S], what: str) -> tuple[S, ...]:
    found = tuple(dict.fromkeys(shapes))
    if len(found) > MAX_SHAPES:
        raise AutomatonTooLarge(
            f"The alternatives multiply to more than {MAX_SHAPES} kinds of {what}. Fewer anyOf, oneOf, not, if and "
            "dependentRequired that apply to the same value make them fewer."
        )
    return found


def both(left: Form, right: Form, e: Expressions) -> Form:
    """Return the intersection; the property order of `left` comes first."""
    if left is everything() or right is everything():
        return right if left is everything() else left
    arrays = [s for a, b in product(left.arrays, right.arrays) for s in _both_arrays(a, b, e)]
    objects = [s for a, b in product(left.objects, right.objects) for s in _both_objects(a, b, e)]
    return Form(
        left.constants & right.constants,
        left.numbers & right.numbers,
        left.strings & right.strings,
        _limited(arrays, "array"),
        _limited(objects, "object"),
    )


def _least(a: int | None, b: int | None) -> int | None:
    return a if b is None else b if a is None else min(a, b)


def _both_arrays(a: ArrayShape, b: ArrayShape, e: Expressions) -> list[ArrayShape]:
    size = max(len(a.prefix), len(b.prefix))
    prefix = []
    high = _least(a.high, b.high)
    for i in range(size):
        item = e.both(*(s.prefix[i] if i < len(s.prefix) else s.rest for s in (a, b)))
        if item == FALSE:
            high = _least(high, i)
            break
        prefix.append(item)
    some = tuple(dict.fromkeys(a.some + b.some))
    return tidy_array(ArrayShape(tuple(prefix), e.both(a.rest, b.rest), max(a.low, b.low), high, some))


def tidy_array(shape: ArrayShape) -> list[ArrayShape]:
    """Return the shape in its simplest terms, or nothing where it is plainly empty."""
    high = shape.high
    if shape.rest == FALSE:
        high = _least(high, len(shape.prefix))
    low = max([shape.low, *(start + 1 for start, _ in shape.some)])
    if (high is not None and low > high) or any(value == FALSE for _, value in shape.some):
        return []
    some = tuple((start, value) for start, value in shape.some if value != TRUE)
    prefix = shape.prefix if high is None else shape.prefix[:high]
    return [ArrayShape(prefix, FALSE if high == len(prefix) else shape.rest, low, high, some)]


def value_of(shape: ObjectShape, name: str) -> int:
    """Return the expression that an unnamed property of this name has in a shape."""
    return next((extra.value for extra in shape.extras if extra.names.contains(name)), FALSE)


def _both_objects(a: ObjectShape, b: ObjectShape, e: Expressions) -> list[ObjectShape]:
    known_a, known_b = ({n.name: n for n in shape.names} for shape in (a, b))
    names = []
    for name in dict.fromkeys([*known_a, *known_b]):
        one, two = known_a.get(name), known_b.get(name)
        value = e.both(one.value if one else value_of(a, name), two.value if two else value_of(b, name))
        required = bool((one and one.required) or (two and two.required))
        if required and value == FALSE:
            return []
        names.append(Name(name, value, required))
    extras = []
    for x, y in product(a.extras, b.extras):
        value = e.both(x.value, y.value)
        texts = x.names & y.names
        if value != FALSE and not texts.is_empty():
            extras.append(Extra(texts, value))
    shapes = [ObjectShape(tuple(names), tuple(extras), max(a.low, b.low), _least(a.high, b.high))]
    for shape, other in ((a, known_b.keys() - known_a.keys()), (b, known_a.keys() - known_b.keys())):
        for demand in shape.some:
            shapes = [s for old in shapes for s in _demand(old, demand, sorted(other), e)]
    return [s for shape in shapes for s in tidy_object(shape)]


def _demand(shape: ObjectShape, demand: Extra, named: list[str], e: Expressions) -> list[ObjectShape]:
    """Ask for one more extra, which may be a property that the other operand names."""
    found = []
    for name in named:
        if demand.names.contains(name):
            inside = [
                n._replace(value=e.both(n.value, demand.value), required=True) for n in shape.names if n.name == name
            ]
            names = {n.name: n for n in shape.names} | {n.name: n for n in inside}
            found.append(ObjectShape(tuple(names.values()), shape.extras, shape.low, shape.high, shape.some))
    found.append(
        ObjectShape(shape.names, shape.extras, shape.low, shape.high, tuple(dict.fromkeys((*shape.some, demand))))
    )
    return found


def tidy_object(shape: ObjectShape) -> list[ObjectShape]:
    """Return the shape in its simplest terms, or nothing where it is plainly empty."""
    needed = sum(n.required for n in shape.names)
    if shape.high is not None and needed > shape.high:
        return []
    if any(n.required and n.value == FALSE for n in shape.names):
        return []
    possible = sum(n.value != FALSE for n in shape.names)
    low = 0 if shape.low <= needed else shape.low
    if not shape.extras and (low > possible or shape.some):
        return []
    high = shape.high
    if high is not None and high == 0:
        return [ObjectShape()] if not shape.some and low == 0 else []
    if high is not None and not shape.extras and high >= possible:
        high = None
    return [ObjectShape(shape.names, shape.extras, low, high, shape.some)]


def invert(form: Form, e: Expressions) -> Form:
    """Return the complement."""
    full = everything()
    arrays = _others(form.arrays, full.arrays, lambda s: _not_array(s, e), lambda a, b: _both_arrays(a, b, e))
    objects = _others(form.objects, full.objects, lambda s: _not_object(s, e), lambda a, b: _both_objects(a, b, e))
    return Form(CONSTANTS - form.constants, ~form.numbers, ~form.strings, arrays, objects)


def _others(
    shapes: tuple[S, ...], every: tuple[S, ...], negate: Callable[[S], list[S]], meet: Callable[[S, S], list[S]]
) -> tuple[S, ...]:
    def step(found: tuple[S, ...], shape: S) -> tuple[S, ...]:
        return _limited([s for a, b in product(found, negate(shape)) for s in meet(a, b)], "value, negated")

    return reduce(step, shapes, every)


def _not_array(shape: ArrayShape, e: Expressions) -> list[ArrayShape]:
    found = []
    for index, item in enumerate(shape.prefix):
        if item != TRUE:
            found.append(ArrayShape((TRUE,) * index + (e.invert(item),), TRUE, index + 1))
    size = len(shape.prefix)
    if shape.rest not in (TRUE, FALSE):
        found.append(ArrayShape((), TRUE, size + 1, None, ((size, e.invert(shape.rest)),)))
    high = size if shape.rest == FALSE and shape.high is None else shape.high
    if high is not None:
        found.append(ArrayShape(low=high + 1))
    if shape.low:
        found.append(ArrayShape(high=shape.low - 1))
    found += [ArrayShape((TRUE,) * start, e.invert(value)) for start, value in shape.some]
    return [s for one in found for s in tidy_array(one)]


def _not_object(shape: ObjectShape, e: Expressions) -> list[ObjectShape]:
    open_ = any_extra()
    found = []
    for n in shape.names:
        if n.required:
            found.append(ObjectShape((Name(n.name, FALSE, False),), open_))
        if n.value != TRUE:
            found.append(ObjectShape((Name(n.name, e.invert(n.value), True),), open_))
    named = tuple(Name(n.name, TRUE, False) for n in shape.names)
    allowed = reduce(lambda a, b: a | b, (x.names for x in shape.extras), no_text())
    if not allowed.is_any():
        found.append(ObjectShape(named, open_, some=(Extra(~allowed, TRUE),)))
    for extra in shape.extras:
        if extra.value != TRUE:
            found.append(ObjectShape(named, open_, some=(Extra(extra.names, e.invert(extra.value)),)))
    if shape.low:
        found.append(ObjectShape((), open_, high=shape.low - 1))
    if shape.high is not None:
        found.append(ObjectShape((), open_, low=shape.high + 1))
    for demand in shape.some:
        rest = Extra(~demand.names, TRUE)
        extras = tuple(x for x in (Extra(demand.names, e.invert(demand.value)), rest) if not x.names.is_empty())
        found.append(ObjectShape(named, tuple(x for x in extras if x.value != FALSE)))
    return [s for one in found for s in tidy_object(one)]
