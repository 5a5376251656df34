"""Formats against checks that share nothing with the automata."""

from __future__ import annotations

import json
import random

import pytest
from json_oracle import walk
from jsonschema import Draft202012Validator

from constraints.json_check import is_instance
from guided_dlm.automata.json_schema.compile import compile_schema
from guided_dlm.automata.json_schema.formats import format_texts

EXAMPLES = {
    "date": [
        "2024-02-29",
        "2023-02-29",
        "1900-02-29",
        "2000-02-29",
        "0000-01-01",
        "2024-04-31",
        "2024-13-01",
        "2024-1-01",
    ],
    "time": ["12:30:00Z", "12:30:00.5+01:30", "24:00:00Z", "12:30:00", "12:60:00Z", "12:30:00z", "12:30:00+24:00"],
    "date-time": [
        "2024-02-29T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2024-01-01t00:00:00.123-08:00",
        "2024-01-01 00:00:00Z",
    ],
    "duration": ["P1D", "P1Y2M3DT4H5M6S", "PT1H", "P1W", "P", "PT", "P1Y1D", "PT1H1S", "P1M2W", "P1DT"],
    "email": ["a@b.c", "a.b+c@d-e.org", "a@", "@b", "a..b@c", ".a@b", "a@b..c", "a b@c", "a@-b", 'a"b@c'],
    "hostname": ["a", "a.b-c.d", "-a", "a-", "a..b", "a_b", "", "x" * 63, "x" * 64, "a.b."],
    "ipv4": ["1.2.3.4", "255.255.255.255", "256.1.1.1", "01.2.3.4", "1.2.3", "1.2.3.4.5", "\u0661.2.3.4"],
    "ipv6": [
        "::",
        "::1",
        "1::",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "1::8",
        "1:2:3:4:5:6:1.2.3.4",
        "::1.2.3.4",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1::2::3",
        "12345::",
        "::1%1",
        ":1",
        "1:",
        "1:2:3:4:5:6:7:1.2.3.4",
    ],
    "uuid": [
        "123e4567-e89b-12d3-a456-426614174000",
        "123E4567-E89B-12D3-A456-426614174000",
        "123e4567e89b12d3a456426614174000",
    ],
    "uri": [
        "http://a",
        "http://a.b/c?d=e#f",
        "urn:x:y",
        "mailto:a@b",
        "a",
        "//a",
        "http://[::1]:80/",
        "http://a b",
        "1a:b",
        "http://a/%zz",
        "http://a/%41",
        "file:///x",
        "http://u:p@h:1",
        "a:",
        "a:?",
        "http://[::1",
        "a:b:c",
        "a://b:c",
    ],
    "uri-reference": ["", "a/b", "//a", "?x", "#y", "/a", "a:b", "1a:b", ":a", "./a:b", "a b", "//[::]", "http://é"],
    "json-pointer": ["", "/a", "/a~0b/~1", "/~", "a", "/a~2", "/ "],
    "relative-json-pointer": ["0", "1/a", "0#", "01", "-1", "#", "1#/a"],
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_format_agrees_with_the_independent_check(name: str) -> None:
    texts = format_texts(name)
    assert texts is not None
    schema = json.dumps({"type": "string", "format": name})
    answers = set()
    for example in EXAMPLES[name]:
        expected = is_instance(json.dumps(example), schema)
        assert texts.contains(example) == expected, example
        answers.add(expected)
    assert answers == {True, False}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_what_a_format_writes_every_check_accepts(name: str) -> None:
    schema = {"type": "string", "format": name}
    automaton = compile_schema(schema).automaton
    oracle = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    rng = random.Random(2)
    for _ in range(150):
        text = walk(automaton, rng, rng.choice([0, 10, 40, 90])).decode()
        assert is_instance(text, json.dumps(schema)), text
        assert oracle.is_valid(json.loads(text)), text


@pytest.mark.parametrize("name", ["date", "ipv6", "uri", "uri-reference", "duration", "date-time", "email"])
def test_a_format_agrees_with_the_check_after_small_changes(name: str) -> None:
    texts = format_texts(name)
    assert texts is not None
    schema = json.dumps({"type": "string", "format": name})
    rng = random.Random(3)
    for _ in range(600):
        example = list(rng.choice(EXAMPLES[name]))
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(len(example) + 1)
            example[at : at + rng.randrange(2)] = rng.choice("0129aFgZTP:/?#@-.%[]+ é")
        changed = "".join(example)
        assert texts.contains(changed) == is_instance(json.dumps(changed), schema), changed
