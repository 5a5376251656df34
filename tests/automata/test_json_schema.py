"""Schemas against the jsonschema library: nothing invalid is written, every valid instance is accepted."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from json_oracle import walk, write
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from guided_dlm.automata import ByteAutomaton
from guided_dlm.automata.json_schema.compile import compile_schema
from guided_dlm.errors import AutomatonTooLarge, GuidedError, Infeasible, InvalidRequest, UnsupportedSchema

NAMES = ["a", "b", "c"]
LEAVES: list[Any] = [
    {"type": "integer"},
    {"type": "integer", "minimum": 0, "maximum": 3},
    {"type": "string"},
    {"type": "string", "maxLength": 1},
    {"type": "string", "pattern": "^x"},
    {"enum": ["x", 1, None, [1], {"a": 1}]},
    {"const": True},
    {"type": ["null", "boolean"]},
    {"type": "number", "multipleOf": 0.5},
    {"minimum": 2, "minLength": 1},
    True,
    False,
]


def extended(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas around others."""
    properties = st.dictionaries(st.sampled_from(NAMES), children, max_size=2)
    required = st.lists(st.sampled_from(NAMES), max_size=2, unique=True)
    objects = st.fixed_dictionaries(
        {"properties": properties},
        optional={
            "type": st.just("object"),
            "required": required,
            "additionalProperties": st.booleans() | children,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), children, max_size=1),
            "propertyNames": st.just({"pattern": "^[a-c]$"}),
            "minProperties": st.just(1),
            "maxProperties": st.just(2),
            "dependentRequired": st.just({"a": ["b"]}),
        },
    )
    arrays = st.fixed_dictionaries(
        {"items": children},
        optional={
            "type": st.just("array"),
            "prefixItems": st.lists(children, min_size=1, max_size=2),
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(0, 2),
            "contains": children,
        },
    )
    several = st.lists(children, min_size=1, max_size=2)
    mixed = st.one_of(
        st.fixed_dictionaries({"anyOf": several}),
        st.fixed_dictionaries({"oneOf": several}),
        st.fixed_dictionaries({"allOf": several}),
        st.fixed_dictionaries({"not": children}),
        st.fixed_dictionaries({"if": children, "then": children, "else": children}),
    )
    return objects | arrays | mixed


schemas = st.recursive(st.sampled_from(LEAVES), extended, max_leaves=5)
scalars = st.sampled_from([None, True, False, 0, 1, 3, -1, 0.5, 2.0, "", "x", "xy", "é"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "zz"]), inner, max_size=3),
    max_leaves=4,
)


def property_order(schema: Any) -> list[str]:
    """The names that a generated schema lists, in the order in which they are met."""
    found: dict[str, None] = {}
    if isinstance(schema, dict):
        for key in ("properties", "required"):
            found |= dict.fromkeys(schema.get(key, {}))
        for value in schema.values():
            for inner in value if isinstance(value, list) else [value]:
                found |= dict.fromkeys(property_order(inner) if isinstance(inner, dict) else [])
    return list(found)


def compiled(schema: Any, **options: Any) -> ByteAutomaton | None:
    """The automaton, None where there is no instance; a schema that is refused is no example."""
    try:
        return compile_schema(schema, depth=3, **options).automaton
    except Infeasible:
        return None
    except (AutomatonTooLarge, UnsupportedSchema):
        reject()


@settings(derandomize=True, max_examples=60, deadline=None)
@given(schemas, st.integers())
def test_what_is_written_is_valid(schema: Any, seed: int) -> None:
    automaton = compiled(schema)
    oracle, rng = Draft202012Validator(schema), random.Random(seed)
    for _ in range(12 if automaton is not None else 0):
        text = walk(automaton, rng, rng.choice([0, 20, 60])).decode()
        assert oracle.is_valid(json.loads(text)), text


@settings(derandomize=True, max_examples=60, deadline=None)
@given(schemas, st.lists(values, min_size=4, max_size=10), st.integers())
def test_an_instance_is_accepted_in_some_order_of_its_properties_where_it_is_valid(
    schema: Any, instances: list[Any], seed: int
) -> None:
    automaton = compiled(schema, any_order=True)
    oracle, rng = Draft202012Validator(schema), random.Random(seed)
    for instance in instances:
        accepted = automaton is not None and automaton.accepts(write(instance, rng).encode())
        assert accepted == oracle.is_valid(instance), instance


@settings(derandomize=True, max_examples=50, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["one", "two", "three", "on"]), st.sampled_from(LEAVES), min_size=1, max_size=4),
    st.lists(st.sampled_from(["one", "two", "four"]), max_size=2, unique=True),
    st.dictionaries(st.sampled_from(["one", "two", "three", "on", "four", "five"]), scalars, max_size=5),
    st.integers(),
)
def test_properties_come_in_the_order_of_the_schema_with_extras_last(
    properties: dict[str, Any], required: list[str], instance: dict[str, Any], seed: int
) -> None:
    schema = {"type": "object", "properties": properties, "required": required}
    automaton = compiled(schema)
    known = list(dict.fromkeys([*properties, *required]))
    ordered = {n: instance[n] for n in [*known, *instance] if n in instance}
    valid = Draft202012Validator(schema).is_valid(ordered)
    text = write(ordered, random.Random(seed)).encode()
    assert (automaton is not None and automaton.accepts(text)) == valid
    named = [name for name in ordered if name in known]
    if valid and len(named) > 1:
        swapped = dict(reversed(ordered.items()))
        assert not automaton.accepts(json.dumps(swapped).encode())


