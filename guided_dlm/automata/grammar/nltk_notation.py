"""Grammars in NLTK's notation, read by `nltk.CFG.fromstring`: words in quotes, joined by separators."""

from __future__ import annotations

import difflib
import re

from guided_dlm.automata.grammar.rules import Call, Choice, Expression, Rules, Sequence, Terminal
from guided_dlm.errors import InvalidRequest, UnknownName

_ARROW = re.compile(r"\s*[^\s:\"'%]+\s*(?:->|\u2192)")


def looks_like_nltk(text: str) -> bool:
    """Say whether the first line that is no comment reads like `S -> ...`."""
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and not line.startswith(("#", "//"))), "")
    return _ARROW.match(first) is not None


def read_nltk(text: str, start: str | None, separator: str) -> Rules:
    """Return the rules of a grammar in NLTK's notation; without `start` the first left side is where texts begin.

    Raises:
        InvalidRequest: NLTK cannot read it, a category has no production, or a word is empty.
        UnknownName: there is no such start category.
    """
    from nltk import CFG, Nonterminal

    try:
        grammar = CFG.fromstring(text)
    except ValueError as error:
        shown = " ".join(str(error).split())
        raise InvalidRequest(
            f"The grammar cannot be read: {shown}. Write productions like S -> NP VP | 'yes', one or more on a line."
        ) from error
    rules: dict[str, list[Expression]] = {}
    for production in grammar.productions():
        rules.setdefault(str(production.lhs()), [])
    for production in grammar.productions():
        items = [
            _call(str(item), rules, text) if isinstance(item, Nonterminal) else _word(str(item), production)
            for item in production.rhs()
        ]
        rules[str(production.lhs())].append(Sequence(tuple(items)))
    start = str(grammar.start()) if start is None else start
    if start not in rules:
        near = difflib.get_close_matches(start, rules, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UnknownName(
            f"The grammar has no category {start!r} to start from. {hint}It has {list(rules)[:20]}; choose one with "
            "start=."
        )
    return Rules({name: Choice(tuple(items)) for name, items in rules.items()}, start, separator=separator)


def _call(name: str, rules: dict[str, list[Expression]], text: str) -> Call:
    if name not in rules:
        line = next(
            (n for n, row in enumerate(text.splitlines(), 1) if re.search(rf"(?<!\S){re.escape(name)}", row)), 0
        )
        near = difflib.get_close_matches(name, rules, n=1)
        hint = f", or did you mean {near[0]!r}?" if near else "."
        raise InvalidRequest(
            f"The category {name!r} is used{f' at line {line}' if line else ''} and has no production. Add one, put it "
            f"in quotes if it is a word{hint}"
        )
    return Call(name)


def _word(word: str, production: object) -> Terminal:
    if not word:
        raise InvalidRequest(
            f"The production {production} has an empty word; leave the right side empty where nothing is meant."
        )
    return Terminal(re.escape(word), f"{word!r} of {production}")
