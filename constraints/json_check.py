"""The truth about JSON texts, from `json` and `jsonschema`: nothing here knows the automaton.

Shared with it is only how a schema is read: its draft, its subschemas, and patterns that Python's `re` does not parse.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import math
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

from jsonschema import FormatChecker, validators
from jsonschema.exceptions import ValidationError

from guided_dlm.automata.json_schema import is_python, subschemas, translate, validator_of
from guided_dlm.errors import UnsupportedPattern, UnsupportedSchema

MAX_NESTING = 50

_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIME = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]+)?([Zz]|[+-]([0-9]{2}):([0-9]{2}))")
_DURATION = re.compile(
    r"P(?=.)(([0-9]+Y)?([0-9]+M)?([0-9]+D)?)(T(?=.)([0-9]+H)?([0-9]+M)?([0-9]+S)?)?|P[0-9]+W", re.ASCII
)
# RFC 3986, appendix A, split into the five parts of appendix B first.
_PARTS = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"


class Doubled(dict[str, Any]):
    """An object some of whose names stand twice; `repeated` holds them."""

    repeated: frozenset[str] = frozenset()


class _Reader:
    """Reads the n-th value of each name that stands more than once; `most` is how often the commonest does."""

    def __init__(self, occurrence: int) -> None:
        self.occurrence, self.most = occurrence, 1

    def build(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, list[Any]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        found = Doubled({name: seen[min(self.occurrence, len(seen) - 1)] for name, seen in values.items()})
        found.repeated = frozenset(name for name, seen in values.items() if len(seen) > 1)
        self.most = max([self.most, *map(len, values.values())])
        return found if found.repeated else dict(found)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _load(text: str, occurrence: int) -> tuple[Any, int]:
    reader = _Reader(occurrence)
    value = json.loads(text, object_pairs_hook=reader.build, parse_constant=_refuse)
    return value, reader.most


def is_instance(text: str, schema: str) -> bool:
    """Say whether a text is strict JSON, without white space around it, and valid under a schema given as JSON text.

    An object may have a name twice only where the schema does not list the name, and each value must be valid. A text
    that nests more than 50 levels deep is none where Python's stack cannot hold its validation.

    Raises:
        UnsupportedPattern: the schema has a pattern that does not parse.
        UnsupportedSchema: validating does not end, whatever the text.
    """
    if text != text.strip(" \t\n\r"):
        return False
    validator = _validator(schema)
    try:
        value, most = _load(text, 0)
        text.encode()
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no character
    except (ValueError, RecursionError):
        return False
    readings = [value, *(_load(text, occurrence)[0] for occurrence in range(1, min(most, 100)))]
    try:
        return all(validator.is_valid(reading) for reading in readings)
    except re.error as error:
        raise UnsupportedPattern(
            f"A pattern of the schema does not parse: {error}. Correct it, or put the schema that it is in under $defs."
        ) from error
    except RecursionError as error:
        if _nests(value) > MAX_NESTING:
            return False
        raise UnsupportedSchema(
            "$: validating does not end: a $ref leads back to its own schema without an object or array in between, or "
            "the definitions refer to one another in too many levels. Make the chain shorter."
        ) from error


def _nests(value: Any) -> int:
    """Return how many levels of objects and arrays a value has."""
    level, depth = [value], 0
    while level := [x for v in level if isinstance(v, dict | list) for x in (v.values() if isinstance(v, dict) else v)]:
        depth += 1
    return depth


def _properties(validator: Any, properties: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, Doubled):
        for name in instance.repeated & properties.keys():
            yield ValidationError(f"{name!r} stands twice")
    yield from validator.VALIDATORS_OF_THE_DRAFT["properties"](validator, properties, instance, schema)


def _multiple_of(validator: Any, step: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Compare as decimals of any length; jsonschema divides floats, by which 0.07 is no multiple of 0.01."""
    if validator.is_type(instance, "number"):
        finite = not isinstance(instance, float) or math.isfinite(instance)
        if not finite or Fraction(repr(instance)) % Fraction(repr(step)):
            yield ValidationError(f"{instance!r} is not a multiple of {step!r}")


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    value = json.loads(schema)
    draft = draft_of(value)
    _rewrite_patterns(value)
    extended = validators.extend(draft, {"properties": _properties, "multipleOf": _multiple_of})
    extended.VALIDATORS_OF_THE_DRAFT = draft.VALIDATORS
    return extended(value, format_checker=_formats())


def _rewrite_patterns(schema: Any) -> None:
    """Write the patterns that only ECMA 262 reads (`\\u{61}`, `(?<n>a)`, `[^]`) as Python's `re` does, in place."""

    def rewritten(pattern: Any) -> Any:
        return pattern if not isinstance(pattern, str) or is_python(pattern) else translate(pattern)

    waiting = [schema]
    while waiting:
        found = waiting.pop()
        if not isinstance(found, dict):
            continue
        waiting += [inner for _, inner in subschemas(found)]
        if "pattern" in found:
            found["pattern"] = rewritten(found["pattern"])
        if isinstance(found.get("patternProperties"), dict):
            renamed: dict[str, Any] = {}
            for pattern, inner in found["patternProperties"].items():
                renamed[_unused(rewritten(pattern), renamed)] = inner
            found["patternProperties"] = renamed


