"""The algebra of byte automata against sets of texts by enumeration, and state machines against the machine itself."""

import itertools
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guided_dlm.automata import ByteAutomaton, CodepointSet
from guided_dlm.errors import AutomatonTooLarge, InvalidRequest

TEXTS = ["".join(letters) for size in range(5) for letters in itertools.product("abé", repeat=size)]
small = st.recursive(
    st.sampled_from(["a", "b", "é", "[ab]", ".", "[^a]", "", r"\b", "a?", "é{2,3}"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        inner.map(lambda body: f"(?:{body})*"),
    ),
    max_leaves=6,
)


def language(automaton: ByteAutomaton) -> set[str]:
    return {text for text in TEXTS if automaton.accepts(text.encode())}


@settings(derandomize=True, deadline=None, max_examples=80)
@given(small, small)
def test_operations_agree_with_sets_of_texts(left: str, right: str) -> None:
    a, b = ByteAutomaton.from_regex(left), ByteAutomaton.from_regex(right)
    first, second = language(a), language(b)
    assert language(a & b) == first & second
    assert language(a | b) == first | second
    assert language(a - b) == first - second
    assert language(~a) == set(TEXTS) - first
    assert language(a + b) == {x + y for x in first for y in second} & set(TEXTS)
    closure = {""}
    for _ in range(4):
        closure |= {x + y for x in closure for y in first if len(x + y) <= 4}
    assert language(a.star()) == closure


@settings(derandomize=True, deadline=None, max_examples=80)
@given(small, small)
def test_equality_is_equality_of_languages(left: str, right: str) -> None:
    a, b = ByteAutomaton.from_regex(left), ByteAutomaton.from_regex(right)
    assert (a == b) == ((a - b).is_empty() and (b - a).is_empty())
    assert ~(a & b) == (~a | ~b)
    assert hash(~~a) == hash(a)
    assert ~~a == a
    assert (a | b) - b == a - b
    assert a.star().star() == a.star() == (a | ByteAutomaton.literal("")).star()
    assert (a + b) + a == a + (b + a)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a{0,3}", "(a(a(a)?)?)?"),
        ("(a|b)*", "(a*b*)*"),
        (r"\w", r"[^\W]"),
        ("é|è", "[éè]"),
        (r"\bfoo\b", "foo"),
        (r"^.*$", r"[^\n]*\Z"),
        ("a|ab|abc", "a(b(c)?)?"),
    ],
)
def test_two_spellings_of_one_language_are_equal_arrays(one: str, other: str) -> None:
    a, b = ByteAutomaton.from_regex(one), ByteAutomaton.from_regex(other)
    assert a == b
    assert (a.table == b.table).all()
    assert (a.byte_class == b.byte_class).all()


@pytest.mark.parametrize("pattern", [r"\w{1,5}", ".*", r"(?i)straße|\s+é", r"[^a-f]{2,4}x", r".*\bab\b.*", "[€-😀]+"])
def test_results_are_minimal_and_only_valid_utf8(pattern: str) -> None:
    automaton = ByteAutomaton.from_regex(pattern)
    assert (automaton - ByteAutomaton.any_text()).is_empty()
    again = (automaton | automaton) & ByteAutomaton.any_text()
    assert again.num_states == automaton.num_states
    assert again == automaton


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# The first and last byte of every row of the table of well-formed UTF-8 (Unicode 15, table 3-7), and their neighbours.
EDGES = [*b"\x00\x41\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed\xee\xef\xf0\xf1\xf3\xf4\xf5\xff"]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(EDGES), max_size=5))
def test_any_text_is_exactly_valid_utf8(data: list[int]) -> None:
    assert ByteAutomaton.any_text().accepts(bytes(data)) == is_utf8(bytes(data))


