"""Schemas whose alternatives multiply: fast where they exclude one another, refused in time where they do not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from guided_dlm.automata.json_schema.compile import compile_schema
from guided_dlm.errors import AutomatonTooLarge


def exclusive(levels: int) -> Any:
    """Alternatives of which exactly one must hold, each in terms of the next."""
    found: dict[str, Any] = {f"a{levels}": {"type": "null"}}
    for level in range(levels):
        after = {"$ref": f"#/$defs/a{level + 1}"}
        found[f"a{level}"] = {"oneOf": [after, {"type": "object", "properties": {"a": after}}]}
    return {"$ref": "#/$defs/a0", "$defs": found}


MANY: dict[str, Any] = {
    "oneOf of constants": {"oneOf": [{"const": f"p{i}"} for i in range(160)]},
    "a constant of many objects": {"const": [{"a": i, "b": str(i)} for i in range(500)]},
    "many patterns of names": {
        "type": "object",
        "patternProperties": {f"^k{i}$": {"type": "integer"} for i in range(100)},
    },
    "oneOf over references": exclusive(9),
}
EXAMPLES = {
    "oneOf of constants": ("p77", "q"),
    "a constant of many objects": (MANY["a constant of many objects"]["const"], []),
    "many patterns of names": ({"k3": 1, "x": "s"}, {"k3": "s"}),
    "oneOf over references": ({"a": {"a": None}}, {"a": {"a": {"a": 1}}}),
}


@pytest.mark.parametrize("name", MANY)
def test_many_alternatives_compile_in_time(name: str) -> None:
    began = time.process_time()
    automaton = compile_schema(MANY[name]).automaton
    assert time.process_time() - began < 5  # 2 s at most on a quiet machine
    for value in EXAMPLES[name]:
        accepted = automaton.accepts(json.dumps(value).encode())
        assert accepted == Draft202012Validator(MANY[name]).is_valid(value), value


@pytest.mark.parametrize("levels", [12, 40])
def test_alternatives_that_multiply_end_in_time(levels: int) -> None:
    began = time.process_time()
    with pytest.raises(AutomatonTooLarge, match=r"^\$.*oneOf"):
        compile_schema(exclusive(levels))
    assert time.process_time() - began < 6  # 2 s on a quiet machine


def test_what_leans_on_an_open_question_is_asked_again() -> None:
    leaf = {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/$defs/x"}}}
    schema = {
        "$defs": {
            "x": {"anyOf": [leaf | {"additionalProperties": False}, {"$ref": "#/$defs/y"}]},
            "y": {"type": "object", "required": ["b"], "properties": {"b": {"enum": [1, {"c": 2}]}}},
        },
        "oneOf": [{"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 1}, {"type": "array", "maxItems": 1}],
    }
    automaton = compile_schema(schema, depth=3).automaton
    for value in ([{"b": 1}], [{"a": {"b": 1}}], [{"b": 1}, {"a": {"b": 1}}], [{"b": 3}, {"b": 1}], [], [7]):
        accepted = automaton.accepts(json.dumps(value).encode())
        assert accepted == Draft202012Validator(schema).is_valid(value), value
