"""`Grammar`: the text is one that a context-free grammar derives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

from constraints.derivation import Derivation
from guided_dlm.automata import ByteAutomaton
from guided_dlm.automata.grammar import DEFAULT_BYTES, MAX_DEPTH, Bounded, BoundedGrammar, Notation, read_grammar
from guided_dlm.constraint import CompileContext, Guide, RegularConstraint, require_nonempty
from guided_dlm.errors import AutomatonTooLarge, Infeasible, InvalidRequest, shorten
from guided_dlm.registry import register


@register("grammar")
@dataclass(frozen=True, kw_only=True, repr=False)
class Grammar(RegularConstraint):
    r"""The whole text is derived by a context-free grammar, in lark's EBNF or in NLTK's notation.

    The language is the grammar's own: terminals are regular sets of texts, and any way to cut the text into terminals
    counts. There is no lexer that prefers long matches, keywords or priorities: where `"if"` must not be read as a
    name, the pattern of names has to say so. A pattern with lazy repeats stops as soon as it can. In lark's notation
    `%ignore`d terminals may stand before, between and after others. In NLTK's notation the quoted words are joined by
    `spaces`, a pattern that is one space by default.

    Left and right recursion are exact. Rules that nest in themselves are followed to a depth: `depth`, or as deep as a
    canvas can hold where the automaton stays small. `notes` says the depth and whether it can bind; no text that it
    lets through is ever outside the grammar.

    Attributes:
        text: the grammar.
        start: the rule to start from; by default "start" (lark) or the first left side (NLTK).
        notation: "lark" or "nltk"; detected by default.
        depth: how often rules may nest in themselves, counting from 1, which is not at all.
        spaces: what stands between words in NLTK's notation, as a pattern of `re`.
    """

    text: str = field(kw_only=False)
    start: str | None = None
    notation: str | None = None
    depth: int | None = None
    spaces: str | None = None

    def __post_init__(self) -> None:
        """Read the grammar, so that mistakes show early."""
        for name in ("text", "start", "notation", "spaces"):
            value = getattr(self, name)
            if not isinstance(value, str) and (name == "text" or value is not None):
                raise InvalidRequest(f"Grammar: {name}={value!r} is a {type(value).__name__}, not a text.")
        deep = self.depth
        if deep is not None and (isinstance(deep, bool) or not isinstance(deep, int) or not 1 <= deep <= MAX_DEPTH):
            raise InvalidRequest(f"Grammar: depth={deep!r} must be a whole number from 1 to {MAX_DEPTH}, or None.")
        _grammar(*self._source)

    @property
    def _source(self) -> tuple[str, str | None, str | None, str | None]:
        return self.text, self.start, self.notation, self.spaces

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        """Parse the text again, to any depth, by an algorithm that knows no automaton."""
        return _derivation(*self._source).accepts(text)

    def to_automaton(self) -> ByteAutomaton:
        """Return the automaton, to `depth` or to what texts of 256 bytes need and a limited number of states allows."""
        return _bounded(self, None).automaton

    def compile(self, context: CompileContext) -> Guide:
        """Lift the automaton for this canvas: as deep as its texts can nest, where that stays small."""
        try:
            lifted = _bounded(self, _room(context)).automaton.lift(context.vocabulary)
        except AutomatonTooLarge as error:
            raise AutomatonTooLarge(
                f"Grammar({shorten(self.text)!r}) is too large for exact inference. {error}"
            ) from error
        return Guide(automaton=require_nonempty(lifted, self))

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Return {"depth": how deep rules may nest, "depth_can_bind": whether that can lose a text of this canvas}."""
        bounded = _bounded(self, _room(context))
        return {"depth": bounded.depth, "depth_can_bind": bounded.can_bind}


def _room(context: CompileContext) -> int:
    """Return the most bytes that a canvas can hold."""
    return context.length * max(map(len, context.vocabulary.tokens))


@lru_cache(maxsize=64)
def _grammar(text: str, start: str | None, notation: str | None, spaces: str | None) -> BoundedGrammar:
    return BoundedGrammar(read_grammar(text, start, cast("Notation | None", notation), spaces))


@lru_cache(maxsize=64)
def _derivation(text: str, start: str | None, notation: str | None, spaces: str | None) -> Derivation:
    return Derivation(_grammar(text, start, notation, spaces).rules)


@lru_cache(maxsize=64)
def _bounded(wish: Grammar, size: int | None) -> Bounded:
    """Return the automaton for texts of up to `size` bytes, built once for equal constraints."""
    grammar = _grammar(*wish._source)
    room = DEFAULT_BYTES if size is None else size
    bounded = grammar.deepest(room) if wish.depth is None else grammar.at_depth(wish.depth, room)
    if bounded.automaton.is_empty():
        raise Infeasible(
            f"Grammar({shorten(wish.text)!r}, depth={wish.depth}): every text nests deeper than that. Raise depth=, or "
            "leave it out."
        )
    return bounded
