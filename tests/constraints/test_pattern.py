"""Regex and Choice: the automaton, `check` and Python agree on every text."""

import re

import pytest
import references as ref
from hypothesis import given, settings
from hypothesis import strategies as st

from constraints import Choice, Regex
from guided_dlm.errors import GuidedError, InvalidRequest, UnsupportedPattern

FLAGS = {"i": re.I, "s": re.S, "m": re.M, "x": re.X, "a": re.A}
PATTERNS = [
    r"a.b", r"(?:ab)+", r"\w+\s\w+", r"[^\W\d]+", r"k+\u00df?", r"a{2,3}|b", r"^a$|b$", r"\bab\b.*", r"\d+ # digits",
    r"[a-z ]*[.!?]", r".*\n?.*", r"(?i:s)s", r"\S+(?: \S+){1,2}", r"", r"\Aa\Z", r"[\u00e9-\u00ff]+", r"a b", r"(?s:.)",
]  # fmt: skip


@settings(max_examples=80)
@given(st.data(), st.sampled_from(PATTERNS), st.sets(st.sampled_from("ismxa")))
def test_a_regex_means_what_re_fullmatch_means(data: st.DataObject, pattern: str, flags: set[str]) -> None:
    wish = Regex(pattern, flags="".join(sorted(flags)))
    combined = 0
    for flag in flags:
        combined |= FLAGS[flag]
    compiled, automaton = re.compile(pattern, combined), wish.to_automaton()
    for text in data.draw(st.lists(ref.texts("ab", "a b", "K", "\n", "aa", ".", size=6), min_size=10, max_size=20)):
        expected = compiled.fullmatch(text) is not None
        assert wish.check(text) is expected, text
        assert automaton.accepts(text.encode()) is expected, text


@pytest.mark.parametrize("flag", "ismxa")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_flag_said_twice_is_said_once(pattern: str, flag: str) -> None:
    once, twice = Regex(pattern, flags=flag), Regex(pattern, flags=flag * 2)
    for text in ("", "\n", "a\nb", "AB", "ab", "\u0663", "a", "b\n", "\u017fs"):
        assert once.check(text) is twice.check(text)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "does not parse"),
        ("[a", "does not parse"),
        ("a**", "does not parse"),
        ("(?=a)b", "look-ahead"),
        ("(?<!a)b", "look-behind"),
        (r"(a)\1", "back-reference"),
        ("(?>a)", "atomic group"),
        ("a*+", "possessive"),
    ],
)
def test_patterns_that_are_not_regular_are_refused_at_once(pattern: str, reason: str) -> None:
    with pytest.raises(UnsupportedPattern, match=reason) as caught:
        Regex(pattern)
    assert repr(pattern) in str(caught.value)


@pytest.mark.parametrize(("pattern", "flags"), [("a", "g"), ("a", "I"), ("a", "is g")])
def test_unknown_flags_are_refused(pattern: str, flags: str) -> None:
    with pytest.raises(InvalidRequest, match="no flag"):
        Regex(pattern, flags=flags)


@pytest.mark.parametrize("pattern", [5, None, b"a", ["a"]])
def test_a_pattern_must_be_a_text(pattern: object) -> None:
    with pytest.raises(GuidedError, match="not a text"):
        Regex(pattern)  # type: ignore[arg-type]


OPTIONS = ["", "a", "a b", "A", "a.", "\u00e9", "e\u0301", "a\n", "\N{GRINNING FACE}", "a|b", "(", " a"]


@settings(max_examples=60)
@given(st.data(), st.lists(st.sampled_from(OPTIONS), min_size=1, max_size=5, unique=True))
def test_a_choice_is_exactly_its_options(data: st.DataObject, options: list[str]) -> None:
    wish = Choice(options)
    automaton = wish.to_automaton()
    texts = data.draw(st.lists(ref.texts(*options, size=3), min_size=5, max_size=10)) + OPTIONS
    for text in texts:
        expected = any(text == option for option in options)
        assert wish.check(text) is expected
        assert automaton.accepts(text.encode()) is expected, text


@pytest.mark.parametrize(
    ("options", "reason"),
    [([], "asks for nothing"), (["a", "a"], "stands twice"), ("ab", "give a list"), ([1], "not a text")],
)
def test_choices_that_cannot_be_meant_are_refused(options: object, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"Choice.*{reason}"):
        Choice(options)  # type: ignore[arg-type]
