"""Records with other values, and texts to match: a model then reads a value and does not guess it from the others."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from guided_dlm.errors import InvalidRequest

SHARE = 0.7  # of the values are tried; the rest stay, with the company they keep in the data
VOWELS = "aeiouAEIOU"
Line = tuple[str, dict[str, Any]]


def swap_values(lines: Sequence[Line], slots: Sequence[str], seed: int = 0, share: float = SHARE) -> list[Line]:
    """Return (text, record) lines, values of `slots` changed for others of the same slot, in both.

    Each is tried for with probability `share`, and changed where the text has it as whole words, in any case, no other
    value of the record has it in it, and the text lacks the new one; "a" or "an" before it follows, by its first
    letter. What goes together in the data (a name and its one cuisine) then no longer gives one away by the other:
    counterfactual augmentation, 1909.12434, by rule.

    Raises:
        InvalidRequest: a slot has fewer than two values, strings, in all the records, or `share` is no share.
    """
    if not 0 <= share <= 1:
        raise InvalidRequest(f"share={share!r} must be in [0, 1].")
    draw = random.Random(seed)
    values = {slot: sorted({record[slot] for _, record in lines if _is_word(record.get(slot))}) for slot in slots}
    for slot, found in values.items():
        if len(found) < 2:
            raise InvalidRequest(
                f"swap={slot!r}: {len(found)} values are strings there, and it takes two; name slots of the records."
            )
    changed = []
    for text, record in lines:
        for slot in slots:
            if _is_word(record.get(slot)) and draw.random() < share:
                new = draw.choice([value for value in values[slot] if value != record[slot]])
                text, record = _swap(text, record, slot, new)
        changed.append((text, record))
    return changed


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def stands_in(value: Any, text: str) -> bool:
    """Whether the text has a string or a number in it as whole words (of a script with spaces), in any case."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        return False
    return re.search(_whole(str(value)), text, re.IGNORECASE) is not None


def _whole(value: str) -> str:
    return rf"(?<!\w){re.escape(value)}(?!\w)"


def _swap(text: str, record: dict[str, Any], slot: str, new: str) -> Line:
    place = re.compile(rf"(?:\b(an?) )?{_whole(record[slot])}", re.IGNORECASE)
    others = [value for name, value in record.items() if name != slot and isinstance(value, str)]
    if place.search(text) is None or new.lower() in text.lower() or any(map(place.search, others)):
        return text, record

    def written(found: re.Match[str]) -> str:
        if found[1] is None:
            return new
        return f"{found[1][0]}{'n' if new[0] in VOWELS else ''} {new}"

    return place.sub(written, text), record | {slot: new}