def _unused(pattern: str, known: dict[str, Any]) -> str:
    while pattern in known:
        pattern = f"(?:{pattern})"
    return pattern


def draft_of(schema: Any) -> Any:
    """Return the jsonschema class of the draft that a schema is read by."""
    return validator_of(schema)


def _is_date(text: str) -> bool:
    return _DATE.fullmatch(text) is not None and datetime.date.fromisoformat(text) is not None


def _is_time(text: str) -> bool:
    match = _TIME.fullmatch(text)
    if match is None:
        return False
    hour, minute, second, zone_hour, zone_minute = (int(match[i] or 0) for i in (1, 2, 3, 6, 7))
    return hour < 24 and minute < 60 and second < 60 and zone_hour < 24 and zone_minute < 60


def _is_date_time(text: str) -> bool:
    return text[10:11] in ("T", "t") and _is_date(text[:10]) and _is_time(text[11:])


def _is_duration(text: str) -> bool:
    match = _DURATION.fullmatch(text)
    if match is None:
        return False
    # A unit may follow another only where it is the next smaller one: no P1Y1D, no PT1H1S.
    return not re.search(r"Y[0-9]+D|H[0-9]+S", text)


def _is_hostname(text: str) -> bool:
    return 0 < len(text) <= 253 and all(_HOST.fullmatch(label) for label in text.split("."))


def _is_email(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    return (
        bool(at)
        and _is_hostname_label(domain)
        and bool(re.fullmatch(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+", local) and not re.search(r"^\.|\.\.|\.$", local))
    )


def _is_hostname_label(text: str) -> bool:
    return bool(text) and all(_HOST.fullmatch(label) for label in text.split("."))


def _is_ipv4(text: str) -> bool:
    return text.isascii() and ipaddress.IPv4Address(text) is not None


def _is_ipv6(text: str) -> bool:
    return text.isascii() and "%" not in text and ipaddress.IPv6Address(text) is not None


def _is_uuid(text: str) -> bool:
    return re.fullmatch("-".join(f"[0-9A-Fa-f]{{{n}}}" for n in (8, 4, 4, 4, 12)), text) is not None


def _is_uri(text: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) is not None and _is_uri_reference(text)


def _is_uri_reference(text: str) -> bool:
    match = _PARTS.fullmatch(text)
    assert match is not None
    scheme, authority, path, query, fragment = match.groups()
    if scheme is not None and not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return False
    if not re.fullmatch(rf"(?:{_PCHAR}|/)*", path):
        return False
    if any(part is not None and not re.fullmatch(rf"(?:{_PCHAR}|[/?])*", part) for part in (query, fragment)):
        return False
    if authority is not None:
        return not (path and path[0] != "/") and _is_authority(authority)
    return not path.startswith("//") and (scheme is not None or ":" not in path.partition("/")[0])


def _is_authority(authority: str) -> bool:
    user, at, rest = authority.rpartition("@")
    plain = _PCHAR.replace(":@", "")
    if at and not re.fullmatch(rf"(?:{plain}|:)*", user):
        return False
    if rest.startswith("["):
        match = re.fullmatch(r"\[([^\]]*)\](:[0-9]*)?", rest)
        return match is not None and _quietly(_is_ipv6, match[1])
    return re.fullmatch(rf"(?:{plain})*(:[0-9]*)?", rest) is not None


def _quietly(check: Callable[[str], bool], text: str) -> bool:
    try:
        return check(text)
    except ValueError:
        return False


def _is_json_pointer(text: str) -> bool:
    return re.fullmatch(r"(?:/(?:[^~/]|~[01])*)*", text, re.DOTALL) is not None


def _is_relative_pointer(text: str) -> bool:
    match = re.fullmatch(r"(?:0|[1-9][0-9]*)(.*)", text, re.DOTALL)
    return match is not None and (match[1] == "#" or _is_json_pointer(match[1]))


_CHECKS: dict[str, Callable[[str], bool]] = {
    "date": _is_date,
    "time": _is_time,
    "date-time": _is_date_time,
    "duration": _is_duration,
    "hostname": _is_hostname,
    "email": _is_email,
    "ipv4": _is_ipv4,
    "ipv6": _is_ipv6,
    "uuid": _is_uuid,
    "uri": _is_uri,
    "uri-reference": _is_uri_reference,
    "json-pointer": _is_json_pointer,
    "relative-json-pointer": _is_relative_pointer,
}


@lru_cache(maxsize=1)
def _formats() -> FormatChecker:
    """Return checks of exactly the formats that are enforced; others are annotations."""
    checker = FormatChecker(formats=())

    def add(name: str, check: Callable[[str], bool]) -> None:
        checker.checks(name)(lambda value: not isinstance(value, str) or _quietly(check, value))

    for name, check in _CHECKS.items():
        add(name, check)
    return checker
