"""Formats as sets of strings: what jsonschema's checks accept, or a part of it that is certainly right."""

from __future__ import annotations

from functools import lru_cache, reduce
from operator import or_

from guided_dlm.automata.json_schema.texts import Texts, length, regex

_HEX = "[0-9A-Fa-f]"
_SHORT_MONTH = "(0[469]|11)-(0[1-9]|[12][0-9]|30)"
_LONG_MONTH = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
_NOT_ZERO = "([0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_ZONE = r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(\.{_OCTET}){{3}}"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_UNRESERVED = r"[A-Za-z0-9._~\-]"
_SUB = r"[!$&'()*+,;=]"
_PERCENT = rf"%{_HEX}{{2}}"
_PCHAR = rf"(?:{_UNRESERVED}|{_SUB}|[:@]|{_PERCENT})"
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"


@lru_cache(maxsize=1)
def _date() -> Texts:
    common = regex(rf"[0-9]{{4}}-({_SHORT_MONTH}|{_LONG_MONTH}|02-(0[1-9]|1[0-9]|2[0-8]))")
    return (common | regex(rf"{_LEAP}-02-29")) & regex(rf"{_NOT_ZERO}-.*")


def _h16(count: int) -> str:
    return rf"({_HEX}{{1,4}}:){{{count}}}"


@lru_cache(maxsize=1)
def _ipv6() -> str:
    word = rf"{_HEX}{{1,4}}"
    last = rf"({word}:{word}|{_IPV4})"
    forms = [rf"{_h16(6)}{last}"]
    for before in range(6):  # groups that may stand before ::
        head = rf"({word}(:{word}){{0,{before - 1}}})?" if before else ""
        forms.append(rf"{head}::{_h16(5 - before)}{last}")
    forms.append(rf"({word}(:{word}){{0,5}})?::{word}")
    forms.append(rf"({word}(:{word}){{0,6}})?::")
    return "|".join(f"(?:{form})" for form in forms)


def _uri(scheme_needed: bool) -> str:
    ip_literal = rf"\[({_ipv6()})\]"
    name = rf"({_UNRESERVED}|{_SUB}|{_PERCENT})*"
    user = rf"(({_UNRESERVED}|{_SUB}|:|{_PERCENT})*@)?"
    authority = rf"{user}({ip_literal}|{name})(:[0-9]*)?"
    rest = rf"(\?({_PCHAR}|[/?])*)?(#({_PCHAR}|[/?])*)?"
    absolute = rf"(//{authority}(/{_PCHAR}*)*|/({_PCHAR}+(/{_PCHAR}*)*)?|"
    with_scheme = rf"[A-Za-z][A-Za-z0-9+.\-]*:{absolute}{_PCHAR}+(/{_PCHAR}*)*|){rest}"
    if scheme_needed:
        return with_scheme
    first = rf"({_UNRESERVED}|{_SUB}|@|{_PERCENT})+"
    return rf"{with_scheme}|{absolute}{first}(/{_PCHAR}*)*|){rest}"


def _duration() -> str:
    seconds = "[0-9]+S"
    minutes = f"[0-9]+M({seconds})?"
    hours = f"[0-9]+H({minutes})?"
    time = f"T({hours}|{minutes}|{seconds})"
    days = "[0-9]+D"
    months = f"[0-9]+M({days})?"
    years = f"[0-9]+Y({months})?"
    return f"P(({days}|{months}|{years})({time})?|{time}|[0-9]+W)"


def _hostname() -> Texts:
    return regex(rf"{_LABEL}(\.{_LABEL})*") & length(1, 253)


def _email() -> Texts:
    return regex(rf"{_ATEXT}+(\.{_ATEXT}+)*@{_LABEL}(\.{_LABEL})*")


@lru_cache(maxsize=64)
def format_texts(name: str) -> Texts | None:
    """Return the strings of a format, None where it is not enforced."""
    pattern = _PATTERNS.get(name)
    if pattern is not None:
        return regex(pattern)
    if name == "date":
        return _date()
    if name == "date-time":
        return _date_time()
    if name == "hostname":
        return _hostname()
    if name == "email":
        return _email()
    return None


@lru_cache(maxsize=1)
def _date_time() -> Texts:
    tail = rf"[Tt]{_TIME}(\.[0-9]+)?{_ZONE}"
    day = rf"({_SHORT_MONTH}|{_LONG_MONTH}|02-(0[1-9]|1[0-9]|2[0-8]))"
    parts = [regex(rf"[0-9]{{4}}-{day}{tail}"), regex(rf"{_LEAP}-02-29{tail}")]
    return reduce(or_, parts) & regex(rf"{_NOT_ZERO}-.*")


_PATTERNS = {
    "time": rf"{_TIME}(\.[0-9]+)?{_ZONE}",
    "duration": _duration(),
    "ipv4": _IPV4,
    "ipv6": _ipv6(),
    "uuid": rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    "uri": _uri(True),
    "uri-reference": _uri(False),
    "json-pointer": r"(/([^~/]|~[01])*)*",
    "relative-json-pointer": r"(0|[1-9][0-9]*)(#|(/([^~/]|~[01])*)*)",
}

# Formats that some draft defines and that are not enforced here.
KNOWN = frozenset(
    {"idn-email", "idn-hostname", "iri", "iri-reference", "uri-template", "regex", "color", "host-name", "utc-millisec"}
)
