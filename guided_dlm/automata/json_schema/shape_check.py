"""A fast look at whether a schema is well formed; only where it hesitates is the metaschema asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonschema import validators

TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) for x in value) and len(set(value)) == len(value) > 0


def _type(value: Any) -> bool:
    return value in TYPES if isinstance(value, str) else _texts(value) and TYPES.issuperset(value)


def _dependencies(value: Any) -> bool:
    return isinstance(value, dict) and all(_texts(x) or isinstance(x, dict) for x in value.values())


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _many(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0


_RULES: dict[str, Callable[[Any], bool]] = {
    "type": _type,
    "enum": lambda value: isinstance(value, list) and 0 < len(value) == len({repr(x) for x in value}),
    "required": _texts,
    "dependentRequired": lambda value: isinstance(value, dict) and all(map(_texts, value.values())),
    "dependencies": _dependencies,
    "multipleOf": _positive,
    "uniqueItems": _flag,
    "default": lambda value: True,
}
_RULES |= dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _count)
_RULES |= dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _number)
_RULES |= dict.fromkeys(("pattern", "format", "title", "description"), _text)
_RULES |= dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _many)
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SINGLE = ("additionalProperties", "additionalItems", "not", "if", "then", "else", "contains", "propertyNames", "items")


def plausible(schema: Any, validator: Any) -> bool:
    """Say whether a schema is certainly valid in a draft; False only means that the metaschema has to be asked."""
    return _plausible(
        schema, validator is validators.Draft4Validator, validator is not validators.Draft202012Validator, 0
    )


def _plausible(schema: Any, fourth: bool, list_items: bool, depth: int) -> bool:
    if isinstance(schema, bool):
        return not fourth
    if not isinstance(schema, dict) or depth > 200:
        return False
    for key, value in schema.items():
        rule = _RULES.get(key)
        if rule is not None and not rule(value):
            if fourth and key in ("exclusiveMinimum", "exclusiveMaximum") and isinstance(value, bool):
                continue
            return False
        if rule is None and key[:1] == "$" and key not in ("$defs", "$schema", "$ref", "$id", "$comment"):
            return False
        if key in ("$ref", "$id", "id", "$schema", "$comment") and not isinstance(value, str):
            return False
    if fourth and not {"exclusiveMinimum", "exclusiveMaximum"}.isdisjoint(schema):
        return False  # draft 4 asks for the bound beside it
    return _children(schema, fourth, list_items, depth + 1)


def _children(schema: dict[str, Any], fourth: bool, list_items: bool, depth: int) -> bool:
    for key in _MAPS:
        found = schema.get(key, {})
        if not isinstance(found, dict) or not all(_plausible(x, fourth, list_items, depth) for x in found.values()):
            return False
    for key in _SINGLE:
        if key in schema:
            value = schema[key]
            if key == "items" and isinstance(value, list):
                if not (list_items and value and all(_plausible(x, fourth, list_items, depth) for x in value)):
                    return False
            elif isinstance(value, bool) and fourth and key in ("additionalProperties", "additionalItems"):
                continue
            elif not _plausible(value, fourth, list_items, depth):
                return False
    return all(
        _plausible(x, fourth, list_items, depth)
        for key in ("allOf", "anyOf", "oneOf", "prefixItems")
        for x in schema.get(key, ())
    ) and all(
        _plausible(x, fourth, list_items, depth)
        for x in (schema.get("dependencies") or {}).values()
        if isinstance(x, dict)
    )
