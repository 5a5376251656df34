"""Records with other values, and texts to match: a model then reads a value and does not guess it from the others."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from guided_dlm.errors import InvalidRequest

SHARE = 0.7  # of the values; the rest stay, with the company they keep in the data
VOWELS = "aeiouAEIOU"
Line = tuple[str, dict[str, Any]]


def swap_values(lines: Sequence[Line], slots: Sequence[str], seed: int = 0, share: float = SHARE) -> list[Line]:
    """Return (text, record) lines, a `share` of the values of `slots` changed for others of the same slot, in both.

    A value is changed where the text has it as whole words, in any case, and to one that the text lacks; "a" or "an"
    before it follows. What goes together in the data (a name and its one cuisine) then no longer gives one away by the
    other: counterfactual augmentation, 1909.12434, by rule.

    Raises:
        InvalidRequest: a slot has no string value anywhere.
    """
    draw = random.Random(seed)
    values = {slot: sorted({record[slot] for _, record in lines if _is_word(record.get(slot))}) for slot in slots}
    for slot, found in values.items():
        if not found:
            raise InvalidRequest(f"swap={slot!r}: no record has a string there; name slots of the records.")
    changed = []
    for text, record in lines:
        for slot in slots:
            if _is_word(record.get(slot)) and draw.random() < share:
                text, record = _swap(text, record, slot, draw.choice(values[slot]))
        changed.append((text, record))
    return changed


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _swap(text: str, record: dict[str, Any], slot: str, new: str) -> Line:
    place = re.compile(rf"(?:\b(an?) )?(?<!\w){re.escape(record[slot])}(?!\w)", re.IGNORECASE)
    if place.search(text) is None or new.lower() in text.lower():
        return text, record

    def written(found: re.Match[str]) -> str:
        if found[1] is None:
            return new
        return f"{found[1][0]}{'n' if new[0] in VOWELS else ''} {new}"

    return place.sub(written, text), record | {slot: new}
