"""The keywords of one subschema that look at one type each, as a form; who may stand beside whom is `normal`'s."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from jsonschema import validators

from guided_dlm.automata.json_schema import numbers
from guided_dlm.automata.json_schema.document import Place, step
from guided_dlm.automata.json_schema.formats import KNOWN, format_texts
from guided_dlm.automata.json_schema.forms import (
    CONSTANTS,
    FALSE,
    TRUE,
    ArrayShape,
    Extra,
    Form,
    Name,
    ObjectShape,
    any_extra,
    nothing,
    tidy_array,
    tidy_object,
)
from guided_dlm.automata.json_schema.numbers import Numbers
from guided_dlm.automata.json_schema.patterns import search
from guided_dlm.automata.json_schema.texts import Texts, any_text, length
from guided_dlm.errors import GuidedError, UnsupportedPattern, UnsupportedSchema

if TYPE_CHECKING:
    from guided_dlm.automata.json_schema.normal import Normaliser

_NOT_ENFORCED = ("unevaluatedItems", "unevaluatedProperties")


def refuse_unknown(schema: dict[str, Any], place: Place, active: Any) -> None:
    """Refuse the keywords of this draft that assert something and are not enforced.

    Raises:
        UnsupportedSchema: names the keyword and its JSON path.
    """
    for word in _NOT_ENFORCED:
        if word in schema and word in active and schema[word] is not True and schema[word] != {}:
            raise UnsupportedSchema(f"{step(place.path, word)}: the keyword {word} is not enforced; leave it out.")
    if "contains" in schema and "unevaluatedItems" in active:
        for word, harmless in (("minContains", 1), ("maxContains", None)):
            if schema.get(word, harmless) != harmless:
                raise UnsupportedSchema(f"{step(place.path, word)}: the keyword {word} is not enforced; leave it out.")


def exact(value: int | float) -> Decimal:
    """Return the number that a JSON text meant."""
    return Decimal(value) if isinstance(value, int) else Decimal(repr(value))


def own_form(schema: dict[str, Any], place: Place, n: Normaliser) -> Form:
    """Return the form of the type, enum, const and single-type keywords of a subschema."""
    types = schema.get("type", ())
    wanted = {types} if isinstance(types, str) else set(types)
    known: Form | None = None
    for word in ("const", "enum"):
        if word in schema and word in n.document.validator.VALIDATORS:
            values = [schema[word]] if word == "const" else schema[word]
            found = _constants(values, Place(step(place.path, word), place.base), n)
            known = found if known is None else _meet(known, found, n)
    keep = wanted or {"null", "boolean", "number", "string", "array", "object"}
    found = Form(
        frozenset(c for c in CONSTANTS if ("null" if c == "null" else "boolean") in keep),
        _numbers(schema, keep, place, n),
        _strings(schema, place) if "string" in keep else nothing().strings,
        tuple(_arrays(schema, place, n)) if "array" in keep else (),
        tuple(_objects(schema, place, n)) if "object" in keep else (),
    )
    return found if known is None else _meet(known, found, n)


def _meet(left: Form, right: Form, n: Normaliser) -> Form:
    from guided_dlm.automata.json_schema.forms import both

    return both(left, right, n)


def _constants(values: list[Any], place: Place, n: Normaliser) -> Form:
    """Return the form of a list of JSON values."""
    names = {None: "null", True: "true", False: "false"}
    plain = [v for v in values if v is None or isinstance(v, bool)]
    form = Form(
        frozenset(names[v] for v in plain),
        numbers.constants(exact(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)),
        Texts.of(v for v in values if isinstance(v, str)),
        (),
        (),
    )

    def constant(value: Any) -> int:
        return n.schema(n.document.derived({"enum": [value]}, place))

    arrays = [ArrayShape(tuple(map(constant, v)), FALSE, len(v), len(v)) for v in values if isinstance(v, list)]
    objects = [
        ObjectShape(tuple(Name(k, constant(x), True) for k, x in v.items())) for v in values if isinstance(v, dict)
    ]
    return replace(form, arrays=tuple(dict.fromkeys(arrays)), objects=tuple(dict.fromkeys(objects)))


@contextmanager
def _at(place: Place, word: str) -> Iterator[None]:
    """Put the path of a keyword before the message of an error."""
    try:
        yield
    except GuidedError as error:
        kind = UnsupportedSchema if isinstance(error, UnsupportedPattern) else type(error)
        raise kind(f"{step(place.path, word)}: {error}") from error


def _numbers(schema: dict[str, Any], keep: set[str], place: Place, n: Normaliser) -> Numbers:
    fourth = n.document.validator is validators.Draft4Validator
    if "number" in keep:
        found = numbers.every_number()
    elif "integer" in keep:
        found = numbers.digits_only() if fourth else numbers.integers()
    else:
        return numbers.no_number()
    for word, upper in (("minimum", False), ("maximum", True)):
        strict_word = "exclusive" + word.capitalize()
        strict = schema.get(strict_word)
        if word in schema:
            with _at(place, word):
                found = found & _bound(schema[word], upper, strict is True)
        if strict is not None and not isinstance(strict, bool) and strict_word in n.document.validator.VALIDATORS:
            with _at(place, strict_word):
                found = found & _bound(strict, upper, True)
    if "multipleOf" in schema:
        with _at(place, "multipleOf"):
            found = found & numbers.multiples(exact(schema["multipleOf"]))
    return found


def _bound(value: int | float, upper: bool, strict: bool) -> Numbers:
    if strict and isinstance(value, float) and not value.is_integer():
        # Texts nearer to the bound than the next float would round to it; leaving them out suits every reader.
        return numbers.compare(exact(math.nextafter(value, -math.inf if upper else math.inf)), upper, False)
    return numbers.compare(exact(value), upper, strict)


def _strings(schema: dict[str, Any], place: Place) -> Texts:
    found = any_text()
    low, high = int(schema.get("minLength", 0)), schema.get("maxLength")
    if "format" in schema:
        name = schema["format"]
        texts = format_texts(name)
        if texts is None and name in KNOWN:
            raise UnsupportedSchema(f"{step(place.path, 'format')}: the format {name!r} is not enforced; leave it out.")
        found = found & (any_text() if texts is None else texts)
    if "pattern" in schema:
        with _at(place, "pattern"):
            found = found & search(schema["pattern"])
    if low or high is not None:
        with _at(place, "minLength" if high is None else "maxLength"):
            found = found & length(low, None if high is None else int(high))
    return found


def _arrays(schema: dict[str, Any], place: Place, n: Normaliser) -> list[ArrayShape]:
    active = n.document.validator.VALIDATORS
    items = schema.get("items", True)
    if "prefixItems" in schema and "prefixItems" in active:
        prefix = tuple(map(n.schema, schema["prefixItems"]))
        rest = n.schema(items)
    elif isinstance(items, list):
        prefix, rest = tuple(map(n.schema, items)), n.schema(schema.get("additionalItems", True))
    else:
        prefix, rest = (), n.schema(items)
    low, high = int(schema.get("minItems", 0)), schema.get("maxItems")
    most = len(prefix) if rest == FALSE and high is None else high
    if schema.get("uniqueItems") is True and (most is None or most > 1):
        raise UnsupportedSchema(
            f"{step(place.path, 'uniqueItems')}: the keyword uniqueItems is not enforced, because telling items apart "
            "is not regular; leave it out, or set maxItems to 1."
        )
    some: tuple[tuple[int, int], ...] = ()
    if "contains" in schema and "contains" in active:
        some = ((0, n.schema(schema["contains"])),)
    for index, item in enumerate(prefix):
        if item == FALSE:
            prefix, rest = prefix[:index], FALSE
            break
    return tidy_array(ArrayShape(prefix, rest, max(low, 1 if some else 0), None if high is None else int(high), some))


def _objects(schema: dict[str, Any], place: Place, n: Normaliser) -> list[ObjectShape]:
    required = schema.get("required", ())
    required = required if isinstance(required, list) else ()
    declared = schema.get("properties", {})
    with _at(place, "patternProperties"):
        patterns = [(search(p), n.schema(s)) for p, s in schema.get("patternProperties", {}).items()]
    extras = _extras(schema, n)
    key_texts = _key_texts(schema, n)
    names = []
    for name in dict.fromkeys([*declared, *required]):
        value = n.schema(declared[name]) if name in declared else TRUE
        # A name that only one dialect of patterns finds has to satisfy both readings.
        matching = [other for texts, other in patterns if texts.wide.contains(name)]
        for other in matching:
            value = n.both(value, other)
        if name not in declared and not any(texts.contains(name) for texts, _ in patterns):
            value = n.both(value, n.schema(schema.get("additionalProperties", True)))
        if key_texts is not None and not key_texts.contains(name):
            value = FALSE
        names.append(Name(name, value, name in required))
    if key_texts is not None:
        extras = tuple(Extra(x.names & key_texts, x.value) for x in extras)
        extras = tuple(x for x in extras if not x.names.is_empty())
    high = schema.get("maxProperties")
    low = int(schema.get("minProperties", 0))
    return tidy_object(ObjectShape(tuple(names), extras, low, None if high is None else int(high)))


def _key_texts(schema: dict[str, Any], n: Normaliser) -> Texts | None:
    """Return the property names that `propertyNames` allows, None for all."""
    if "propertyNames" not in schema or "propertyNames" not in n.document.validator.VALIDATORS:
        return None
    return n.node(schema["propertyNames"]).strings


def _extras(schema: dict[str, Any], n: Normaliser) -> tuple[Extra, ...]:
    """Return the names that are not declared, split by which patterns match them."""
    additional = n.schema(schema.get("additionalProperties", True))
    patterns = schema.get("patternProperties", {})
    if not patterns:
        return any_extra() if additional == TRUE else () if additional == FALSE else (Extra(any_text(), additional),)
    parts: list[tuple[Texts, int, bool]] = [(any_text(), TRUE, False)]
    for pattern, value in patterns.items():
        texts = search(pattern)
        split = []
        for names, expression, matched in parts:
            n.count(10)
            inside = names & texts
            if inside.wide.is_empty():
                split.append((names, expression, matched))
                continue
            outside = names - texts
            if not inside.is_empty():
                split.append((inside, n.both(expression, n.schema(value)), True))
            if not outside.is_empty():
                split.append((outside, expression, matched))
        parts = split
    found = [Extra(names, value if matched else additional) for names, value, matched in parts]
    return tuple(x for x in found if x.value != FALSE)