def test_a_known_name_stands_once() -> None:
    automaton = compile_schema({"properties": {"a": {"type": "integer"}}, "type": "object"}).automaton
    assert automaton.accepts(b'{"a":1,"b":2}') and not automaton.accepts(b'{"a":1,"a":1}')
    assert not automaton.accepts(b'{"b":2,"a":1}')


def test_references_recurse_to_the_bound() -> None:
    schema = {
        "$defs": {
            "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
        },
        "$ref": "#/$defs/node",
    }
    for depth in (0, 1, 5):
        found = compile_schema(schema, depth=depth)
        nested = '{"next":' * depth + "{}" + "}" * depth
        assert found.automaton.accepts(nested.encode()) and found.cut
        assert not found.automaton.accepts(f'{{"next":{nested}}}'.encode())


def test_depth_is_free_where_nothing_recurses() -> None:
    found = compile_schema({"type": "array", "items": {"type": "array", "items": {"type": "null"}}})
    assert not found.cut and found.automaton.accepts(b"[[null],[ ]]")


def test_anchors_and_ids_resolve_inside_the_document() -> None:
    schema = {
        "$id": "https://example.org/root.json",
        "$defs": {"x": {"$anchor": "here", "type": "null"}, "y": {"$id": "other.json", "type": "boolean"}},
        "prefixItems": [{"$ref": "#here"}, {"$ref": "other.json"}, {"$ref": "https://example.org/root.json#/$defs/x"}],
        "items": False,
        "type": "array",
    }
    automaton = compile_schema(schema).automaton
    assert automaton.accepts(b"[null,true,null]") and not automaton.accepts(b"[true]")


def test_a_dynamic_reference_with_one_meaning_is_followed() -> None:
    node = {"type": ["null", "array"], "items": {"$dynamicRef": "#node"}, "$dynamicAnchor": "node"}
    old = {"$schema": "https://json-schema.org/draft/2019-09/schema", "type": ["null", "array"]}
    for schema in (node, old | {"items": {"$recursiveRef": "#"}}):
        automaton = compile_schema(schema, depth=2).automaton
        for text, valid in (("[[null]]", True), ("[[1]]", False)):
            assert automaton.accepts(text.encode()) is valid is validator_for(schema)(schema).is_valid(json.loads(text))


def test_what_stands_beside_a_reference_counts_from_2019_on() -> None:
    body = {"definitions": {"n": {"type": "integer"}}, "$ref": "#/definitions/n", "minimum": 5}
    old = compile_schema({"$schema": "http://json-schema.org/draft-07/schema#"} | body).automaton
    new = compile_schema({"$schema": "https://json-schema.org/draft/2020-12/schema"} | body).automaton
    assert old.accepts(b"1") and not new.accepts(b"1") and new.accepts(b"5")


def test_draft_4_reads_list_items_and_boolean_bounds() -> None:
    schema = {
        "type": "array",
        "items": [{"minimum": 1, "exclusiveMinimum": True, "type": "integer"}],
        "additionalItems": False,
    }
    automaton = compile_schema({"$schema": "http://json-schema.org/draft-04/schema#"} | schema).automaton
    assert automaton.accepts(b"[2]") and not automaton.accepts(b"[1]") and not automaton.accepts(b"[2,2]")


