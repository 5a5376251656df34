"""Strings: compared decoded, written in every JSON spelling."""

from __future__ import annotations

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_oracle import spell, walk
from jsonschema import Draft202012Validator

from guided_dlm.automata.json_schema.compile import compile_schema
from guided_dlm.automata.json_schema.patterns import search, translate
from guided_dlm.errors import UnsupportedPattern

characters = st.characters(exclude_categories=["Cs"]) | st.sampled_from(
    '"\\/\b\f\n\r\t\x00\x7fé\uffff\U00010000\U0010ffff'
)
strings = st.text(characters, max_size=6)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(strings, min_size=1, max_size=4), strings, st.integers())
def test_an_enum_accepts_every_spelling_of_its_strings_and_of_no_other(
    listed: list[str], other: str, seed: int
) -> None:
    automaton = compile_schema({"enum": sorted(set(listed))}).automaton
    rng = random.Random(seed)
    for text in [*listed, other]:
        assert automaton.accepts(spell(text, rng).encode()) == (text in listed)


@settings(derandomize=True, max_examples=50, deadline=None)
@given(strings, st.integers(0, 6), st.integers(0, 6), st.integers())
def test_lengths_count_code_points(text: str, low: int, more: int, seed: int) -> None:
    automaton = compile_schema({"type": "string", "minLength": low, "maxLength": low + more}).automaton
    assert automaton.accepts(spell(text, random.Random(seed)).encode()) == (low <= len(text) <= low + more)


@pytest.mark.parametrize(
    "pattern",
    ["^[a-c]+$", "b", r"^\d{2,3}$", r"\w\s\w", r"^(a|é)*x?$", r"^[^a]$", r"^\S+$", r"^[\w.-]+@\w+$", r"^\W\D$"],
)
def test_what_a_pattern_accepts_python_and_the_oracle_find_too(pattern: str) -> None:
    automaton = compile_schema({"type": "string", "pattern": pattern}).automaton
    rng = random.Random(1)
    for _ in range(60):
        text = json.loads(walk(automaton, rng, 30))
        assert re.search(pattern, text), text
    for _ in range(300):
        text = "".join(rng.choice("abcx é1 .-@_\n") for _ in range(rng.randrange(6)))
        ascii_only = re.search(pattern.replace("$", r"\Z"), text, re.ASCII) is not None
        if text.isascii():
            assert search(pattern).contains(text) == ascii_only, text


def test_classes_keep_to_what_both_dialects_match() -> None:
    assert not search(r"^\d$").contains("\u0661") and not search(r"^\w$").contains("é")
    assert not search(r"^\D$").contains("\u0661") and not search(r"^\W$").contains("é")
    assert not search(r"^[^\s]$").contains("\xa0") and not search(r"^[^\s]$").contains("\ufeff")
    assert search(r"^[\s\S]$").contains("\xa0") and search(r"^[^]$").contains("\n")
    assert not search(r"^.$").contains("\u2028") and search(r"^\u00e9\u{1F600}$").contains("é\U0001f600")
    assert not search("^a$").contains("a\n")


def test_a_negated_pattern_leaves_out_what_either_dialect_finds() -> None:
    negated = compile_schema({"type": "string", "not": {"pattern": r"^\d+$"}}).automaton
    keys = {
        "type": "object",
        "patternProperties": {r"^\w+$": {"type": "null"}},
        "additionalProperties": {"type": "boolean"},
    }
    named = compile_schema(keys).automaton
    for text in ("1", "\u0661", "1\n"):
        assert not negated.accepts(json.dumps(text).encode())
    assert negated.accepts(b'"a"')
    assert named.accepts(b'{"a":null,"-":true}')
    assert not any(named.accepts(f'{{"é":{value}}}'.encode()) for value in ("null", "true"))


@pytest.mark.parametrize("pattern", [r"\p{L}", "(?=a)b", r"(a)\1", "(", "a{2,1}"])
def test_patterns_without_a_regular_common_reading_are_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern):
        search(pattern)


def test_translation_leaves_plain_patterns_alone() -> None:
    assert translate("^a+(b|c)?[x-z]{2}") == "^a+(b|c)?[x-z]{2}"


@pytest.mark.parametrize(
    "text",
    ['"\\ud83d"', '"\\ude00"', '"\\ude00\\ud83d"', '"\\ud83dx"', '"\n"', '"\\x41"', '"\\u12"', '"', "'a'", '"\\"'],
)
def test_what_is_no_json_string_is_refused(text: str) -> None:
    assert not compile_schema({"type": "string"}).automaton.accepts(text.encode())


@pytest.mark.parametrize("data", [b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xff"', b'"\xe2\x82"', b'"\xf4\x90\x80\x80"'])
def test_what_is_no_utf8_is_refused(data: bytes) -> None:
    assert not compile_schema({"type": "string"}).automaton.accepts(data)


def test_needed_escapes_leave_out_only_escaped_printable_ascii() -> None:
    automaton = compile_schema({"type": "string"}, escapes="needed").automaton
    for text in ('"a"', '"\\u00e9"', '"\\u000a"', '"\\n"', '"\\/"', '"\\ud83d\\ude00"', '"\\u007f"'):
        assert automaton.accepts(text.encode()), text
    assert not automaton.accepts(b'"\\u0061"')


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(strings, min_size=1, max_size=4, unique=True), strings, st.integers())
def test_property_names_are_compared_decoded(names: list[str], other: str, seed: int) -> None:
    schema = {"properties": {name: {"type": "null"} for name in names}, "type": "object"}
    rng = random.Random(seed)
    closed = compile_schema(schema | {"additionalProperties": False}).automaton
    opened = compile_schema(schema | {"additionalProperties": {"type": "boolean"}}).automaton
    for name in [*names, other]:
        key = spell(name, rng)
        assert closed.accepts(f"{{{key}:null}}".encode()) == (name in names)
        assert opened.accepts(f"{{{key}:null}}".encode()) == (name in names)
        assert opened.accepts(f"{{{key}:true}}".encode()) == (name not in names)


@pytest.mark.parametrize(
    "pattern", [r"^[\x20-\x7e]*$", r"^\x41$", r"^[\x00-\x1fa]+$", r"^[^\x41]$", r"^[(?<{,2}]$", r"^[,-\x2d]$", "^[-a]$"]
)
def test_escapes_of_two_hexadecimal_digits_are_characters(pattern: str) -> None:
    found = search(pattern)
    for text in ("hello world", "A", "x41", "x", "4", "a", "\x1f", "-", ",", "{", "<", "?", "\x7f", ""):
        assert found.contains(text) == Draft202012Validator({"pattern": pattern}).is_valid(text), text


@pytest.mark.parametrize(
    "pattern",
    [
        r"\U0001F600",
        r"\N{SPACE}",
        r"\a",
        r"\e",
        r"\Aa",
        r"a\Z",
        r"\01",
        r"\1",
        r"\x4",
        r"\u12",
        "a{,2}",
        "^[^]a]$",
        "(?i)a",
    ],
)
def test_what_the_two_dialects_read_differently_is_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern, match=re.escape(repr(pattern))):
        search(pattern)


@pytest.mark.parametrize(
    "pattern", [r"[+-\d]", r"[\w-.]", "(?s:.)", "(?m:a)", "(?x: a)", "(?-i:a)", "(?s-i:a)", "a$|(?=b)", "(a"]
)
def test_a_refused_pattern_is_shown_as_it_was_written(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern, match=re.escape(repr(pattern))) as caught:
        search(pattern)
    assert "position" not in str(caught.value)
