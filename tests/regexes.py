"""Strategies for patterns and for texts near to matching them."""

# ruff: noqa: RUF001 (characters that look alike are the point here)

import re

from hypothesis import strategies as st

# Letters whose case rules differ between str and re, digits and spaces beyond ASCII, and a character outside the BMP.
CHARACTERS = [*"ab_0 \n", *"éÉßẞſsSKkKİiıµμςΣ²٣\u2003\x1cﬅﬆ𐐀𐐨Ǆǅǆ", "\N{GRINNING FACE}"]
CLASSES = [r"\w", r"\W", r"\d", r"\D", r"\s", r"\S"]
ANCHORS = ["^", "$", r"\A", r"\Z", r"\b", r"\B"]
REPEATS = [("*", 2), ("+", 2), ("?", 1), ("{2}", 2), ("{0,2}", 1), ("{1,3}", 2), ("{2,}", 3), ("{0}", 0)]
FLAGS = [re.IGNORECASE, re.DOTALL, re.MULTILINE, re.ASCII]
letters = st.one_of(st.sampled_from("ab"), st.sampled_from(CHARACTERS))


@st.composite
def sets(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a character set and a character that is probably in it."""
    items, inside = "", draw(letters)
    for _ in range(draw(st.integers(1, 3))):
        low, high = sorted([draw(letters), draw(letters)])
        inside = draw(st.sampled_from([low, high]))
        items += draw(st.sampled_from([re.escape(inside), f"{re.escape(low)}-{re.escape(high)}", *CLASSES]))
    return f"[{draw(st.sampled_from(['', '', '^']))}{items}]", inside


@st.composite
def patterns(draw: st.DrawFn, depth: int = 4) -> tuple[str, str]:
    """Draw a pattern and a text that is near to matching it."""
    kind = draw(st.integers(0, 9 if depth else 4))
    if kind <= 2:
        letter = draw(letters)
        return re.escape(letter), letter
    if kind == 3:
        return draw(sets())
    if kind == 4:
        anchor = draw(st.booleans())
        return draw(st.sampled_from(ANCHORS if anchor else [*CLASSES, "."])), "" if anchor else draw(letters)
    parts = draw(st.lists(patterns(depth - 1), min_size=1, max_size=3))
    pattern, text = parts[0]
    if kind <= 6:
        return "".join(p for p, _ in parts), "".join(t for _, t in parts)
    if kind == 7:
        return f"(?:{'|'.join(p for p, _ in parts)}{draw(st.sampled_from(['', '', '|']))})", text
    if kind == 8:
        return f"(?{draw(st.sampled_from(['i', 's', 'm', 'a', 'u', '-i', 'im']))}:{pattern})", text
    repeat, times = draw(st.sampled_from(REPEATS))
    return f"(?:{pattern}){repeat}{draw(st.sampled_from(['', '?']))}", text * times


@st.composite
def changed(draw: st.DrawFn, text: str) -> str:
    """Draw the text, or a text a few edits away."""
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        added = draw(st.one_of(st.just(""), letters, st.just("\n")))
        text = text[:place] + added + text[place + draw(st.integers(0, 1)) :]
    return draw(st.sampled_from([text, text, text.swapcase(), text + "\n"]))
