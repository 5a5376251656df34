"""Whether a record says what a text says, and a text what a record says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema

from guided_dlm.errors import InvalidRequest
from guided_dlm.training.pairs import record_text

Record = dict[str, Any]
_FAMILY = re.compile(r"\b(?:child(?:ren)?|kids?|famil(?:y|ies))\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:no|not|non|none|never|cannot|without|isn|aren|doesn|don|unsuitable)\b|n't", re.IGNORECASE)
_REACH = 5
_ABSENT = ""  # which no JSON value is


@dataclass(frozen=True, kw_only=True)
class RecordScores:
    """How written records compare with references, as shares.

    `slot_accuracy` is over the slots of the references (recall), `precision` over those that were written, and a slot
    is right where it has the very value of the reference. `exact` records equal theirs; `valid` ones obey the schema.
    """

    valid: float
    slot_accuracy: float
    precision: float
    f1: float
    exact: float


def parse_record(text: str) -> Record:
    """Return the JSON object that a text is, valid or not; an empty one where it is none."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def score_records(texts: Sequence[str], records: Sequence[Record], schema: Record) -> RecordScores:
    """Compare written records, as texts, with their references.

    Raises:
        InvalidRequest: there is no reference with a slot, or not one reference for each text.
    """
    slots = sum(map(len, records))
    if not slots or len(texts) != len(records):
        raise InvalidRequest(f"{len(texts)} texts and {len(records)} records of {slots} slots cannot be compared.")
    found = [parse_record(text) for text in texts]
    pairs = list(zip(found, records, strict=True))
    right = sum(slot in got and got[slot] == value for got, gold in pairs for slot, value in gold.items())
    recall, precision = right / slots, right / max(1, sum(map(len, found)))
    return RecordScores(
        valid=sum(_obeys(text, schema) for text in texts) / len(texts),
        slot_accuracy=recall,
        precision=precision,
        f1=2 * recall * precision / max(recall + precision, 1e-9),
        exact=sum(got == gold for got, gold in pairs) / len(texts),
    )


def _obeys(text: str, schema: Record) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (json.JSONDecodeError, RecursionError, jsonschema.ValidationError):
        return False
    return True


def vote(records: Sequence[Record]) -> Record:
    """Return the record in which each slot is as in most of these, absent included; of equals, as in the first.

    Of draws from p(record | text) that is the likeliest value of each slot (minimum Bayes risk under slots that are
    wrong), where the likeliest next token is not: an unlikely slot comes before many likely ones, and wins. A slot is
    decided alone, so a schema that ties slots together may not hold.

    Raises:
        InvalidRequest: there is no record.
    """
    if not records:
        raise InvalidRequest("There is no record to vote.")
    slots = dict.fromkeys(slot for record in records for slot in record)
    found = {}
    for slot in slots:
        ballots = Counter(record_text(record[slot]) if slot in record else _ABSENT for record in records)
        (winner, _), *_ = ballots.most_common(1)
        if winner != _ABSENT:
            found[slot] = json.loads(winner)
    return found


def mentioned_share(texts: Sequence[str], records: Sequence[Record]) -> float:
    """Return the share of the records' values, all records together, that each one's text mentions.

    Raises:
        InvalidRequest: there is no value, or not one record for each text.
    """
    values = sum(map(len, records))
    if not values or len(texts) != len(records):
        raise InvalidRequest(f"{len(texts)} texts and {len(records)} records of {values} values cannot be compared.")
    pairs = zip(texts, records, strict=True)
    return sum(mentions(text, slot, value) for text, record in pairs for slot, value in record.items()) / values


def mentions(text: str, slot: str, value: Any) -> bool:
    """Whether a text mentions the value of a slot.

    It does where the value stands there as whole words, whatever their case. A yes or no of `familyFriendly` never
    does, so `family_friendly` decides. A paraphrase ("by the river" for riverside) is not counted.
    """
    if slot == "familyFriendly" and value in ("yes", "no"):
        return family_friendly(text) == str(value)
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return re.search(rf"(?<!\w){re.escape(written)}(?!\w)", text, re.IGNORECASE) is not None


def family_friendly(text: str) -> str | None:
    """Return "yes" or "no", as a text's first mention of children, kids or families has it, or None without any.

    "no" where a negation (no, not, non, never, n't, ...) is among the five words before, in the same sentence. It is
    blind to negations that come after ("children are not allowed"), and to texts that speak of adults only.
    """
    found = _FAMILY.search(text)
    if found is None:
        return None
    before = re.split(r"[.!?;]", text[: found.start()])[-1]
    near = re.split(r"[\s,-]+", before.strip(" -,"))[-_REACH:]
    return "no" if _NEGATION.search(" ".join(near)) else "yes"
