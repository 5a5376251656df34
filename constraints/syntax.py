"""`PartOfSpeech`: which parts of speech the words of a text have, one after the other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import add, or_
from typing import Any

from constraints.tag_lexicon import TagLexicon, is_closing, lexicon
from constraints.tag_pattern import NOTHING, Node, derivative, letters, nullable, pattern_text, quoted, read_pattern
from constraints.tag_sets import TagSet, tag_set
from constraints.taggers import spacy_tags
from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.automata.dfa import Dfa
from guided_dlm.constraint import CompileContext, Guide, RegularConstraint
from guided_dlm.errors import Infeasible, InvalidRequest, within
from guided_dlm.registry import register
from guided_dlm.vocabulary import Vocabulary

Reading = tuple[str, ...]
_LEAST = 1e-300  # a tag that may be borne is never ruled out, however high the strength
_Path = tuple[float, tuple[tuple[str, str], ...]]


@register("part_of_speech")
@dataclass(frozen=True, kw_only=True, repr=False)
class PartOfSpeech(RegularConstraint):
    """The words of the text, punctuation among them, bear tags that a pattern matches as a whole.

    The pattern is a regular expression over tags ("DET ADJ* NOUN VERB .*"), a list of tags, or a list of spaCy
    `Matcher` dicts with "POS" and "OP", which may match anywhere. Tags are universal ones, or with `tagset` "penn" the
    Penn Treebank's ("DT JJ* NN VBZ .* \".\"", and "TAG" in dicts). A word bears each tag that `lexicon` gives it with
    p(tag | word) of at least `certainty`; words that the lexicon lacks are not written. So the pattern is guaranteed
    against the lexicon, not against a tagger that reads the context. Words stand one space apart, or before `.,;:!?`
    none.

    Where the vocabulary's tokens are whole words, spare single characters, only such words are written, and a text
    weighs the sum over its taggings of the products of p(tag | word) ** strength, exactly (a hidden Markov model's
    emissions times the pattern's automaton). Elsewhere all taggings count alike.

    With a `tolerance` above 0 the wish is soft: any word, also one that the lexicon lacks, may bear any tag with at
    least that weight, so that tags that clash with other wishes are given up one word at a time; it needs such a
    vocabulary. With `tagger`, the name of a spaCy pipeline, `check` asks that instead of the lexicon, and nothing is
    guaranteed.
    """

    pattern: str = field(kw_only=False)
    lexicon: str = "english"
    certainty: float = 0.05
    strength: float = 1.0
    tolerance: float = 0.0
    tagger: str | None = None
    tagset: str = "universal"

    @property
    def hard(self) -> bool:  # type: ignore[override]
        """Whether this is a guarantee: with tolerance, or against a tagger, it is none."""
        return self.tagger is None and self.tolerance == 0

    def __post_init__(self) -> None:
        """Refuse tags and lexicons that do not exist, patterns that do not parse, and shares out of range."""
        with within("PartOfSpeech"):
            object.__setattr__(self, "pattern", pattern_text(self.pattern, tag_set(self.tagset)))
            self._node()
        if not isinstance(self.lexicon, str):
            raise InvalidRequest(f"PartOfSpeech: lexicon={self.lexicon!r} must name a file, or be 'english'.")
        lexicon(self.lexicon, self.tag_names)
        for name in ("certainty", "tolerance"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
                raise InvalidRequest(f"PartOfSpeech: {name}={value!r} is a probability; give 0 to 1.")
        if not isinstance(self.strength, int | float) or not 0.0 <= self.strength < float("inf"):
            raise InvalidRequest(f"PartOfSpeech: strength={self.strength!r} must be a number of 0 or more.")

    @property
    def words(self) -> TagLexicon:
        """The lexicon itself."""
        return lexicon(self.lexicon, self.tag_names)

    @property
    def tag_names(self) -> TagSet:
        """The tags that the pattern may name."""
        return tag_set(self.tagset)

    def _node(self) -> Node:
        return read_pattern(self.pattern, self.tag_names)

    def tags(self, word: str) -> dict[str, float]:
        """Return the tags that a word may bear, with p(tag | word); empty where it may not be written."""
        return {tag: p for tag, p in self.words.probabilities(word).items() if p >= self.certainty}

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool | float:
        """Say whether some tagging matches, or the one that a tagger gives; 0 or 1 where the wish is soft."""
        if self.tagger is None:
            found = self.tagging(text) is not None
        else:
            tags = (frozenset([tag]) for tag in spacy_tags(self.tagger, text, self.tag_names))
            found = nullable(reduce(derivative, tags, self._node()))
        return found if self.hard else float(found)

    def tagging(self, text: str) -> list[tuple[str, str]] | None:
        """Return the words with their tags, the likeliest by the lexicon that the pattern admits; None without any."""
        states: list[dict[Node, _Path]] = [{self._node(): (0.0, ())}, *({} for _ in text)]
        for place, here in enumerate(states):
            for word, end in self.words.splits(text, place) if here else ():
                for tag, p in self.tags(word).items():
                    for node, (score, path) in here.items():
                        after, reached = derivative(node, frozenset([tag])), (score + math.log(p), (*path, (word, tag)))
                        if after != NOTHING and (after not in states[end] or reached > states[end][after]):
                            states[end][after] = reached
        complete = [path for node, path in states[-1].items() if nullable(node)]
        return list(max(complete)[1]) if complete else None

    def readings(self, vocabulary: Vocabulary) -> dict[int, dict[Reading, float]] | None:
        """Return the taggings of each token that is a word, with their weights; None where many tokens are parts."""
        spelled = {i: token.decode(errors="replace") for i, token in enumerate(vocabulary.tokens) if token}
        words = {i: text[1:] for i, text in spelled.items() if text[0] == " " and len(text) > 1}
        if any(len(text) > 1 and vocabulary.writable[i] for i, text in spelled.items() if i not in words):
            return None
        return {i: found for i, word in words.items() if (found := self._readings(word))}

    def _tolerant(self, vocabulary: Vocabulary) -> dict[int, dict[Reading, float]] | None:
        """Return `readings` with those that tolerance adds."""
        found = self.readings(vocabulary)
        if not self.tolerance or found is None:
            return found
        words = [i for i, token in enumerate(vocabulary.tokens) if len(token) > 1 and token.startswith(b" ")]
        added = {(tag,): self.tolerance for tag in self.tag_names.tags}
        return {i: {tags: max(p, self.tolerance) for tags, p in (added | found.get(i, {})).items()} for i in words}

    def _readings(self, text: str) -> dict[Reading, float]:
        found: dict[Reading, float] = {}

        def extend(place: int, tags: Reading, weight: float) -> None:
            if place == len(text):
                found[tags] = found.get(tags, 0.0) + weight
            for word, end in self.words.splits(text, place) if place < len(text) else ():
                for tag, p in self.tags(word).items():
                    extend(end, (*tags, tag), max(weight * p**self.strength, _LEAST))

        extend(0, (), 1.0)
        return {tags: min(weight, 1.0) for tags, weight in found.items()}

    def compile(self, context: CompileContext) -> Guide:
        """Run the pattern over readings of whole-word tokens; else lift the texts that some tagging admits.

        Raises:
            Infeasible: no words of this vocabulary can bear such tags.
        """
        readings = None if context.plain else self._tolerant(context.vocabulary)
        if self.tolerance and readings is None:
            raise InvalidRequest(
                f"{self!r}: tolerance= weighs readings of whole words, and this vocabulary has parts of words. "
                "Leave it out."
            )
        if readings is None:
            guide = super().compile(context)
        elif not readings:
            raise Infeasible(self._missing(readings))
        else:
            tags, number = tag_automaton(self.pattern, self.tag_names), self.tag_names.number
            columns = {
                i: {tuple(number[tag] for tag in r): p for r, p in found.items()} for i, found in readings.items()
            }
            guide = Guide(automaton=TokenAutomaton.tagged(context.vocabulary, tags, columns))
        if guide.automaton is None or not guide.automaton.accepting.any():
            raise Infeasible(self._missing(readings))
        return guide

    def _missing(self, readings: Mapping[int, Mapping[Reading, float]] | None) -> str:
        tags = {tag for found in (readings or {}).values() for reading in found for tag in reading}
        named = set(re.findall(r'\w+\$?|"[^"]+"', self.pattern))
        lacking = [tag for tag in self.tag_names.tags if quoted(tag) in named and tag not in tags]
        why = f": none of its words is {' or '.join(lacking)}" if lacking and readings is not None else ""
        return (
            f"{self!r}: no words of this vocabulary that lexicon {self.lexicon!r} knows can bear such tags{why}. Lower "
            "certainty, or give a lexicon counted on text like the model's."
        )

    def to_automaton(self) -> ByteAutomaton:
        """Return the automaton of the texts that some tagging admits."""
        node = self._node()
        texts = self._spelled(node).after(b" ")
        return texts | ByteAutomaton.literal("") if nullable(node) else texts

    def _spelled(self, node: Node) -> ByteAutomaton:
        """Return the texts of a pattern, each word with what stands before it."""
        if node.kind == "tag":
            return _spellings(self, node.tags)
        parts: Iterator[ByteAutomaton] = map(self._spelled, node.parts)
        if node.kind == "star":
            return next(parts).star()
        if node.kind == "seq":
            return reduce(add, parts, ByteAutomaton.literal(""))
        return reduce(or_, parts, ByteAutomaton.empty())

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Say what holds: the lexicon, how many tokens it lets be written, and whether taggings have weights."""
        readings = self.readings(context.vocabulary)
        held = f"the tags of lexicon {self.lexicon!r}" if self.hard else "nothing"
        notes: dict[str, Any] = {"guaranteed_against": held, "weighted": readings is not None}
        return notes if readings is None else notes | {"tokens_with_tags": len(readings)}


@lru_cache(maxsize=64)
def tag_automaton(pattern: str, tags: TagSet) -> Dfa:
    """Return the pattern's automaton over the tags, numbered as the tag set does."""
    automaton = ByteAutomaton.from_regex(letters(read_pattern(pattern, tags), tags))
    column_of = automaton.byte_class.astype("int64")[[ord(tags.letter(tag)) for tag in tags.tags]]
    return Dfa(automaton.table, automaton.accepting, column_of)


@lru_cache(maxsize=64)
def _spellings(wish: PartOfSpeech, tags: frozenset[str]) -> ByteAutomaton:
    """Return each word that may bear one of the tags, with the space before it, which closing marks may lack."""
    words = sorted(word for word in wish.words.counts if tags & set(wish.tags(word)))
    return ByteAutomaton.of_texts([*(f" {word}" for word in words), *filter(is_closing, words)])
