"""`Words`: which words and phrases the text has, lacks, or is made of."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_

from constraints.fields import as_texts
from constraints.preferences import Weights, as_weights
from guided_dlm.automata import ByteAutomaton, WeightedAutomaton
from guided_dlm.constraint import CompileContext, Guide, RegularConstraint
from guided_dlm.errors import InvalidRequest
from guided_dlm.registry import register

_EDGES = re.compile(r"^\W+|\W+$")
_GAP = r"\W(?:.*\W)?"


@register("words")
@dataclass(frozen=True, kw_only=True, repr=False)
class Words(RegularConstraint):
    r"""Whole words and phrases: all of `include`, none of `exclude`, nothing but `only`.

    A phrase is found where neither neighbour is a `\w` character. `only` compares words (maximal runs of non-space
    characters with a letter or digit) stripped of their non-`\w` edges. `in_order` asks for the included phrases one
    after the other, not overlapping. `ignore_case` follows `re.IGNORECASE`.

    `prefer` is soft, and stands by itself: a text with the phrase weighs so many nats more, once, however often it
    occurs. Join it to what must hold with `&`.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    in_order: bool = False
    ignore_case: bool = False
    prefer: Weights = ()

    @property
    def hard(self) -> bool:  # type: ignore[override]
        """Whether this is a guarantee: preferences are none."""
        return not self.prefer

    def __post_init__(self) -> None:
        """Refuse empty lists and phrases that could never be found."""
        for name in ("include", "exclude", "only"):
            if getattr(self, name) != ():
                object.__setattr__(self, name, as_texts(getattr(self, name), f"Words: {name}"))
        if self.prefer != ():
            object.__setattr__(self, "prefer", as_weights(self.prefer, "Words: prefer"))
        if self.prefer and (self.include or self.exclude or self.only):
            raise InvalidRequest(
                "Words: prefer= is a wish, the others are guarantees; write Words(...) & Words(prefer=...)."
            )
        for name in ("in_order", "ignore_case"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidRequest(f"Words: {name}={getattr(self, name)!r} must be True or False.")
        if not (self.include or self.exclude or self.only or self.prefer):
            raise InvalidRequest("Words() asks for nothing; give include=, exclude=, only= or prefer=.")
        if any(not phrase.strip() for phrase in (*self.include, *self.exclude, *dict(self.prefer))):
            raise InvalidRequest("Words: an empty phrase is in every text; name at least one character.")
        for word in self.only:
            if word.split() != [word] or _EDGES.sub("", word) != word or not any(c.isalnum() for c in word):
                raise InvalidRequest(f"Words: only={word!r} is no single word without punctuation at its edges.")

    @property
    def _flags(self) -> int:
        return re.DOTALL | (re.IGNORECASE if self.ignore_case else 0)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool | float:
        """Search the text for each phrase, and look at each of its words; a preference returns the text's weight."""
        if self.prefer:
            return sum(weight for phrase, weight in self.prefer if self._find(phrase, text, 0))
        return (
            self._has_included(text) and not any(self._find(p, text, 0) for p in self.exclude) and self._is_only(text)
        )

    def _find(self, phrase: str, text: str, start: int) -> re.Match[str] | None:
        return re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)", self._flags).search(text, start)

    def _has_included(self, text: str) -> bool:
        start = 0
        for phrase in self.include:
            match = self._find(phrase, text, start)
            if match is None:
                return False
            start = match.end() if self.in_order else 0
        return True

    def _is_only(self, text: str) -> bool:
        words = [_EDGES.sub("", run) for run in text.split() if any(c.isalnum() for c in run)]
        patterns = [re.compile(re.escape(word), self._flags) for word in self.only]
        return not self.only or all(any(p.fullmatch(word) for p in patterns) for word in words)

    def to_automaton(self) -> ByteAutomaton:
        """Return one automaton per phrase, multiplied.

        Raises:
            TypeError: the words are only preferred, so no set of texts is meant.
        """
        if self.prefer:
            raise TypeError(f"{self!r} is a preference and has no automaton of the texts that satisfy it.")
        return reduce(and_, self.factors())

    def to_weighted(self) -> WeightedAutomaton:
        """Return the weights of the preferred phrases."""
        return WeightedAutomaton(
            (self._compile(_anywhere(re.escape(phrase))), weight) for phrase, weight in self.prefer
        )

    def compile(self, context: CompileContext) -> Guide:
        """Lift the phrases' automata and multiply them, or lift the weights."""
        if self.prefer:
            return Guide(automaton=self.to_weighted().lift(context.vocabulary))
        return super().compile(context)

    def factors(self) -> tuple[ByteAutomaton, ...]:
        """Return one automaton per phrase; all are regular expressions over the text."""
        wishes = []
        if self.include and self.in_order:
            wishes.append(self._compile(_anywhere(_in_order(self.include))))
        else:
            wishes += [self._compile(_anywhere(re.escape(phrase))) for phrase in dict.fromkeys(self.include)]
        wishes += [~self._compile(_anywhere(re.escape(phrase))) for phrase in dict.fromkeys(self.exclude)]
        if self.only:
            wishes.append(self._compile(_made_of(self.only)))
        return tuple(wishes)

    def _compile(self, pattern: str) -> ByteAutomaton:
        return ByteAutomaton.from_regex(pattern, self._flags)


def _anywhere(pattern: str) -> str:
    return rf"(?:.*\W)?{pattern}(?:\W.*)?"


def _in_order(phrases: Sequence[str]) -> str:
    """Join phrases with what may stand between them: nothing only where both neighbours are non-word characters."""
    joined = re.escape(phrases[0])
    for before, after in itertools.pairwise(phrases):
        touching = re.match(r"\W", before[-1]) and re.match(r"\W", after[0])
        joined += (f"(?:{_GAP})?" if touching else _GAP) + re.escape(after)
    return joined


def _made_of(words: Sequence[str]) -> str:
    """Return the pattern of texts whose every run is punctuation or one of the words with punctuation around it."""
    listed = "|".join(re.escape(word) for word in words)
    run = rf"(?:(?:[^\w\s]|_)+|[^\w\s]*\b(?:{listed})\b[^\w\s]*)"
    return rf"\s*(?:{run}(?:\s+{run})*)?\s*"
