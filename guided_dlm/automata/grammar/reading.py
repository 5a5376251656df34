"""Reading a grammar's text in either notation."""

from __future__ import annotations

from typing import Literal, get_args

from guided_dlm.automata.grammar.lark_notation import read_lark
from guided_dlm.automata.grammar.nltk_notation import looks_like_nltk, read_nltk
from guided_dlm.automata.grammar.rules import Rules
from guided_dlm.errors import InvalidRequest

Notation = Literal["lark", "nltk"]


def read_grammar(
    text: str, start: str | None = None, notation: Notation | None = None, separator: str | None = None
) -> Rules:
    """Return the rules that a text says; the notation is detected, and `separator` is NLTK's (a space by default).

    Raises:
        InvalidRequest: the text is empty or cannot be read, or an option does not fit the notation.
        UnknownName: there is no such start rule.
        UnsupportedPattern: a terminal is declared only.
        AutomatonTooLarge: terminals or templates expand without end.
    """
    if not text.strip():
        raise InvalidRequest("The grammar is empty; give at least one rule, like 'start: \"yes\"' or \"S -> 'yes'\".")
    if notation is None:
        notation = "nltk" if looks_like_nltk(text) else "lark"
    if notation not in get_args(Notation):
        raise InvalidRequest(f"There is no notation {notation!r}; choose from {list(get_args(Notation))}.")
    if notation == "nltk":
        return read_nltk(text, start, " " if separator is None else separator)
    if separator is not None:
        raise InvalidRequest(
            f"spaces={separator!r} is for NLTK's notation; in lark's, %ignore says what may stand between terminals."
        )
    return read_lark(text, "start" if start is None else start)