@pytest.mark.parametrize(
    ("whitespace", "yes", "no"),
    [
        ("flexible", ['{"a":[1,2]}', '{ "a" :\n[ 1\t,2 ] }'], [' {"a":[1,2]}', '{"a":[1,2]}\n']),
        ("compact", ['{"a":[1,2]}'], ['{"a": [1,2]}', '{"a":[1, 2]}']),
        (" ?", ['{"a":[1,2]}', '{ "a" : [ 1 , 2 ] }'], ['{"a":  [1,2]}', '{"a":\n[1,2]}']),
        ("  ", ['{  "a"  :  [  1  ,  2  ]  }'], ['{"a":[1,2]}', '{ "a" : [ 1 , 2 ] }']),
    ],
)
def test_white_space_is_what_was_asked(whitespace: str, yes: list[str], no: list[str]) -> None:
    schema = {"properties": {"a": {"type": "array", "items": {"type": "integer"}}}, "type": "object"}
    automaton = compile_schema(schema, whitespace=whitespace, depth=1).automaton
    assert all(automaton.accepts(text.encode()) for text in yes)
    assert not any(automaton.accepts(text.encode()) for text in no)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"properties": {"a": {"uniqueItems": True}}}, "$.properties.a.uniqueItems"),
        ({"items": {"type": "string", "format": "iri"}}, "$.items.format"),
        ({"unevaluatedProperties": False}, "$.unevaluatedProperties"),
        ({"contains": True, "minContains": 2}, "$.minContains"),
        ({"anyOf": [{"pattern": "(?=a)b"}]}, "$.anyOf[0].pattern"),
        ({"patternProperties": {r"(a)\1": True}}, "$.patternProperties"),
        ({"$ref": "https://example.org/else.json"}, "$: $ref"),
        ({"allOf": [{"$ref": "#"}]}, "$"),
        ({"type": "object", "minProperties": 2}, "$.minProperties"),
        ({"items": {"$dynamicRef": "#n"}, "$defs": {"n": {"$anchor": "n"}}}, "$.items.$dynamicRef"),
        (
            {
                "$id": "https://example.org/strict",
                "$dynamicAnchor": "node",
                "$ref": "tree",
                "$defs": {
                    "t": {"$id": "tree", "$dynamicAnchor": "node", "properties": {"a": {"$dynamicRef": "#node"}}}
                },
            },
            "$.$defs.t.properties.a.$dynamicRef",
        ),
        (
            {
                "$schema": "https://json-schema.org/draft/2019-09/schema",
                "$ref": "tree",
                "$recursiveAnchor": True,
                "$defs": {"t": {"$id": "tree", "$recursiveAnchor": True, "properties": {"a": {"$recursiveRef": "#"}}}},
            },
            "$.$defs.t.properties.a.$recursiveRef",
        ),
    ],
)
def test_what_is_not_enforced_is_refused_with_its_path(schema: Any, path: str) -> None:
    with pytest.raises(UnsupportedSchema) as caught:
        compile_schema(schema)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "text"}, "$.type"),
        ({"properties": {"a": {"minLength": -1}}}, "$.properties.a.minLength"),
        ({"items": {"enum": 3}}, "$.items.enum"),
        ({"$ref": "#/nowhere"}, "$: $ref"),
        (3, "$"),
    ],
)
def test_an_invalid_schema_is_refused_with_its_path(schema: Any, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compile_schema(schema)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"enum": ["a"], "type": "integer"},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {
            "$defs": {
                "a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/b"}}, "required": ["b"]},
                "b": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1},
            },
            "$ref": "#/$defs/a",
        },
        {"type": "string", "pattern": "^a$", "minLength": 2},
        {"type": "object", "maxProperties": 0, "minProperties": 1},
    ],
)
def test_a_schema_without_instance_is_infeasible(schema: Any) -> None:
    with pytest.raises(Infeasible):
        compile_schema(schema)


def nest(levels: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


BOMBS: dict[str, Any] = {
    "nested quantifiers": {"type": "string", "pattern": "^((a{1,500}){1,500}){1,500}$"},
    "ambiguous counts": {"type": "string", "pattern": "(a|b)*a(a|b){40}"},
    "counted in the millions": {"type": "string", "pattern": "^a{1,9000000}$"},
    "maxLength in the millions": {"type": "string", "maxLength": 5_000_000},
    "minLength in the millions": {"type": "string", "minLength": 5_000_000},
    "maxItems in the millions": {"type": "array", "maxItems": 5_000_000},
    "minItems in the millions": {"type": "array", "minItems": 5_000_000, "items": {"type": "object"}},
    "deep nesting": nest(5000),
    "multipleOf with a large numerator": {"multipleOf": 123457},
    "any order of many": {"properties": {f"p{i}": {"type": "null"} for i in range(30)}, "type": "object"},
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_time(name: str) -> None:
    began = time.process_time()
    tracemalloc.start() if name == "maxItems in the millions" else None
    with pytest.raises((AutomatonTooLarge, UnsupportedSchema)) as caught:
        compile_schema(BOMBS[name], any_order=name.startswith("any order"))
    if tracemalloc.is_tracing():
        assert tracemalloc.get_traced_memory()[1] < 1 << 30
        tracemalloc.stop()
    else:
        assert time.process_time() - began < 6  # 2 s on a quiet machine
    assert "$" in str(caught.value)


def test_thousands_of_enum_values_compile_in_time() -> None:
    rng = random.Random(5)
    words = ["".join(rng.choice("abcdefghijklmnop") for _ in range(8)) for _ in range(5000)]
    began = time.process_time()
    automaton = compile_schema({"enum": words}).automaton
    assert time.process_time() - began < 10
    assert automaton.accepts(json.dumps(words[77]).encode()) and not automaton.accepts(b'"nope"')


def test_errors_are_all_ours() -> None:
    rng = random.Random(6)
    keys = ["type", "items", "$ref", "enum", "properties", "pattern", "minimum", "anyOf", "required", "maxItems"]
    junk = [None, -1, "x", [], {}, "#", [1], {"a": 1}, True, "object", ["object"], 1e400, 10**30]
    for _ in range(300):
        schema = {key: rng.choice(junk) for key in rng.sample(keys, 2)}
        try:
            compile_schema(schema)
        except GuidedError as error:
            assert str(error)
