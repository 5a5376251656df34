"""`JSONSchema`: a value like any constraint, and a check that shares nothing with the automaton."""

from __future__ import annotations

import json
import random
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import torch
from json_oracle import walk
from pydantic import BaseModel, ConfigDict, Field

from constraints.json_schema import JSONSchema
from guided_dlm.constraint import CompileContext, Constraint
from guided_dlm.errors import AutomatonTooLarge, Infeasible, InvalidRequest, UnsupportedPattern, UnsupportedSchema
from guided_dlm.posterior import Posterior
from guided_dlm.testing import byte_vocabulary, check_constraint

PLACE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "rating": {"type": "integer", "minimum": 1, "maximum": 5},
        "near": {"enum": ["riverside", "city centre", None]},
    },
    "required": ["name", "rating"],
    "additionalProperties": False,
}


class Pub(BaseModel):
    """A pub."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=4)
    stars: int = Field(ge=0, le=5)


@pytest.mark.parametrize(
    "constraint",
    [
        JSONSchema(PLACE),
        JSONSchema(PLACE, whitespace="compact", order="any"),
        JSONSchema(Pub, whitespace=" ?"),
        JSONSchema({"type": "array", "items": {"type": "boolean"}}, escapes="needed"),
        JSONSchema({"type": "number"}),
    ],
    ids=repr,
)
def test_it_keeps_the_contract(constraint: JSONSchema) -> None:
    check_constraint(constraint, length=60, samples=12)


def test_samples_validate_with_the_library() -> None:
    import jsonschema

    vocabulary = byte_vocabulary()
    guide = JSONSchema(PLACE).compile(CompileContext(vocabulary=vocabulary, length=80))
    assert guide.automaton is not None
    generator = torch.Generator().manual_seed(0)
    logits_BLV = 3.0 * torch.randn(16, 80, len(vocabulary), generator=generator)
    for row in Posterior(logits_BLV, guide.automaton).sample(generator).tolist():
        jsonschema.validate(json.loads(vocabulary.decode(row)), PLACE)


def test_a_pydantic_model_means_its_schema() -> None:
    assert JSONSchema(Pub) == JSONSchema(Pub.model_json_schema())
    assert JSONSchema(Pub).to_automaton().accepts(b'{"name": "Mill", "stars": 5}')


def test_the_config_holds_the_schema_as_json() -> None:
    constraint = JSONSchema(PLACE, depth=2, whitespace="compact")
    config = json.loads(json.dumps(constraint.to_config()))
    assert config == {"constraint": "json_schema", "schema": PLACE, "depth": 2, "whitespace": "compact"}
    assert Constraint.from_config(config) == constraint


def test_the_order_of_properties_is_part_of_the_value() -> None:
    one, two = ({"properties": dict.fromkeys(names, True)} for names in ("ab", "ba"))
    assert JSONSchema(one) != JSONSchema(two) and hash(JSONSchema(one)) == hash(JSONSchema(dict(one)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "x", "rating": 1}', True),
        ('{"rating": 1, "name": "x"}', True),  # the order is how it is written, not what is true
        ('{"name": "x", "rating": 1.0}', True),
        ('{"name": "x", "rating": 6}', False),
        ('{"name": "x", "rating": 1, "rating": 2}', False),
        ('{"name": "x", "rating": NaN}', False),
        ('{"name": "\\ud800", "rating": 1}', False),
        (' {"name": "x", "rating": 1}', False),
        ('{"name": "x", "rating": 1,}', False),
        ("", False),
        ("[" * 100_000, False),
    ],
)
def test_check_is_strict_json_and_validity(text: str, expected: bool) -> None:
    assert JSONSchema(PLACE).check(text) is expected


def test_a_free_name_may_stand_twice_if_each_value_is_valid() -> None:
    constraint = JSONSchema({"type": "object", "properties": {"a": True}, "additionalProperties": {"type": "integer"}})
    automaton = constraint.to_automaton()
    for text, expected in (('{"x":1,"x":2}', True), ('{"x":1,"x":"s","x":2}', False), ('{"a":1,"a":1}', False)):
        assert constraint.check(text) is expected
        assert automaton.accepts(text.encode()) is expected


def test_decimal_steps_are_exact() -> None:
    constraint = JSONSchema({"multipleOf": 0.01, "type": "number"})
    for text, expected in (
        ("0.07", True),
        ("19.99", True),
        ("0.075", False),
        ("1" * 40, True),
        ("1" * 40 + ".5", True),
    ):
        assert constraint.check(text) is expected
        assert constraint.to_automaton().accepts(text.encode()) is expected


@pytest.mark.parametrize("schema", [PLACE, True, {"type": "array", "items": {"format": "date-time", "type": "string"}}])
def test_what_the_automaton_writes_the_check_accepts(schema: Any) -> None:
    constraint, rng = JSONSchema(schema), random.Random(4)
    for _ in range(60):
        text = walk(constraint.to_automaton(), rng, 60).decode()
        assert constraint.check(text), text


def test_notes_state_the_depth_and_whether_it_can_bind() -> None:
    def notes(schema: Any, length: int, **options: Any) -> dict[str, Any]:
        context = CompileContext(vocabulary=byte_vocabulary(), length=length)
        return dict(JSONSchema(schema, **options).notes(context))

    assert notes(PLACE, 500) == {"depth": 0, "depth_can_bind": False, "escapes": "any"}
    assert notes(True, 500, depth=2)["depth"] == 2 and notes(True, 500, depth=2)["depth_can_bind"]
    assert not notes(True, 1, depth=6)["depth_can_bind"]


@pytest.mark.parametrize(
    "options",
    [
        {"whitespace": "a*"},
        {"whitespace": "("},
        {"order": "random"},
        {"escapes": "all"},
        {"whitespace": None},
        {"depth": -1},
        {"depth": 101},
        {"depth": True},
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"JSONSchema|whitespace|parse"):
        JSONSchema(True, **options)


@pytest.mark.parametrize(
    "schema", [3, None, "text", {"type": "nothing"}, {"a": {1, 2}}, {"minimum": float("nan")}, {"$schema": 5}]
)
def test_what_is_no_schema_is_refused_at_once(schema: Any) -> None:
    with pytest.raises(InvalidRequest):
        JSONSchema(schema)


def test_errors_of_the_compiler_come_through() -> None:
    with pytest.raises(UnsupportedSchema, match=r"\$\.uniqueItems"):
        JSONSchema({"type": "array", "uniqueItems": True}).to_automaton()
    with pytest.raises(Infeasible):
        JSONSchema(False).to_automaton()


@pytest.mark.parametrize("pattern", [r"^\u{61}$", "^(?<n>a)$", "^[^]$", "^a(?<n>)$"])
def test_a_pattern_that_only_ecma_reads_is_checked_too(pattern: str) -> None:
    constraint = JSONSchema({"type": "string", "pattern": pattern})
    named = JSONSchema({"type": "object", "patternProperties": {pattern: False}})
    for text in ("a", "ab"):
        expected = text == "a"
        assert constraint.check(f'"{text}"') is expected
        assert constraint.to_automaton().accepts(f'"{text}"'.encode()) is expected
        assert named.check(f'{{"{text}":1}}') is not expected


def test_a_pattern_that_nobody_reads_is_no_crash() -> None:
    with pytest.raises(UnsupportedPattern):
        JSONSchema({"type": "string", "pattern": "("}).check('"a"')
    with pytest.raises(UnsupportedPattern):
        JSONSchema({"$ref": "#/elsewhere/x", "elsewhere": {"x": {"pattern": "("}}}).check('"a"')


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "array", "prefixItems": {"type": "integer"}}, "$.prefixItems"),
        ({"items": [{"type": "integer"}], "prefixItems": [True]}, "$.items"),
        ({"dependentRequired": {"a": "b"}}, "$.dependentRequired.a"),
        ({"properties": {"a": {"items": [True], "unevaluatedProperties": False, "$dynamicRef": "#"}}}, "$.properties"),
        ({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n", "minimum": 5}, "required": "a"}, "$.req"),
        ({"exclusiveMinimum": True, "minimum": 1, "const": 3}, "$.exclusiveMinimum"),
        ({"if": {"exclusiveMinimum": True, "minimum": 1}, "then": False}, "$.if"),
    ],
)
def test_a_schema_that_is_wrong_today_is_not_read_by_a_draft_that_overlooks_its_keywords(
    schema: Any, path: str
) -> None:
    with pytest.raises(InvalidRequest, match=r"no valid schema") as caught:
        JSONSchema(schema)
    assert str(caught.value).startswith(path)


def test_an_older_draft_is_recognised_where_it_overlooks_nothing() -> None:
    listed = JSONSchema({"type": "array", "items": [{"type": "integer"}], "additionalItems": False, "minItems": 1})
    bound = JSONSchema({"type": "integer", "minimum": 1, "exclusiveMinimum": True})
    for constraint, text, expected in ((listed, "[1]", True), (listed, '["x"]', False), (bound, "1", False)):
        assert constraint.check(text) is expected
        assert constraint.to_automaton().accepts(text.encode()) is expected


def test_an_old_name_of_a_format_is_an_annotation_to_both() -> None:
    constraint = JSONSchema({"type": "string", "format": "ip-address"})
    assert constraint.check('"x"') and constraint.to_automaton().accepts(b'"x"')


def test_what_is_asked_of_one_free_property_may_be_met_by_a_value_that_a_reader_drops() -> None:
    constraint = JSONSchema({"not": {"additionalProperties": {"type": "integer"}}})
    automaton = constraint.to_automaton()
    for text, automatic, checked in (
        ('{"x":"s"}', True, True),
        ('{"x":"s","x":1}', True, False),
        ('{"x":1}', *[False] * 2),
    ):
        assert automaton.accepts(text.encode()) is automatic and constraint.check(text) is checked


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def chain(length: int) -> dict[str, Any]:
    found = {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}, {"const": i}]} for i in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": found | {f"a{length}": {"type": "null"}}}


@pytest.mark.parametrize("schema", [{"const": nested(140)}, chain(300)], ids=["constant", "references"])
def test_what_python_cannot_follow_is_an_error_of_ours(schema: Any) -> None:
    with pytest.raises((AutomatonTooLarge, UnsupportedSchema), match=r"\$: .*nest"):
        JSONSchema(schema).to_automaton()
    with pytest.raises(UnsupportedSchema, match="does not end") if "$ref" in schema else nullcontext():
        JSONSchema(schema).check('"x"')


def test_a_recursive_schema_compiles_or_is_refused_at_any_depth_that_may_be_given() -> None:
    constraint = JSONSchema({"type": "array", "items": {"$ref": "#"}}, depth=100)
    with suppress(AutomatonTooLarge):
        assert constraint.to_automaton().accepts(b"[" * 100 + b"]" * 100)
    assert constraint.check("[" * 60 + "]" * 60) and not constraint.check("[" * 400 + "]" * 400)


def test_validation_without_end_is_a_clear_error() -> None:
    with pytest.raises(UnsupportedSchema, match="does not end"):
        JSONSchema({"if": {"$ref": "#"}}).check("1")


def test_an_index_in_a_reference_is_of_plain_digits() -> None:
    with pytest.raises(InvalidRequest, match="points at nothing"):
        JSONSchema({"allOf": [{"$ref": "#/allOf/\u00b2"}, True, True]}).to_automaton()


def test_multiples_of_any_length_are_exact() -> None:
    constraint = JSONSchema({"type": "integer", "multipleOf": 3})
    for text, expected in (("3" * 40, True), ("3" * 39 + "4", False), ("1" * 45, True)):
        assert constraint.check(text) is expected
        assert constraint.to_automaton().accepts(text.encode()) is expected
    assert not JSONSchema({"multipleOf": 3}).check("1e999")


def test_numbers_are_compared_as_decimals_while_the_check_rounds_them() -> None:
    constraint = JSONSchema({"type": "number", "exclusiveMinimum": 1})
    for text, exact, rounded in (("1.000000000000001", True, True), ("1.00000000000000000000001", True, False)):
        assert constraint.to_automaton().accepts(text.encode()) is exact and constraint.check(text) is rounded
