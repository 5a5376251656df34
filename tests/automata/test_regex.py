"""from_regex against re.fullmatch, on generated patterns and on texts near them."""

# ruff: noqa: RUF001 (characters that look alike are the point here)

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regexes import FLAGS, changed, letters, patterns

from guided_dlm.automata import ByteAutomaton
from guided_dlm.errors import AutomatonTooLarge, UnsupportedPattern


def agrees(pattern: str, flags: int, texts: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        compiled = re.compile(pattern, flags)
        automaton = ByteAutomaton.from_regex(pattern, flags)
    for text in texts:
        expected = compiled.fullmatch(text) is not None
        assert automaton.accepts(text.encode()) == expected, (pattern, flags, text)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.data())
def test_generated_patterns_match_what_fullmatch_matches(data: st.DataObject) -> None:
    pattern, text = data.draw(patterns())
    flags = sum(data.draw(st.sets(st.sampled_from(FLAGS))), start=0)
    near = data.draw(st.lists(changed(text[:12]), min_size=6, max_size=6))
    far = data.draw(st.lists(st.text(letters, max_size=5), min_size=4, max_size=4))
    agrees(pattern, flags, ["", *near, *far])


SUBTLE = ["", "\n", "a", "a\n", "a\n\n", "\na", "a b", "ab", "é", "aé", "é a", "a\nb", "a\nb\n", " ", "_", "b"]


@pytest.mark.parametrize("flags", [0, re.MULTILINE, re.ASCII, re.DOTALL | re.MULTILINE])
@pytest.mark.parametrize(
    "pattern",
    [
        r"\b",
        r"\B",
        r"^$",
        r"$\n",
        r"a$\n?",
        r"a$\n?\Z",
        r"(?:a$|\n)*",
        r"$\n$",
        r"a$\n$\n",
        r"(?:a$\n|\n)+",
        r".*\b.*",
        r"(?s).*\bé\b.*",
        r"\B.*\B",
        r"(?:^a$\n?)+b?",
        r"(?:\b|a)*",
        r"[^a]*$.*",
        r"\A\s*^.*$\s*\Z",
        r"(?a:\b)é",
        r"(?:$|a)+\n",
        r"(?:)|x{0}",
    ],
)
def test_anchors_hold_where_re_says(pattern: str, flags: int) -> None:
    agrees(pattern, flags, SUBTLE)


@pytest.mark.parametrize("pattern", ["k", "K", "[j-l]", "[^k]", "ß", "ẞ", "s", "[s]", "ﬅ", "İ", "i", "ı", "[А-я]", "σ"])
@pytest.mark.parametrize("flags", [re.IGNORECASE, re.IGNORECASE | re.ASCII])
def test_ignoring_case_agrees_with_re_on_every_cased_character(pattern: str, flags: int) -> None:
    cased = [chr(p) for p in range(0x20000) if chr(p).lower() != chr(p).upper()]
    agrees(pattern, flags, [*cased, "\N{GRINNING FACE}", "1"])


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"a(?=b)", "look-ahead or look-behind at position 1.*Use the &"),
        (r"[(?=](?<!b)", "negative look-ahead or look-behind at position 5"),
        (r"(a)\1", "back-reference at position 3"),
        (r"(?P<x>a)(?P=x)", "back-reference at position 8"),
        (r"(a)?(?(1)b|c)", "conditional group at position 4"),
        (r"(?>a+)b", "atomic group at position 0"),
        (r"a++", "possessive repeat at position 1"),
        (r"a(b", "does not parse at position 1"),
        (r"[z-a]", "does not parse at position 1"),
    ],
)
def test_constructs_that_are_not_regular_are_refused_with_their_place(pattern: str, words: str) -> None:
    with pytest.raises(UnsupportedPattern, match=words):
        ByteAutomaton.from_regex(pattern)


@pytest.mark.parametrize("pattern", ["(a|b)*a(a|b){20}", "(a{1000}){1000}", r"\w{2000}", "(a?){3000}b"])
def test_patterns_that_explode_say_so(pattern: str) -> None:
    with pytest.raises(AutomatonTooLarge, match=r"more than \d+"):
        ByteAutomaton.from_regex(pattern, max_states=2000)


@pytest.mark.parametrize(
    ("pattern", "states"), [("[ab]{0,300}", 301), ("(?a:(\\w+ ){3,40}\\w+)", 82), (".*(?a)", None), ("x*x*x*", 1)]
)
def test_automata_are_minimal(pattern: str, states: int | None) -> None:
    if states is None:
        with pytest.raises(UnsupportedPattern):
            ByteAutomaton.from_regex(pattern)
    else:
        assert ByteAutomaton.from_regex(pattern).num_states == states


@pytest.mark.parametrize(
    ("pattern", "same"),
    [
        # `re` itself takes tens of gigabytes for some of these, so it is asked about a smaller one.
        ("(?:){4000000000}", ""),
        ("((){100000}){100000}", ""),
        (r"(\b){1000000}a", r"\ba"),
        ("(?:){3,}b", "b"),
        ("(^){0,9}", ""),
    ],
)
def test_a_repeat_of_nothing_costs_nothing(pattern: str, same: str) -> None:
    agrees(same, 0, ["", "a", "b", "ab"])
    assert ByteAutomaton.from_regex(pattern) == ByteAutomaton.from_regex(same)