def test_any_text_accepts_every_character_and_no_surrogate() -> None:
    automaton, word = ByteAutomaton.any_text(), ByteAutomaton.from_regex(r"\w")
    for point in itertools.chain(range(0, 0x3000), range(0x3000, 0x110000, 97)):
        data = chr(point).encode("utf-8", "surrogatepass")
        assert automaton.accepts(data) == (not 0xD800 <= point < 0xE000)
        assert word.accepts(data) == (re.match(r"\w", chr(point)) is not None)


def test_the_empty_language_and_the_empty_text() -> None:
    nothing, blank = ByteAutomaton.empty(), ByteAutomaton.literal("")
    assert nothing.is_empty()
    assert nothing.example() is None
    assert not nothing.accepts(b"")
    assert nothing == ~ByteAutomaton.any_text() == ByteAutomaton.from_regex("[^\\s\\S]a")
    assert nothing.star() == blank
    assert blank.accepts(b"")
    assert blank.example() == b""
    a = ByteAutomaton.literal("é")
    assert a + nothing == nothing
    assert nothing | a == a
    assert a + blank == a
    assert a.example() == "é".encode()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(small)
def test_the_example_is_a_shortest_text(pattern: str) -> None:
    automaton = ByteAutomaton.from_regex(pattern)
    example = automaton.example()
    if example is None:
        assert automaton.is_empty()
    else:
        assert automaton.accepts(example)
        assert not any(len(text.encode()) < len(example) for text in language(automaton))


def test_arrays_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        ByteAutomaton.literal("a").table[0, 0] = 0


def word_counter(least: int, most: int) -> tuple[Callable[[tuple[int, bool], int], tuple[int, bool] | None], int]:
    def step(state: tuple[int, bool], symbol: int) -> tuple[int, bool] | None:
        count, inside = state
        if symbol == 1:
            return count, False
        if symbol == 0 and not inside:
            return None if count == most else (count + 1, True)
        return state

    return step, least


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.text(st.sampled_from("ab é\n.-٣\u2003"), max_size=12))
def test_a_word_counter_counts_words(text: str) -> None:
    step, least = word_counter(2, 3)
    classes = [CodepointSet.alnum(), CodepointSet.space()]
    automaton = ByteAutomaton.from_machine(classes, (0, False), step, lambda state: state[0] >= least)
    words = sum(any(c.isalnum() for c in run) for run in text.split())
    assert automaton.accepts(text.encode()) == (2 <= words <= 3)


def test_everything_else_is_the_last_class() -> None:
    classes = [CodepointSet.of("a"), CodepointSet()]
    only_others = ByteAutomaton.from_machine(classes, 0, lambda s, c: 0 if c == 2 else None, lambda s: True)
    assert only_others == ByteAutomaton.from_regex("[^a]*")
    no_class = ByteAutomaton.from_machine([], 0, lambda s, c: 0 if c == 0 else None, lambda s: True)
    assert no_class == ByteAutomaton.any_text()


def test_overlapping_classes_and_endless_machines_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="Classes 0 and 1"):
        ByteAutomaton.from_machine([CodepointSet.word(), CodepointSet.of("a")], 0, lambda s, c: s, bool)
    with pytest.raises(AutomatonTooLarge, match="more than 50 states"):
        ByteAutomaton.from_machine([], 0, lambda s, c: s + 1, bool, max_states=50)


def test_products_that_explode_say_so() -> None:
    one, other = ByteAutomaton.from_regex("(?:a{97})*"), ByteAutomaton.from_regex("(?:a{89})*")
    assert (one & other).num_states == 97 * 89
    with pytest.raises(AutomatonTooLarge, match="97 states with one of 89"):
        one.combine(other, "both", max_states=1000)


def test_tables_have_the_documented_types() -> None:
    automaton = ByteAutomaton.from_regex("a|é")
    assert automaton.table.dtype == np.int32
    assert automaton.byte_class.dtype == np.int16
    assert automaton.byte_class.shape == (256,)
    assert automaton.accepting.dtype == np.bool_


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="surrogate at position 1"):
        ByteAutomaton.literal("a\ud800")
