"""A schema as a document: its dialect, the place of every subschema, and what each reference means."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

from jsonschema import validators
from jsonschema.exceptions import best_match

from guided_dlm.automata.json_schema.shape_check import plausible
from guided_dlm.errors import InvalidRequest, UnsupportedSchema, shorten

SINGLE: tuple[str, ...] = ("additionalProperties", "additionalItems", "items", "not", "if", "then", "else", "contains")
SINGLE += ("propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")

# Newest first: a schema that does not say its draft is read by the newest one that it is valid in.
DRAFTS: tuple[Any, ...] = (
    validators.Draft202012Validator,
    validators.Draft201909Validator,
    validators.Draft7Validator,
    validators.Draft6Validator,
    validators.Draft4Validator,
)
MAX_DEPTH = 150
# What asserts something in 2020-12 beside another keyword, or by another one that uses it.
_ASSISTING = frozenset({"minContains", "maxContains", "then", "else", "$anchor", "$dynamicAnchor", "$id"})


class Place(NamedTuple):
    """Where a subschema stands: its JSON path, and the base URI that its references are relative to."""

    path: str
    base: str


def step(path: str, key: str | int) -> str:
    """Return the JSON path of a member: `$.properties.name`, `$.anyOf[0]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if re.fullmatch(r"[A-Za-z_$][\w$-]*", key) else f"{path}[{key!r}]"


def subschemas(schema: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the place and value of every direct subschema."""
    for key in SINGLE:
        if isinstance(schema.get(key), dict | bool):
            yield (key,), schema[key]
    for key in LISTS:
        if isinstance(schema.get(key), list):
            yield from (((key, index), value) for index, value in enumerate(schema[key]))
    for key in MAPS:
        if isinstance(schema.get(key), dict):
            yield from (((key, name), value) for name, value in schema[key].items() if isinstance(value, dict | bool))


class Document:
    """A schema with every subschema placed; `validator` is the jsonschema class of its draft."""

    def __init__(self, schema: Any) -> None:
        """Check the schema against its metaschema and place its parts.

        Raises:
            InvalidRequest: it is no schema; the message has the JSON path.
            UnsupportedSchema: it is nested too deeply.
        """
        self.root = schema
        self.validator = validator_of(schema)
        self.places: dict[int, Place] = {}
        self.resources: dict[str, Any] = {}
        self.kept: list[Any] = []
        self.dynamic: Counter[str] = Counter()
        self.embedded = 0  # resources inside the root one
        self.id_word = "id" if self.validator is validators.Draft4Validator else "$id"
        self.register(schema, Place("$", ""))
        self.resources[""] = schema

    def register(self, schema: Any, place: Place, depth: int = 0) -> None:
        """Place a schema and all below it."""
        if not isinstance(schema, dict):
            return
        if depth > MAX_DEPTH:
            raise UnsupportedSchema(
                f"{shorten(place.path)}: the schema nests more than {MAX_DEPTH} levels deep; use $defs and $ref."
            )
        name = schema.get(self.id_word)
        if isinstance(name, str) and (self.id_word == "$id" or "$ref" not in schema):
            base = urljoin(place.base, name)
            self.resources.setdefault(base.rstrip("#"), schema)
            place = place._replace(base=base if not name.startswith("#") else place.base)
            self.embedded += schema is not self.root and not name.startswith("#")
        for word in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(word), str):
                self.resources.setdefault(urldefrag(place.base)[0] + "#" + schema[word], schema)
        if isinstance(schema.get("$dynamicAnchor"), str):
            self.dynamic[schema["$dynamicAnchor"]] += 1
        self.places[id(schema)] = place
        for keys, value in subschemas(schema):
            path = place.path
            for key in keys:
                path = step(path, key)
            self.register(value, Place(path, place.base), depth + 1)

    def place(self, schema: Any, default: str = "$") -> Place:
        """Return where a subschema stands."""
        return self.places.get(id(schema), Place(default, ""))

    def derived(self, schema: Any, place: Place) -> Any:
        """Return a schema made from another one, at its place."""
        if isinstance(schema, dict):
            self.places[id(schema)] = place
            self.kept.append(schema)
        return schema

    def resolve(self, reference: str, place: Place) -> Any:
        """Return the schema that a reference means.

        Raises:
            UnsupportedSchema: it points outside the document.
            InvalidRequest: it points at nothing.
        """
        if not isinstance(reference, str):
            raise InvalidRequest(f"{place.path}: $ref {reference!r} is not a text; give a URI reference.")
        target = (
            urljoin(place.base, reference) if not reference.startswith("#") else urldefrag(place.base)[0] + reference
        )
        base, fragment = urldefrag(target)
        if target.rstrip("#") in self.resources:
            return self.resources[target.rstrip("#")]
        if base not in self.resources:
            if base and base != urldefrag(place.base)[0]:
                raise UnsupportedSchema(
                    f"{place.path}: $ref {reference!r} points outside the schema, and nothing is fetched. Copy what it "
                    "means into $defs."
                )
            base = ""
        return self._pointer(self.resources[base], base, fragment, reference, place)

    def resolve_dynamic(self, word: str, reference: str, place: Place) -> Any:
        """Return the schema that `$dynamicRef` or `$recursiveRef` means, where it means the same from everywhere.

        Raises:
            UnsupportedSchema: what it means depends on who refers here.
        """
        fragment = urldefrag(reference)[1] if isinstance(reference, str) else ""
        named = bool(fragment) and not fragment.startswith("/")
        if (word == "$recursiveRef" and self.embedded) or (named and self.dynamic[fragment] != 1):
            raise UnsupportedSchema(
                f"{step(place.path, word)}: {reference!r} may mean several schemas, depending on where validation came "
                "from, which is not supported; use $ref, or give one schema only that $dynamicAnchor."
            )
        return self.resolve(reference, place)

    def _pointer(self, found: Any, base: str, fragment: str, reference: str, place: Place) -> Any:
        path = self.place(found).path
        if fragment and not fragment.startswith("/"):
            found = None
        for part in unquote(fragment).split("/")[1:] if found is not None else ():
            part = part.replace("~1", "/").replace("~0", "~")
            key = int(part) if isinstance(found, list) and re.fullmatch("[0-9]{1,9}", part) else part
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                found = None
                break
            path = step(path, key)
        if not isinstance(found, dict | bool):
            raise InvalidRequest(f"{place.path}: $ref {reference!r} points at nothing in the schema; correct it.")
        if isinstance(found, dict) and id(found) not in self.places:
            self.register(found, Place(path, base))
        return found


def validator_of(schema: Any) -> Any:
    """Return the jsonschema class of a schema's draft: what `$schema` says, else the newest that it is valid in.

    An older draft is only taken for a schema that does not say so if it overlooks nothing that 2020-12 asserts.

    Raises:
        InvalidRequest: it is valid in none; the message is about the newest.
    """
    if not isinstance(schema, dict | bool):
        raise InvalidRequest(f"$: a schema is an object, true or false; got a {type(schema).__name__}.")
    _refuse_depth(schema)
    declared = isinstance(schema, dict) and "$schema" in schema
    if isinstance(schema, dict) and not isinstance(schema.get("$schema", ""), str):
        raise InvalidRequest(f"$.$schema: {schema['$schema']!r:.60} is not a text; give the URI of a draft.")
    candidates = (validators.validator_for(schema, default=DRAFTS[0]),) if declared else DRAFTS
    if candidates[0] not in DRAFTS:
        raise UnsupportedSchema(
            f"$.$schema: {candidates[0].__name__} is not supported; use draft 4, 6, 7, 2019-09 or 2020-12."
        )
    for validator in candidates:
        valid = plausible(schema, validator) or validator(validator.META_SCHEMA).is_valid(schema)
        if valid and (validator is candidates[0] or not _overlooks(validator, schema)):
            return validator
    error = best_match(candidates[0](candidates[0].META_SCHEMA).iter_errors(schema))
    assert error is not None
    raise InvalidRequest(f"{error.json_path}: {shorten(error.message, 120)} This is no valid schema; correct it.")


def _overlooks(validator: Any, schema: Any) -> bool:
    """Say whether an older draft ignores a keyword, anywhere in a schema, that means something in 2020-12."""
    newest = frozenset(DRAFTS[0].VALIDATORS) | _ASSISTING
    known = frozenset(validator.VALIDATORS)
    if "contains" in known and "unevaluatedItems" in known:
        known |= {"minContains", "maxContains", "$anchor"}
    if "if" in known:
        known |= {"then", "else"}
    known |= {"exclusiveMinimum", "exclusiveMaximum"} if validator is validators.Draft4Validator else {"$id"}
    alone = "unevaluatedItems" not in known  # up to draft 7, a $ref is all that counts of its schema
    waiting = [schema]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            words = newest.intersection(found)
            if words - known or (alone and "$ref" in found and len(words) > 1):
                return True
            waiting += [inner for _, inner in subschemas(found)]
    return False


def _refuse_depth(schema: Any) -> None:
    level, depth = [schema], 0
    while level:
        level = [v for x in level if isinstance(x, dict | list) for v in (x.values() if isinstance(x, dict) else x)]
        depth += 1
        if depth > 3 * MAX_DEPTH:
            raise UnsupportedSchema(f"$: the schema nests more than {3 * MAX_DEPTH} levels deep; use $defs and $ref.")
