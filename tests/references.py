"""The definitions of the built-in constraints, written a second time: by character, without automata or regexes.

Only `re.IGNORECASE` is asked about single characters, because the definition names it. Also the texts that stress them.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

from hypothesis import strategies as st

Range = tuple[int, int | None] | None

SPACES = (" ", "  ", "\t", "\n", "\N{NO-BREAK SPACE}", "\N{EM SPACE}", "\x1c")
MARKS = (".", "!", "?", "...", ",", ";", "-", "'", '"', "(", "\u2019", "\u201d", "\u201c", "\u00bb", "_", "#", "\u200b")
LETTERS = ("a", "B", "0", "7", "\u00bd", "\u0663", "\u00e9", "e\u0301", "\N{GRINNING FACE}", "\u4e2d", "x1", "\u2167")
CASES = ("k", "K", "\N{KELVIN SIGN}", "s", "S", "\u017f", "\u00df", "\u1e9e", "i", "I", "\u0130", "\u0131", "\u03c3",
         "\u03c2", "\u03a3", "\u03b9", "\u0399", "\u0345", "\u1fbe")  # fmt: skip
PIECES = SPACES + MARKS + LETTERS + CASES


def texts(*near: str, size: int = 8) -> st.SearchStrategy[str]:
    """Random texts from pieces that stress the definitions, and from `near` and its case variants, mostly."""
    close = [variant for piece in near for variant in (piece, piece.upper(), piece.lower(), piece.swapcase())]
    pieces = st.one_of(*[st.sampled_from(close)] * 2, st.sampled_from(PIECES)) if close else st.sampled_from(PIECES)
    return st.lists(pieces, max_size=size).map("".join)


def is_letter_or_digit(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN"


def is_word_character(character: str) -> bool:
    return character == "_" or is_letter_or_digit(character)


def runs(text: str) -> Iterator[str]:
    """Maximal runs of non-space characters."""
    run = ""
    for character in [*text, " "]:
        if not character.isspace():
            run += character
        elif run:
            yield run
            run = ""


def words(text: str) -> list[str]:
    return [run for run in runs(text) if any(map(is_letter_or_digit, run))]


def sentences(text: str) -> int:
    """Places where stops plus closing quotes stand before a space or the end, and a remainder after the last."""
    count, last = 0, 0
    for end in range(1, len(text) + 1):
        if end < len(text) and not text[end].isspace():
            continue
        before = end
        while before and text[before - 1] in "\"'\u2019\u201d\u00bb":
            before -= 1
        if before and text[before - 1] in ".!?":
            count, last = count + 1, end
    return count + any(not character.isspace() for character in text[last:])


def within(count: int, allowed: Range) -> bool:
    if allowed is None:
        return True
    low, high = allowed
    return count >= low and (high is None or count <= high)


@cache
def same(one: str, other: str, ignore_case: bool) -> bool:
    return one == other or (ignore_case and re.fullmatch(re.escape(one), other, re.IGNORECASE) is not None)


def equal(one: str, other: str, ignore_case: bool) -> bool:
    return len(one) == len(other) and all(same(a, b, ignore_case) for a, b in zip(one, other, strict=True))


def places(phrase: str, text: str, ignore_case: bool) -> list[int]:
    """Where a phrase stands with no word character on either side."""
    found = []
    for start in range(len(text) - len(phrase) + 1):
        end = start + len(phrase)
        alone = not (start and is_word_character(text[start - 1])) and not (
            end < len(text) and is_word_character(text[end])
        )
        if alone and equal(phrase, text[start:end], ignore_case):
            found.append(start)
    return found


def in_order(phrases: Sequence[str], text: str, ignore_case: bool, start: int = 0) -> bool:
    """Some way to place the phrases one after the other, not overlapping: every way is tried."""
    if not phrases:
        return True
    return any(
        in_order(phrases[1:], text, ignore_case, place + len(phrases[0]))
        for place in places(phrases[0], text, ignore_case)
        if place >= start
    )


def stripped(word: str) -> str:
    while word and not is_word_character(word[0]):
        word = word[1:]
    while word and not is_word_character(word[-1]):
        word = word[:-1]
    return word


def words_hold(
    text: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
    ordered: bool = False,
    ignore_case: bool = False,
) -> bool:
    if ordered and not in_order(include, text, ignore_case):
        return False
    if not all(places(phrase, text, ignore_case) for phrase in include):
        return False
    if any(places(phrase, text, ignore_case) for phrase in exclude):
        return False
    return not only or all(any(equal(o, stripped(w), ignore_case) for o in only) for w in words(text))
