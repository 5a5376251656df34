"""The part-of-speech tags that patterns may name: Universal Dependencies' and the Penn Treebank's."""

from __future__ import annotations

import difflib
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from guided_dlm.errors import InvalidRequest

_LETTERS = string.ascii_uppercase + string.ascii_lowercase


@dataclass(frozen=True)
class TagSet:
    """Named tags in a fixed order, each with a letter of its own for regular expressions.

    `other` says what tags of kindred sets are called in this one.
    """

    name: str
    title: str
    tags: tuple[str, ...]
    other: tuple[tuple[str, str], ...] = ()

    @cached_property
    def number(self) -> Mapping[str, int]:
        """The place of each tag."""
        return {tag: i for i, tag in enumerate(self.tags)}

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The tag of this set for each tag that is or has one."""
        return {tag: tag for tag in self.tags} | dict(self.other)

    def known(self, tag: str) -> str:
        """Return the tag, or raise `InvalidRequest` with the nearest that exists."""
        if tag in self.number:
            return tag
        if tag in self.names:
            raise InvalidRequest(f"There is no tag {tag!r} here; it is called {self.names[tag]!r}.")
        near = difflib.get_close_matches(tag.upper(), self.tags, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidRequest(f"There is no tag {tag!r}.{hint} {self.title} tags are {', '.join(self.tags)}.")

    def letter(self, tag: str) -> str:
        """Return the letter that stands for a tag."""
        return _LETTERS[self.number[tag]]


UNIVERSAL = TagSet(
    "universal",
    "Universal",
    (
        "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ",
        "SYM", "VERB", "X",
    ),
)  # fmt: skip
PENN = TagSet(
    "penn",
    "Penn Treebank",
    (
        "CC", "CD", "DT", "EX", "FW", "IN", "JJ", "JJR", "JJS", "LS", "MD", "NN", "NNS", "NNP", "NNPS", "PDT", "POS",
        "PRP", "PRP$", "RB", "RBR", "RBS", "RP", "SYM", "TO", "UH", "VB", "VBD", "VBG", "VBN", "VBP", "VBZ", "WDT",
        "WP", "WP$", "WRB", "#", "$", ".", ",", ":", "``", "''", "-LRB-", "-RRB-",
    ),
    (("HYPH", ":"), ("NFP", ":"), ("AFX", "JJ"), ("ADD", "NN"), ("XX", "FW"), ("(", "-LRB-"), (")", "-RRB-")),
)  # fmt: skip
TAG_SETS = {tags.name: tags for tags in (UNIVERSAL, PENN)}


def tag_set(name: str) -> TagSet:
    """Return the tag set of this name.

    Raises:
        InvalidRequest: there is none.
    """
    if not isinstance(name, str) or name not in TAG_SETS:
        raise InvalidRequest(f"There is no tag set {name!r}; there is {' and '.join(map(repr, TAG_SETS))}.")
    return TAG_SETS[name]
