"""`Length`: how many tokens, words, characters or sentences the text has."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import Any

from constraints.fields import Range, as_range, in_range, show_range
from guided_dlm.automata import ByteAutomaton, CodepointSet, TokenAutomaton, WeightedAutomaton
from guided_dlm.constraint import CompileContext, Guide, RegularConstraint, require_nonempty
from guided_dlm.errors import Infeasible, InvalidRequest
from guided_dlm.registry import register

CLOSING_QUOTES = (
    "\"'\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"
)
_SENTENCE_END = re.compile(rf"[.!?]+[{CLOSING_QUOTES}]*(?=\s|\Z)")


UNITS = ("tokens", "words", "characters", "sentences")


@register("length")
@dataclass(frozen=True, kw_only=True, repr=False)
class Length(RegularConstraint):
    """Count tokens, words, characters or sentences; each an int, or (min, max) with max None for open.

    A word is a maximal run of non-space characters with a letter or digit in it. A sentence ends at a run of [.!?] plus
    closing quotes before a space or the end; an unterminated remainder counts. Characters are code points. Tokens are
    those of the text, before its end; they are the one count that the text alone does not tell.

    With `penalty` the length is a soft prior instead: every unit outside the ranges costs so many nats, until the cost
    is 50. It counts words, characters and sentences.
    """

    tokens: Range | None = None
    words: Range | None = None
    characters: Range | None = None
    sentences: Range | None = None
    penalty: float | None = None

    @property
    def hard(self) -> bool:  # type: ignore[override]
        """Whether this is a guarantee: with a penalty it is a soft prior."""
        return self.penalty is None

    def __post_init__(self) -> None:
        """Turn ints into ranges; refuse negative lengths, min > max, and no count at all."""
        for name in UNITS:
            object.__setattr__(self, name, as_range(getattr(self, name), f"Length: {name}"))
        if all(r is None for r in (self.tokens, self.words, self.characters, self.sentences)):
            raise InvalidRequest("Length() counts nothing; give tokens=, words=, characters= or sentences=.")
        if self.penalty is not None:
            _check_penalty(self.penalty, self.tokens)

    def __repr__(self) -> str:
        """Show the counts as one would type them."""
        counts = [f"{name}={show_range(value)}" for name in UNITS if (value := getattr(self, name)) is not None]
        return f"Length({', '.join(counts + ([] if self.penalty is None else [f'penalty={self.penalty}']))})"

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool | float:
        """Count again, by splitting the text; `tokens` are the ids of the text without its end.

        With a penalty, return minus what the text costs.

        Raises:
            InvalidRequest: `tokens=` is constrained and no token ids are given.
        """
        if self.tokens is not None and tokens is None:
            raise InvalidRequest(f"{self!r} counts tokens, which the text does not tell; call check(text, tokens).")
        words = sum(any(c.isalnum() for c in run) for run in text.split())
        ends = list(_SENTENCE_END.finditer(text))
        remainder = text[ends[-1].end() :] if ends else text
        counts = (len(tokens or ()), words, len(text), len(ends) + bool(remainder.strip()))
        allowed = [getattr(self, name) for name in UNITS]
        if self.penalty is not None:
            return -sum(_cost(count, wish, self.penalty) for count, wish in zip(counts, allowed, strict=True))
        return all(map(in_range, counts, allowed))

    def to_automaton(self) -> ByteAutomaton:
        """Return the counters of words, characters and sentences, multiplied.

        Raises:
            TypeError: tokens are counted, which only a token automaton can do.
        """
        if self.tokens is not None:
            raise TypeError(f"{self!r} counts tokens and so has no automaton over whole texts.")
        return reduce(and_, self.factors())

    def to_weighted(self) -> WeightedAutomaton:
        """Return what each count outside its range costs: one feature per unit too few or too many."""
        return self._weights(self.penalty or 0.0, None)

    def _weights(self, penalty: float, room: int | None) -> WeightedAutomaton:
        """Leave out counts above `room`, which no canvas reaches."""
        most = int(-(-MOST_COST // penalty)) if penalty else 0
        features = []
        for build, allowed in self._counters():
            low, high = allowed
            features += [(build((0, low - short)), -penalty) for short in range(1, min(low, most) + 1)]
            if high is not None:
                above = most if room is None else min(most, room - high)
                features += [(build((high + extra, None)), -penalty) for extra in range(1, above + 1)]
        return WeightedAutomaton(features)

    def factors(self) -> tuple[ByteAutomaton, ...]:
        """Return one counter for each of words, characters and sentences that is constrained."""
        return tuple(build(allowed) for build, allowed in self._counters())

    def _counters(self) -> list[tuple[Callable[[Range], ByteAutomaton], Range]]:
        counters = ((_words, self.words), (_characters, self.characters), (_sentences, self.sentences))
        return [(build, allowed) for build, allowed in counters if allowed is not None]

    def compile(self, context: CompileContext) -> Guide:
        """Lift the counters over the text; count tokens directly. No counter goes beyond what the canvas can hold."""
        if self.penalty is not None:
            room = context.length * (max(map(len, context.vocabulary.tokens)) if self.characters else 1)
            return Guide(automaton=self._weights(self.penalty, room).lift(context.vocabulary))
        clipped = self._clipped(context)
        automaton = TokenAutomaton.well_formed(context.vocabulary)
        if clipped.factors():
            automaton = super(Length, clipped).compile(context).automaton or automaton
        if clipped.tokens is not None:
            automaton = automaton & TokenAutomaton.count_tokens(context.vocabulary, *clipped.tokens)
        return Guide(automaton=require_nonempty(automaton, self))

    def _clipped(self, context: CompileContext) -> Length:
        """Return the same wish for this canvas, its upper ends open where the canvas is smaller.

        Raises:
            Infeasible: a lower end is above what the canvas can hold.
        """
        room = context.length * max(map(len, context.vocabulary.tokens))  # bytes, so characters, words and sentences
        changes: dict[str, Any] = {}
        for name, most in (("tokens", context.length), ("words", room), ("characters", room), ("sentences", room)):
            low, high = getattr(self, name) or (0, None)
            if low > most:
                raise Infeasible(
                    f'"{self!r}" asks for at least {low} {name}, and a canvas of {context.length} tokens of this '
                    f"vocabulary holds {most} at most. Ask for fewer, or raise max_new_tokens."
                )
            if high is not None and high > most:
                changes[name] = (low, None)
        return replace(self, **changes) if changes else self


MOST_COST = 50.0  # nats; a preference has no more to say


def _check_penalty(penalty: Any, tokens: Range | None) -> None:
    if isinstance(penalty, bool) or not isinstance(penalty, int | float) or not 0.5 <= penalty <= MOST_COST:
        raise InvalidRequest(f"Length: penalty={penalty!r} must be a number of nats per unit, from 0.5 to {MOST_COST}.")
    if tokens is not None:
        raise InvalidRequest("Length: a penalty counts words, characters or sentences, not tokens.")


def _cost(count: int, allowed: Range | None, penalty: float) -> float:
    if allowed is None:
        return 0.0
    low, high = allowed
    outside = max(low - count, 0 if high is None else count - high, 0)
    return penalty * min(outside, -(-MOST_COST // penalty))


def _counter(
    classes: Sequence[CodepointSet],
    allowed: Range,
    mode: Hashable,
    step: Callable[[Any, int], tuple[Any, int]],
    pending: Callable[[Any], int],
) -> ByteAutomaton:
    """Return a machine that counts: `step(mode, class)` -> (mode, increment); `pending(mode)` is added at the end."""
    low, high = allowed

    def advance(state: tuple[Any, int], symbol: int) -> tuple[Any, int] | None:
        after, increment = step(state[0], symbol)
        count = state[1] + increment
        if high is None:
            return after, min(count, low)  # beyond an open range's minimum, counting on changes nothing
        return (after, count) if count <= high else None

    def accepting(state: tuple[Any, int]) -> bool:
        return in_range(state[1] + pending(state[0]), allowed)

    return ByteAutomaton.from_machine(classes, (mode, 0), advance, accepting)


def _words(allowed: Range) -> ByteAutomaton:
    def step(counted: bool, symbol: int) -> tuple[bool, int]:
        if symbol == 0:  # space
            return False, 0
        if symbol == 1:  # letter or digit
            return True, int(not counted)
        return counted, 0

    return _counter([CodepointSet.space(), CodepointSet.alnum()], allowed, False, step, lambda _: 0)


def _characters(allowed: Range) -> ByteAutomaton:
    return _counter([], allowed, "", lambda mode, _: (mode, 1), lambda _: 0)


def _sentences(allowed: Range) -> ByteAutomaton:
    space, stop, quote = range(3)

    def step(mode: str, symbol: int) -> tuple[str, int]:
        ended = mode in ("stop", "quote")
        if symbol == space:
            return ("blank", 1) if ended else (mode, 0)
        if symbol == stop:
            return "stop", 0
        if symbol == quote and ended:
            return "quote", 0
        return "open", 0

    classes = [CodepointSet.space(), CodepointSet.of(".!?"), CodepointSet.of(CLOSING_QUOTES)]
    return _counter(classes, allowed, "blank", step, lambda mode: int(mode != "blank"))
