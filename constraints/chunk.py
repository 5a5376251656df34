"""`Chunk`: the text holds a phrase that an NLTK chunk grammar describes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from constraints.syntax import PartOfSpeech
from constraints.tag_pattern import nullable, quoted, read_pattern
from constraints.tag_sets import PENN
from guided_dlm.automata import ByteAutomaton
from guided_dlm.constraint import CompileContext, Guide, RegularConstraint
from guided_dlm.errors import InvalidRequest, within
from guided_dlm.registry import register

if TYPE_CHECKING:
    from nltk.tree import Tree

_RULE = re.compile(r"\s*\{(?P<tags>[^#]*)\}\s*(?:#.*)?")
_PIECE = re.compile(r"\s*(?:<(?P<tag>[^<>]+)>|(?P<mark>[()|])|(?P<count>[*+?]|\{\d+(?:,\d*)?\}))")


@register("chunk")
@dataclass(frozen=True, kw_only=True, repr=False)
class Chunk(RegularConstraint):
    """At least one chunk of an NLTK chunk grammar, such as "NP: {<DT>?<JJ.*>*<NN>+}", is in the text.

    One label, and rules that chunk; rules that chink, split or merge are refused. The tags are guaranteed against
    `lexicon` as those of `PartOfSpeech` are, whose fields `certainty`, `strength` and `tolerance` these are.
    """

    grammar: str = field(kw_only=False)
    lexicon: str = "english"
    certainty: float = 0.05
    strength: float = 1.0
    tolerance: float = 0.0

    @property
    def hard(self) -> bool:  # type: ignore[override]
        """Whether this is a guarantee: with tolerance it is none."""
        return self.tolerance == 0

    def __post_init__(self) -> None:
        """Refuse grammars that do not parse, and tags that match nothing."""
        with within("Chunk"):
            if not isinstance(self.grammar, str):
                raise InvalidRequest(f"{self.grammar!r} is no grammar; write one like 'NP: {{<DT>?<NN>}}'.")
            chunk_pattern(self.grammar)
            _chunker(self.grammar)
            _ = self.tags

    @property
    def tags(self) -> PartOfSpeech:
        """The pattern of tags that the words have to bear."""
        return _part_of_speech(self)

    def chunks(self, text: str) -> Tree | None:
        """Return NLTK's chunks of the text over the lexicon's likeliest tags that have one; None without any."""
        tagging = self.tags.tagging(text)
        return None if tagging is None else _chunker(self.grammar).parse(tagging)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool | float:
        """Say whether NLTK finds a chunk over some tags of the lexicon; 0 or 1 where the wish is soft."""
        tree = self.chunks(text)
        found = tree is not None and any(not isinstance(child, tuple) for child in tree)
        return found if self.hard else float(found)

    def to_automaton(self) -> ByteAutomaton:
        """Return the automaton of the texts that some tagging admits."""
        return self.tags.to_automaton()

    def compile(self, context: CompileContext) -> Guide:
        """Compile the tags.

        Raises:
            Infeasible: no words of this vocabulary can bear such tags.
        """
        with within("Chunk"):
            return self.tags.compile(context)

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Say what holds."""
        return self.tags.notes(context)


@lru_cache(maxsize=64)
def _part_of_speech(wish: Chunk) -> PartOfSpeech:
    names = ("lexicon", "certainty", "strength", "tolerance")
    options = {name: getattr(wish, name) for name in names}
    return PartOfSpeech(f".* ({chunk_pattern(wish.grammar)}) .*", tagset="penn", **options)


@lru_cache(maxsize=64)
def _chunker(grammar: str) -> Any:
    """Return NLTK's parser; a `ValueError` says what it cannot read."""
    from nltk.chunk import RegexpParser  # seconds to import, so only where it is needed

    return RegexpParser(grammar)


def chunk_pattern(grammar: str) -> str:
    """Return what the rules of a chunk grammar match, as a pattern of `PartOfSpeech`: any of them.

    A rule sees what the ones before left over, so at least one chunk is found just where one of them matches.

    Raises:
        InvalidRequest: it is no such grammar, has several labels or other rules, or a tag pattern matches no tag.
    """
    lines = [line for line in grammar.splitlines() if line.strip() and not line.strip().startswith("#")]
    label, colon, first = (lines or [""])[0].partition(":")
    if not colon or not label.strip() or "{" in label:
        raise InvalidRequest(f"A chunk grammar begins with a label, like 'NP: {{<DT>?<NN>}}'; got {grammar!r}.")
    rules = [rule for rule in (first, *lines[1:]) if rule.strip()]
    return " | ".join(f"({_translated(rule)})" for rule in rules) or _refuse(grammar)


def _translated(rule: str) -> str:
    match = _RULE.fullmatch(rule)
    if match is None or not match["tags"].strip():
        return _refuse(rule)
    pattern = " ".join(_pieces(match["tags"]))
    if nullable(read_pattern(pattern, PENN)):
        raise InvalidRequest(f"{rule.strip()!r} matches no words at all, where NLTK finds no chunk; ask for one tag.")
    return pattern


def _pieces(tags: str) -> Iterator[str]:
    position, counted = 0, False
    while tags[position:].strip():
        match = _PIECE.match(tags, position)
        if match is None or (counted and match["count"]):
            raise InvalidRequest(f"{tags[position:].strip()[0]!r} has no meaning at position {position} of {tags!r}.")
        yield _tag_choice(match["tag"].strip()) if match["tag"] else match["mark"] or match["count"]
        position, counted = match.end(), bool(match["count"])


def _tag_choice(pattern: str) -> str:
    """Return the tags that NLTK's regular expression for one tag matches."""
    if set(pattern) & set("^$"):
        raise InvalidRequest(
            f"<{pattern}>: NLTK reads ^ and $ as ends; write <{pattern.strip('^$')}.> for a tag with $."
        )
    try:
        found = [tag for tag in PENN.tags if re.fullmatch(pattern, tag)]
    except re.error as error:
        raise InvalidRequest(f"<{pattern}> is no regular expression for a tag: {error}.") from error
    if not found:
        raise InvalidRequest(f"<{pattern}> matches no tag. {PENN.title} tags are {', '.join(PENN.tags)}.")
    return f"({' | '.join(map(quoted, found))})"


def _refuse(rule: str) -> str:
    raise InvalidRequest(
        f"{rule.strip()!r} is no rule that chunks; write '{{<DT>?<NN>}}', of one label. What chinks, splits, merges or "
        "refers to other chunks has no automaton here."
    )
