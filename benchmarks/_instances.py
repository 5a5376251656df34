"""Instances of schemas, re-serialised: properties in the order of the schema, extras last."""

import re
from typing import Any

from jsonschema import Draft4Validator, Draft6Validator, Draft7Validator

from guided_dlm.automata.json_schema import Document

REFERENCE_ALONE = (Draft4Validator, Draft6Validator, Draft7Validator)


def ordered(value: Any, schema: Any, document: Document, depth: int = 0) -> Any:
    """The value with every object's properties in the order of the schema, extras last.

    Of alternatives, those count that the value is valid under.
    """
    if depth > 64 or not isinstance(value, dict | list):
        return value
    applied = list(applicable(schema, value, document, set()))
    if isinstance(value, list):
        return [ordered(item, item_schemas(applied, index), document, depth + 1) for index, item in enumerate(value)]
    declared: dict[str, None] = {}
    for one in applied:
        declared |= dict.fromkeys(one.get("properties", {}))
        declared |= dict.fromkeys(name for name in one.get("required") or () if isinstance(name, str))
    for one in applied:
        for constant in [one.get("const"), *(one.get("enum") or ())]:
            declared |= dict.fromkeys(constant) if isinstance(constant, dict) else {}
    names = [name for name in declared if name in value] + [name for name in value if name not in declared]
    return {name: ordered(value[name], member_schemas(applied, name), document, depth + 1) for name in names}


def applicable(schema: Any, value: Any, document: Document, seen: set[int]) -> Any:
    """Every subschema that looks at the same value, those written first first; to draft 7, `$ref` stands alone."""
    for one in schema if isinstance(schema, list) else [schema]:
        if not isinstance(one, dict) or id(one) in seen:
            continue
        seen.add(id(one))
        alone = "$ref" in one and document.validator in REFERENCE_ALONE
        if not alone:
            yield one
        if "$ref" in one:
            yield from applicable(document.resolve(one["$ref"], document.place(one)), value, document, seen)
        if alone:
            continue
        yield from applicable(list(one.get("allOf") or ()), value, document, seen)
        branches = [*(one.get("anyOf") or ()), *(one.get("oneOf") or ())]
        branches += [one[word] for word in ("if", "then", "else") if word in one]
        for word in ("dependencies", "dependentSchemas"):
            branches += [x for x in (one.get(word) or {}).values() if isinstance(x, dict)]
        fitting = [branch for branch in branches if fits(value, branch, document)]
        yield from applicable(fitting, value, document, seen)


def fits(value: Any, schema: Any, document: Document) -> bool:
    try:
        return bool(document.validator(document.root).evolve(schema=schema).is_valid(value))
    except Exception:
        return True


def item_schemas(applied: list[Any], index: int) -> list[Any]:
    found = []
    for one in applied:
        prefix = one.get("prefixItems", one.get("items") if isinstance(one.get("items"), list) else []) or []
        rest = one.get("additionalItems") if isinstance(one.get("items"), list) else one.get("items")
        found.append(prefix[index] if index < len(prefix) else rest)
    return found


def member_schemas(applied: list[Any], name: str) -> list[Any]:
    found = []
    for one in applied:
        own = [one["properties"][name]] if name in one.get("properties", {}) else []
        own += [value for pattern, value in (one.get("patternProperties") or {}).items() if found_in(pattern, name)]
        found += own or [one.get("additionalProperties")]
    return found


def found_in(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False
