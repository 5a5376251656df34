"""Regular patterns over part-of-speech tags: reading them, their automaton, and matching ambiguous words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

from constraints.tag_sets import UNIVERSAL, TagSet
from guided_dlm.errors import InvalidRequest

_TOKEN = re.compile(
    r"\s*(?:(?P<tag>\w+\$?)|\"(?P<quoted>[^\"\s]+)\"|(?P<mark>[.|()*+?])|\{(?P<low>\d+)(?P<comma>,)?(?P<high>\d*)\})"
)
_MOST = 64
_ONCE = {"*": (0, None), "+": (1, None), "?": (0, 1)}


@dataclass(frozen=True)
class Node:
    """A pattern: "tag" (one of `tags`), "seq" or "any" of `parts`, or "star" of its one part."""

    kind: str
    parts: tuple[Node, ...] = ()
    tags: frozenset[str] = frozenset()


EMPTY, NOTHING = Node("seq"), Node("any")


def sequence(parts: Iterable[Node]) -> Node:
    """Return the patterns one after the other."""
    flat = [inner for part in parts for inner in (part.parts if part.kind == "seq" else (part,))]
    if NOTHING in flat:
        return NOTHING
    return flat[0] if len(flat) == 1 else Node("seq", tuple(flat))


def either(parts: Iterable[Node]) -> Node:
    """Return the alternatives, each once."""
    flat = dict.fromkeys(inner for part in parts for inner in (part.parts if part.kind == "any" else (part,)))
    return next(iter(flat)) if len(flat) == 1 else Node("any", tuple(flat))


def repeat(part: Node, low: int, high: int | None) -> Node:
    """Return `low` to `high` times the part; None is without end."""
    if high is None:
        return sequence([*[part] * low, Node("star", (part,))])
    optional = reduce(lambda rest, _: either([EMPTY, sequence([part, rest])]), range(high - low), EMPTY)
    return sequence([*[part] * low, optional])


@lru_cache(maxsize=256)
def read_pattern(text: str, tags: TagSet = UNIVERSAL) -> Node:
    """Return the pattern that a text writes: tags and `.` (any tag), `|`, brackets, `* + ?` and `{m,n}`.

    A tag of other characters than letters stands between double quotes, like "," of the Penn Treebank.

    Raises:
        InvalidRequest: it does not parse, or names a tag that does not exist; the message says where.
    """
    tokens, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise _wrong(text, position, f"{text[position:].strip()[0]!r} has no meaning here")
        tokens.append((match, position))
        position = match.end()
    node, rest = _alternatives(text, tokens, tags)
    if rest:
        raise _wrong(text, rest[0][1], "a bracket closes that was never opened")
    return node


Tokens = list[tuple[re.Match[str], int]]


def _alternatives(text: str, tokens: Tokens, tags: TagSet) -> tuple[Node, Tokens]:
    options, items = [], list[Node]()
    while tokens and tokens[0][0]["mark"] != ")":
        (match, place), *tokens = tokens
        if match["mark"] == "|":
            options.append(sequence(items))
            items = []
        elif match["mark"] == "(":
            inner, tokens = _alternatives(text, tokens, tags)
            if not tokens:
                raise _wrong(text, place, "a bracket is never closed")
            items.append(inner)
            tokens = tokens[1:]
        elif match["mark"] == ".":
            items.append(Node("tag", tags=frozenset(tags.tags)))
        elif match["tag"] or match["quoted"]:
            items.append(Node("tag", tags=frozenset([tags.known(match["tag"] or match["quoted"])])))
        elif not items:
            raise _wrong(text, place, "there is nothing to repeat")
        else:
            items.append(repeat(items.pop(), *_bounds(text, match, place)))
    return either([*options, sequence(items)]), tokens


def _bounds(text: str, match: re.Match[str], place: int) -> tuple[int, int | None]:
    if match["mark"]:
        return _ONCE[match["mark"]]
    low = int(match["low"])
    high = int(match["high"]) if match["high"] else None if match["comma"] else low
    if max(low, high or 0) > _MOST or (high is not None and high < low):
        raise _wrong(text, place, f"a count goes from low to high and to {_MOST} at most")
    return low, high


def _wrong(text: str, position: int, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what}, at position {position} of {text!r}. Write tags with spaces between, like "
        "'DET ADJ* NOUN (VERB|AUX) .*'."
    )


def pattern_text(pattern: Any, tags: TagSet = UNIVERSAL) -> str:
    """Return the text of a pattern: itself, a list of tags for a whole text, or spaCy `Matcher` dicts found anywhere.

    Raises:
        InvalidRequest: it is none of these, or a dict asks for more than a tag and "OP".
    """
    if isinstance(pattern, str):
        return pattern
    items = list(pattern) if isinstance(pattern, Sequence) else []
    if items and all(isinstance(item, str) for item in items):
        return " ".join(map(quoted, items))
    if not items or not all(isinstance(item, Mapping) for item in items):
        raise InvalidRequest(
            f"{pattern!r} is no pattern; give a text like 'DET ADJ* NOUN', a list of tags, or a list of "
            "spaCy Matcher dicts like {'POS': 'NOUN', 'OP': '+'}."
        )
    return " ".join([".*", *(_matcher_item(item, tags) for item in items), ".*"])


def quoted(tag: str) -> str:
    """Return a tag as patterns write it."""
    return tag if re.fullmatch(r"\w+\$?", tag) else f'"{tag}"'


def _matcher_item(item: Mapping[str, Any], tags: TagSet) -> str:
    key = "POS" if tags is UNIVERSAL else "TAG"
    wish, count = item.get(key, list(tags.tags)), item.get("OP", "")
    unknown = set(item) - {key, "OP"}
    named = wish["IN"] if isinstance(wish, Mapping) and set(wish) == {"IN"} else wish
    named = [named] if isinstance(named, str) and named is wish else named
    written = isinstance(named, list | tuple) and named and all(isinstance(tag, str) for tag in named)
    if unknown or not written or not isinstance(count, str) or not re.fullmatch(r"[*+?]?|\{.*\}", count):
        raise InvalidRequest(
            f"{dict(item)!r} asks for more than tags; of spaCy's Matcher it takes {key!r}, a tag or "
            "{'IN': [tags]}, and 'OP', one of ?, *, + and {m,n}."
        )
    if key not in item:
        return "." + count
    joined = "|".join(quoted(tags.known(tag)) for tag in named)
    return (f"({joined})" if len(named) > 1 else joined) + count


def letters(node: Node, tags: TagSet = UNIVERSAL) -> str:
    """Return the same pattern for `re`, each tag the letter that the tag set gives it."""
    if node.kind == "tag":
        return f"[{''.join(sorted(map(tags.letter, node.tags)))}]"
    inner = [letters(part, tags) for part in node.parts]
    if node.kind == "star":
        return f"(?:{inner[0]})*"
    if node == NOTHING:
        return "[^\\s\\S]"
    return "".join(inner) if node.kind == "seq" else f"(?:{'|'.join(inner)})"


def nullable(node: Node) -> bool:
    """Return whether the pattern matches no words at all."""
    if node.kind in ("tag", "star"):
        return node.kind == "star"
    return (all if node.kind == "seq" else any)(map(nullable, node.parts))


@lru_cache(maxsize=1 << 16)
def derivative(node: Node, tags: frozenset[str]) -> Node:
    """Return what has to follow a word that may bear any of the tags (Brzozowski, 1964)."""
    if node.kind == "tag":
        return EMPTY if node.tags & tags else NOTHING
    if node.kind == "any":
        return either(derivative(part, tags) for part in node.parts)
    if node.kind == "star":
        return sequence([derivative(node.parts[0], tags), node])
    return either(_of_sequence(node, tags))


def _of_sequence(node: Node, tags: frozenset[str]) -> Iterator[Node]:
    for place, part in enumerate(node.parts):
        yield sequence([derivative(part, tags), *node.parts[place + 1 :]])
        if not nullable(part):
            return
