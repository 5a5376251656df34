"""Constraints for the tests: a soft one of each channel, strategies over the built-ins and their algebra, the truth."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import references as ref
import torch
from hypothesis import strategies as st
from torch import Tensor

from constraints import Blank, Choice, Length, Regex, Template, Words
from guided_dlm import CompileContext, Constraint, Guide, Step, register
from guided_dlm.algebra import All, AnyOf, Not


@register("test-prefer", replace=True)
@dataclass(frozen=True, kw_only=True, repr=False)
class Prefer(Constraint):
    """Pulls towards one word, through the channel asked for; the score is the word's count."""

    word: str
    channel: str = "bias"
    strength: float = 1.0

    def compile(self, context: CompileContext) -> Guide:
        wanted = [i for i, token in enumerate(context.vocabulary.tokens) if token.strip() == self.word.encode()]
        pull_V = torch.zeros(len(context.vocabulary), device=context.device)
        pull_V[wanted] = self.strength

        def bias(step: Step) -> Tensor:
            return pull_V

        def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
            return -(relaxed_BLV @ pull_V.to(relaxed_BLV.dtype)).sum(-1)

        def reward(texts: list[str], tokens: Tensor) -> Tensor:
            return torch.tensor([self.strength * self.check(text) for text in texts])

        return Guide(**{self.channel: {"bias": bias, "energy": energy, "reward": reward}[self.channel]})

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        return float(text.split().count(self.word))


RANGES = st.one_of(
    st.integers(0, 4), st.tuples(st.integers(0, 2), st.integers(2, 5)), st.tuples(st.integers(0, 3), st.none())
)
PHRASES = st.text("ab .-'\u00e9\N{GRINNING FACE}\"\\", min_size=1, max_size=4).filter(str.strip)
BLANKS = st.one_of(
    st.builds(Blank, words=RANGES),
    st.builds(Blank, characters=st.one_of(st.none(), RANGES), regex=st.sampled_from([None, "a+", "", "[a-z ]*"])),
    st.builds(Blank, options=st.lists(PHRASES, min_size=1, max_size=3, unique=True)),
)
LEAVES = st.one_of(
    st.builds(Length, words=RANGES, characters=st.one_of(st.none(), RANGES), sentences=st.one_of(st.none(), RANGES)),
    st.builds(Length, tokens=RANGES),
    st.builds(
        Words,
        include=st.lists(PHRASES, min_size=1, max_size=2),
        exclude=st.one_of(st.just(()), st.lists(PHRASES, min_size=1, max_size=2)),
        in_order=st.booleans(),
        ignore_case=st.booleans(),
    ),
    st.builds(Words, only=st.lists(st.sampled_from(["a", "b", "it's"]), min_size=1, max_size=2)),
    st.builds(
        Regex, st.sampled_from(["a*", ".*b", "", "[a-z]+\\.", "\\w+'s \"x\""]), flags=st.sampled_from(["", "i", "is"])
    ),
    st.builds(Choice, st.lists(PHRASES, min_size=1, max_size=3, unique=True)),
    st.builds(Template, st.lists(st.one_of(PHRASES, BLANKS), min_size=1, max_size=3)),
)  # fmt: skip
HARD = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        inner.map(lambda a: ~a),
    ),
    max_leaves=4,
)
ENERGIES = st.builds(Prefer, word=st.sampled_from(["a", "b"]), channel=st.just("energy"))
SOFT = st.recursive(
    st.one_of(ENERGIES, st.builds(Prefer, word=st.just("a"), channel=st.sampled_from(["bias", "reward"]))),
    lambda inner: st.one_of(
        st.builds(lambda s, a: s * a, st.floats(-3, 3), inner),
        st.builds(lambda a, w: a.during(*w), inner, st.sampled_from([(0.0, 0.5), (0.25, 1.0), (0, 1)])),
        st.builds(lambda a, pair: a.scheduled(pair), inner, st.tuples(st.floats(-3, 3), st.integers(-3, 3))),
        st.builds(lambda a, b: a & b, inner, inner),
    ),
    max_leaves=3,
)
ANY = st.one_of(HARD, SOFT, ENERGIES.map(lambda a: a | a), st.builds(lambda a, b: a & b, HARD, SOFT))


def holds(wish: Constraint, text: str, tokens: Sequence[int]) -> bool:
    """The truth about a hard tree, from the definitions alone: neither `check` nor an automaton is asked."""
    match wish:
        case All(operands=parts):
            return all(holds(part, text, tokens) for part in parts)
        case AnyOf(operands=parts):
            return any(holds(part, text, tokens) for part in parts)
        case Not(operand=part):
            return not holds(part, text, tokens)
        case Length():
            counts = {"tokens": len(tokens), "words": len(ref.words(text)), "characters": len(text)}
            counts["sentences"] = ref.sentences(text)
            return all(ref.within(count, getattr(wish, name)) for name, count in counts.items())
        case Words():
            return ref.words_hold(text, wish.include, wish.exclude, wish.only, wish.in_order, wish.ignore_case)
        case Regex():
            flags = sum({"i": re.I, "s": re.S}[flag] for flag in wish.flags)
            return re.fullmatch(wish.pattern, text, flags) is not None
        case Choice():
            return any(text == option for option in wish.options)
        case Template():
            return lays_out(wish.parts, text)
    raise AssertionError(f"No definition of {wish!r}.")


def fills(blank: Blank, gap: str) -> bool:
    return (
        ref.within(len(ref.words(gap)), blank.words)
        and ref.within(len(gap), blank.characters)
        and (blank.regex is None or re.fullmatch(blank.regex, gap) is not None)
        and (not blank.options or gap in blank.options)
    )


def lays_out(parts: Sequence[str | Blank], text: str) -> bool:
    """Some way to cut the text into the parts: every way is tried, right to left."""
    if not parts:
        return text == ""
    *before, last = parts
    if isinstance(last, str):
        return text.endswith(last) and lays_out(before, text[: len(text) - len(last)])
    return any(fills(last, text[cut:]) and lays_out(before, text[:cut]) for cut in range(len(text) + 1))
