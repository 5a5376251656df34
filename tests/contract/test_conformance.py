"""The conformance kit passes what keeps the contract and fails what breaks each clause of it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from wishes import Prefer

from constraints import Blank, Choice, Length, Regex, Template, Words
from guided_dlm import CompileContext, Constraint, Guide, RegularConstraint, Step, register
from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.testing import ConformanceError, check_constraint

GOOD = [
    Length(words=(1, 3)),
    Length(tokens=(2, 5)),
    Length(characters=(0, 9), sentences=1),
    Words(include=["a b"], exclude=["the"]),
    Words(only=["a", "b"], ignore_case=True),
    Words(include=["a", "b"], in_order=True),
    Regex("[a-c ]*", flags="i"),
    Choice(["The Mill", "", "caf\u00e9"]),
    Template(["The ", Blank(words=(1, 2)), Blank(regex="[.!]")]),
    ~Words(include=["a"]) & (Length(words=2) | Regex(".*b")),
    2.0 * Prefer(word="a", channel="energy").during(0, 0.5),
    Prefer(word="a") & Regex("a.*"),
    Prefer(word="a", channel="energy") | Prefer(word="b", channel="energy"),
    Prefer(word="a", channel="reward"),
]


@pytest.mark.parametrize("wish", GOOD, ids=repr)
def test_the_built_ins_conform(wish: Constraint) -> None:
    check_constraint(wish, samples=8)


def test_the_third_party_plugin_conforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "plugin_package"))
    module = __import__("guided_dlm_starts_with")
    try:
        check_constraint(module.StartsWith("The "), samples=8)
    finally:
        sys.modules.pop("guided_dlm_starts_with")


@register("test-broken", replace=True)
@dataclass(frozen=True, kw_only=True, repr=False)
class Honest(RegularConstraint):
    """A correct constraint that each broken one below spoils in one way."""

    pattern: str = "a+"

    def to_automaton(self) -> ByteAutomaton:
        return ByteAutomaton.from_regex(self.pattern)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        return bool(text) and set(text) == {"a"}


class ChecksTooMuch(Honest):
    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        return super().check(text) and len(text) != 1


class ChecksTooLittle(Honest):
    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        return "a" in text


class CompilesSomethingElse(Honest):
    def compile(self, context: CompileContext) -> Guide:
        return Guide(automaton=ByteAutomaton.from_regex("b+").lift(context.vocabulary))


class CompilesNothing(Honest):
    def compile(self, context: CompileContext) -> Guide:
        return Guide()


class ForgetsItsField(Honest):
    def to_config(self) -> dict[str, Any]:
        return {"constraint": "test-broken", "pattern": "b+"}


class WrongComplement(Honest):
    """Accepts canvases that hold no text at all, where `check` says no."""

    def compile(self, context: CompileContext) -> Guide:
        return Guide(automaton=TokenAutomaton.well_formed(context.vocabulary))


class NotADataclass(RegularConstraint):
    def to_automaton(self) -> ByteAutomaton:
        return ByteAutomaton.from_regex("a+")

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        return bool(text) and set(text) == {"a"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@dataclass(repr=False)
class NotFrozen(NotADataclass):
    pass


@dataclass(frozen=True, repr=False)
class NotHashable(NotADataclass):
    parts: Any = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, repr=False)
class Soft(Constraint):
    """A correct soft constraint that the broken ones below spoil."""

    rows: Any = field(default=None)

    def compile(self, context: CompileContext) -> Guide:
        return Guide(energy=lambda relaxed_BLV, step: self.energy(relaxed_BLV))

    def energy(self, relaxed_BLV: Tensor) -> Tensor:
        return relaxed_BLV[..., 97].sum(-1)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        return 0.0


class MixesRows(Soft):
    def energy(self, relaxed_BLV: Tensor) -> Tensor:
        return super().energy(relaxed_BLV) * super().energy(relaxed_BLV).mean()


class WrongShape(Soft):
    def energy(self, relaxed_BLV: Tensor) -> Tensor:
        return relaxed_BLV[..., 97]


class NaNGradient(Soft):
    def energy(self, relaxed_BLV: Tensor) -> Tensor:
        return (relaxed_BLV[..., 97] - relaxed_BLV[..., 97]).abs().sqrt().sum(-1) * 0


class InfiniteBias(Soft):
    def compile(self, context: CompileContext) -> Guide:
        return Guide(bias=lambda step: torch.full((len(context.vocabulary),), -torch.inf))


class BiasThatDoesNotFit(Soft):
    def compile(self, context: CompileContext) -> Guide:
        return Guide(bias=lambda step: torch.zeros(7))


class BiasThatMixesRows(Soft):
    def compile(self, context: CompileContext) -> Guide:
        def bias(step: Step) -> Tensor:
            return step.tokens_BL.double().mean().expand(len(context.vocabulary))

        return Guide(bias=bias)


class RewardOfOneRow(Soft):
    def compile(self, context: CompileContext) -> Guide:
        return Guide(reward=lambda texts, tokens: torch.zeros(1))


class ScoreIsText(Soft):
    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        return "good"  # type: ignore[return-value]


def test_the_honest_ones_conform() -> None:
    check_constraint(Honest())
    check_constraint(Soft())


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (ChecksTooMuch(), r"on 'a' the automaton says True, check\(\) says False"),
        (ChecksTooLittle(), r"the automaton says False, check\(\) says True"),
        (CompilesSomethingElse(), r"was sampled as 'b+', but check\(\) says False"),
        (CompilesNothing(), "no automaton"),
        (ForgetsItsField(), "comes back from its config"),
        (WrongComplement(), r"was sampled as .* but check\(\) says False"),
        (NotFrozen(), "frozen"),
        (NotADataclass(), "dataclass"),
        (NotHashable(), "hashable"),
        (MixesRows(), "depends on the other rows"),
        (WrongShape(), "one number per row"),
        (NaNGradient(), "not finite"),
        (InfiniteBias(), "not finite"),
        (BiasThatDoesNotFit(), "broadcast"),
        (BiasThatMixesRows(), "depends on the other rows"),
        (RewardOfOneRow(), "one number per row"),
        (ScoreIsText(), "must return a number"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Constraint) else "",
)
def test_each_broken_clause_is_found(broken: Constraint, reason: str) -> None:
    with pytest.raises(ConformanceError, match=reason):
        check_constraint(broken)
