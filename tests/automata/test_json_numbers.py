"""Number keywords against arithmetic on decimals."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_dlm.automata.json_schema.compile import compile_schema
from guided_dlm.automata.json_schema.numbers import Numbers, compare, constants, integers, multiples

decimals = st.decimals(allow_nan=False, allow_infinity=False, min_value=-2000, max_value=2000, places=3).map(
    lambda value: value.normalize() + 0
)


def holds(numbers: Numbers, text: str) -> bool:
    state = 0
    for symbol in text:
        state = int(numbers.dfa.table[state, numbers.dfa.column_of["0123456789.-eE+".index(symbol)]])
        if state < 0:
            return False
    return bool(numbers.dfa.accepting[state])


def spellings(value: Decimal) -> list[str]:
    plain = f"{value:f}"
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    more = plain + ("0" if "." in plain else ".0")
    return [plain, more, more + "00"] + (["-0", "-0.0"] if not value else [])


@settings(derandomize=True, max_examples=60, deadline=None)
@given(decimals, st.lists(decimals, min_size=1, max_size=6), st.booleans(), st.booleans())
def test_bounds_compare_as_decimals(bound: Decimal, values: list[Decimal], upper: bool, strict: bool) -> None:
    numbers = compare(bound, upper, strict)
    for value in [*values, bound, bound + Decimal("0.001"), bound - Decimal("0.001"), -bound, Decimal(0)]:
        order = (bound - value) if upper else (value - bound)
        for text in spellings(value):
            assert holds(numbers, text) == (order > 0 or (order == 0 and not strict)), (bound, text)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.sampled_from(["1", "2", "3", "7", "12", "0.01", "0.5", "0.25", "1.5", "0.003"]),
    st.lists(decimals, min_size=1, max_size=8),
)
def test_multiples_divide_as_decimals(step: str, values: list[Decimal]) -> None:
    numbers, unit = multiples(Decimal(step)), Decimal(step)
    for value in [*values, *(unit * n for n in (-7, 0, 1, 40))]:
        for text in spellings(value):
            assert holds(numbers, text) == (value % unit == 0), (step, text)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(decimals, min_size=1, max_size=8), st.lists(decimals, max_size=8))
def test_a_listed_number_is_written_in_every_plain_way(listed: list[Decimal], others: list[Decimal]) -> None:
    numbers = constants(listed)
    for value in [*listed, *others]:
        for text in spellings(value):
            assert holds(numbers, text) == (value in listed), (listed, text)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(decimals, decimals, st.lists(decimals, min_size=1, max_size=6))
def test_sets_of_numbers_are_closed(low: Decimal, step: Decimal, values: list[Decimal]) -> None:
    a, b = compare(low, False, False), integers()
    for value in values:
        text = spellings(value)[0]
        at_least, whole = value >= low, value == value.to_integral_value()
        assert holds(a & b, text) == (at_least and whole)
        assert holds(a | b, text) == (at_least or whole)
        assert holds(~a, text) == (not at_least)


@pytest.mark.parametrize("text", ["", "-", "01", "1.", ".5", "+1", "1e", "0x1", "--1", "1.e1", "1e+", "NaN"])
def test_what_json_does_not_call_a_number_is_refused(text: str) -> None:
    for schema in ({"type": "number"}, {"type": "integer"}, {"type": "number", "minimum": -5}, {"multipleOf": 0.5}):
        assert not compile_schema(schema).automaton.accepts(text.encode()), schema


def test_numbers_and_integers_may_have_exponents() -> None:
    number, whole = (compile_schema({"type": t}).automaton for t in ("number", "integer"))
    for text in ("1e5", "-0.5E-10", "1.25e+3", "0e0"):
        assert number.accepts(text.encode())
    for text in ("1e5", "1.0E+2", "-3e0"):
        assert whole.accepts(text.encode())
    for text in ("1.5", "1e-5", "1.5e0"):
        assert not whole.accepts(text.encode())


def test_draft_4_integers_have_no_point() -> None:
    schema = {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer"}
    automaton = compile_schema(schema).automaton
    assert automaton.accepts(b"12") and not automaton.accepts(b"12.0")


def test_a_text_beyond_a_strict_bound_is_beyond_it_as_a_float_too() -> None:
    automaton = compile_schema({"type": "number", "exclusiveMinimum": 0.1}).automaton
    rng = random.Random(0)
    for _ in range(300):
        text = "0.1" + "0" * rng.randrange(18) + str(rng.randrange(10**6))
        if automaton.accepts(text.encode()):
            assert float(text) > 0.1, text
    assert automaton.accepts(b"0.11") and not automaton.accepts(b"0.1")
