"""Composition: `All` (&), `AnyOf` (|), `Not` (~), `Scaled` (2.0 * soft), `During` (soft.during(a, b))."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_, or_
from typing import Any

import torch
from torch import Tensor

from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.conjunction import product, sum_of, target_of
from guided_dlm.constraint import (
    CompileContext,
    Constraint,
    Guide,
    RegularConstraint,
    Step,
    byte_automaton,
    require_nonempty,
)
from guided_dlm.errors import Infeasible, InvalidRequest
from guided_dlm.watch import watched


class Composite(Constraint):
    """What the five operators share: operands, and a repr that reads like the expression."""

    @property
    def hard(self) -> bool:  # type: ignore[override]
        """Whether every leaf is guaranteed by an automaton."""
        return all(part.hard for part in self.children())

    def to_automaton(self) -> ByteAutomaton:
        """Return the automaton over whole texts, where every operand has one."""
        missing = [part for part in self.children() if not hasattr(part, "to_automaton")]
        raise TypeError(f"{missing[0] if missing else self!r} has no automaton over whole texts.")


@dataclass(frozen=True, init=False, repr=False)
class All(Composite):
    """Every operand holds; soft operands add their pulls."""

    operands: tuple[Constraint, ...]

    def __init__(self, *operands: Constraint) -> None:
        """Flatten nested conjunctions, so that `a & b & c` is one `All` of three."""
        _require_constraints("&", operands)
        flat = itertools.chain.from_iterable(op.operands if isinstance(op, All) else (op,) for op in operands)
        object.__setattr__(self, "operands", tuple(flat))

    def children(self) -> tuple[Constraint, ...]:
        """Return the operands."""
        return self.operands

    def compile(self, context: CompileContext) -> Guide:
        """Multiply the automata, add the soft channels; an empty product is for `feasibility` to explain."""
        guides = [(part, watched(part.compile(context), part)) for part in self.operands]
        hard = [(part, guide.automaton) for part, guide in guides if guide.automaton is not None]
        soft = [guide for _, guide in guides]
        options = [guide.options for guide in soft if guide.options]
        return Guide(
            automaton=product(hard, context.length) if hard else None,
            bias=sum_of([guide.bias for guide in soft if guide.bias]),
            energy=sum_of([guide.energy for guide in soft if guide.energy]),
            reward=sum_of([guide.reward for guide in soft if guide.reward]),
            options=options[0] if len(options) == 1 else None,
            target=target_of(soft),
        )

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool | float:
        """Return whether every hard operand holds, or the sum of the scores where all are soft."""
        hard = [part for part in self.operands if any(leaf.hard for leaf in part.leaves())]
        if not hard and self.operands:
            return sum(part.check(text, tokens) for part in self.operands)
        return all(bool(part.check(text, tokens)) for part in hard)

    def to_automaton(self) -> ByteAutomaton:
        """Return the intersection over whole texts."""
        return reduce(and_, (_byte(part, self) for part in self.operands))

    def to_config(self) -> dict[str, Any]:
        """Return {"all": [...]}."""
        return {"all": [part.to_config() for part in self.operands]}

    def __repr__(self) -> str:
        """Show `a & b`."""
        return " & ".join(_bracketed(part) for part in self.operands) or "All()"


@dataclass(frozen=True, init=False, repr=False)
class AnyOf(Composite):
    """At least one operand holds; all hard (a union of automata), or all energies (E = -logsumexp(-E_k))."""

    operands: tuple[Constraint, ...]

    def __init__(self, *operands: Constraint) -> None:
        """Flatten nested disjunctions; refuse a mixture of hard and soft."""
        _require_constraints("|", operands)
        flat = tuple(itertools.chain.from_iterable(op.operands if isinstance(op, AnyOf) else (op,) for op in operands))
        if not flat:
            raise InvalidRequest("AnyOf() of nothing can never hold; give it at least one constraint.")
        leaves = [leaf for part in flat for leaf in part.leaves()]
        if len({leaf.hard for leaf in leaves}) > 1:
            hard, soft = (next(leaf for leaf in leaves if leaf.hard is kind) for kind in (True, False))
            raise TypeError(
                f"{hard!r} | {soft!r} mixes a guarantee with a preference, and means neither. "
                "Join hard constraints with hard ones, energies with energies."
            )
        if timed := [part for part in flat if any(isinstance(node, During) for node in _tree(part))]:
            raise TypeError(
                f"{timed[0]!r} in an alternative: outside its window it would weaken the others. "
                "Put the window around the whole, (a | b).during(...)."
            )
        object.__setattr__(self, "operands", flat)

    def children(self) -> tuple[Constraint, ...]:
        """Return the operands."""
        return self.operands

    def compile(self, context: CompileContext) -> Guide:
        """Unite the automata, or join the energies."""
        if self.hard:
            return Guide(automaton=reduce(or_, self._live_automata(context)))
        energies = [part.compile(context).energy for part in self.operands]
        if any(energy is None for energy in energies):
            raise TypeError(f"{self!r} can be joined only where every operand is an energy.")

        def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
            return -torch.stack([-e(relaxed_BLV, step) for e in energies if e]).logsumexp(0)

        return Guide(energy=energy)

    def _live_automata(self, context: CompileContext) -> list[TokenAutomaton]:
        live, dead = [], []
        for part in self.operands:
            try:
                live.append(part.compile(context).automaton)
            except Infeasible as error:
                dead.append(str(error))
        if not live:
            raise Infeasible(f"None of the alternatives of {self!r} can hold. {' '.join(dead)}")
        return [automaton for automaton in live if automaton is not None]

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool | float:
        """Return whether some hard operand holds, or the best score of soft ones."""
        outcomes = [part.check(text, tokens) for part in self.operands]
        return any(map(bool, outcomes)) if self.hard else max(outcomes)

    def to_automaton(self) -> ByteAutomaton:
        """Return the union over whole texts."""
        return reduce(or_, (_byte(part, self) for part in self.operands))

    def to_config(self) -> dict[str, Any]:
        """Return {"any": [...]}."""
        return {"any": [part.to_config() for part in self.operands]}

    def __repr__(self) -> str:
        """Show `a | b`."""
        return " | ".join(_bracketed(part) for part in self.operands)


@dataclass(frozen=True, repr=False)
class Not(Composite):
    """The operand does not hold."""

    operand: Constraint

    def __post_init__(self) -> None:
        """Refuse a soft operand."""
        _require_constraints("~", (self.operand,))
        if not self.operand.hard:
            raise TypeError(
                f"~{self.operand!r}: a preference has no opposite to guarantee. Negate its strength instead."
            )

    def children(self) -> tuple[Constraint, ...]:
        """Return the one operand."""
        return (self.operand,)

    def compile(self, context: CompileContext) -> Guide:
        """Complement the automaton, relative to well-formed canvases.

        Raises:
            InvalidRequest: the operand is bounded in depth on this canvas, so its complement would let deeper texts in.
        """
        for leaf in self.operand.leaves():
            if leaf.notes(context).get("depth_can_bind"):
                raise InvalidRequest(
                    f"{self!r}: {leaf!r} nests deeper than its automaton follows in a canvas of {context.length} "
                    "tokens, so what it forbids cannot be told apart exactly. Bound the nesting in the wish itself."
                )
        try:
            automaton = self.operand.compile(context).automaton
        except Infeasible:
            return Guide(automaton=TokenAutomaton.well_formed(context.vocabulary))
        if automaton is None:
            raise TypeError(f"{self.operand!r} claims to be hard but compiled to a guide without an automaton.")
        return Guide(automaton=require_nonempty(~automaton, self))

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool:
        """Return whether the operand does not hold."""
        return not self.operand.check(text, tokens)

    def to_automaton(self) -> ByteAutomaton:
        """Return the complement, relative to valid UTF-8, of the operand as far as its automaton follows it."""
        return ~_byte(self.operand, self)

    def to_config(self) -> dict[str, Any]:
        """Return {"not": ...}."""
        return {"not": self.operand.to_config()}

    def __repr__(self) -> str:
        """Show `~a`."""
        return f"~{_bracketed(self.operand)}"


class _Weighted(Composite):
    """A soft operand whose bias and energy are multiplied by a weight that may depend on the step."""

    operand: Constraint

    def weight(self, step: Step) -> Tensor:
        """Return the multiplier of each row at this step, float `[B]`."""
        raise TypeError(f"{type(self).__name__} must define weight(step).")

    def children(self) -> tuple[Constraint, ...]:
        """Return the one operand."""
        return (self.operand,)

    def compile(self, context: CompileContext) -> Guide:
        """Multiply the operand's bias and energy; where the weight is 0 in all rows they are not evaluated at all."""
        guide = self._weighted(self.operand.compile(context))
        return guide if guide.target is None else replace(guide, target=self._weighted(guide.target))

    def _weighted(self, guide: Guide) -> Guide:
        old_bias, old_energy = guide.bias, guide.energy

        def bias(step: Step) -> Tensor:
            weight_B = self.weight(step)
            if old_bias is None or not weight_B.any():
                return torch.zeros(1, 1, 1, device=weight_B.device)
            weight_B11 = weight_B[:, None, None]
            return torch.where(weight_B11 == 0, 0.0, weight_B11 * old_bias(step))  # infinity times nought is nought

        def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
            weight_B = self.weight(step)
            if old_energy is None or not weight_B.any():
                return 0.0 * relaxed_BLV.sum((1, 2))
            inside_B = weight_B != 0
            gated_BLV = torch.where(inside_B[:, None, None], relaxed_BLV, relaxed_BLV.detach())
            return torch.where(inside_B, weight_B * old_energy(gated_BLV, step), 0.0)

        return replace(guide, bias=bias if old_bias else None, energy=energy if old_energy else None)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> bool | float:
        """Return the operand's own score."""
        return self.operand.check(text, tokens)


@dataclass(frozen=True, repr=False)
class Scaled(_Weighted):
    """The operand pulls `factor` times as hard."""

    factor: float
    operand: Constraint

    def __post_init__(self) -> None:
        """Refuse a hard operand and a factor that is not a finite number."""
        if not _is_number(self.factor):
            raise TypeError(f"A constraint is scaled by a finite number, not by {self.factor!r}.")
        for leaf in self.operand.leaves():
            if leaf.hard:
                raise TypeError(f"{self.factor} * {leaf!r}: a hard constraint holds or not; it has no strength.")

    def weight(self, step: Step) -> Tensor:
        """Return the factor."""
        return torch.full_like(step.progress_B, self.factor)

    def compile(self, context: CompileContext) -> Guide:
        """Multiply bias, energy and reward; a factor of zero leaves no guide at all."""
        if self.factor == 0:
            return Guide()
        guide = super().compile(context)
        reward = guide.reward
        automaton = None if guide.automaton is None else guide.automaton.scaled(self.factor)
        return replace(
            guide,
            automaton=automaton,
            reward=(lambda texts, tokens: self.factor * reward(texts, tokens)) if reward else None,
        )

    def to_config(self) -> dict[str, Any]:
        """Return {"scale": factor, "of": ...}."""
        return {"scale": self.factor, "of": self.operand.to_config()}

    def __repr__(self) -> str:
        """Show `2.0 * a`."""
        return f"{self.factor} * {_bracketed(self.operand)}"


@dataclass(frozen=True, repr=False)
class During(_Weighted):
    """The operand pulls only while the row's progress is in [start, stop)."""

    start: float
    stop: float
    operand: Constraint

    def __post_init__(self) -> None:
        """Refuse a hard operand and a window outside [0, 1]."""
        for leaf in self.operand.leaves():
            if leaf.hard:
                raise TypeError(f"{leaf!r}.during(...): a hard constraint must be in force at every step to be kept.")
        if not (_is_number(self.start) and _is_number(self.stop) and 0 <= self.start < self.stop <= 1):
            raise InvalidRequest(
                f"during({self.start!r}, {self.stop!r}): give two numbers with 0 <= start < stop <= 1."
            )

    def compile(self, context: CompileContext) -> Guide:
        """Limit bias and energy to the window.

        Raises:
            TypeError: the operand weighs whole texts with an automaton, which works at every step or not at all.
        """
        guide = super().compile(context)
        if guide.needs_particles:
            raise TypeError(f"{self!r}: a reward is of finished texts, and has no time of its own. Leave out during().")
        if guide.target is not None:  # a pull for a while is no wish about the whole text, so it is not corrected
            guide = replace(guide, reward=None, target=None)
        if guide.automaton is not None:
            raise TypeError(
                f"{self!r}: a weighted automaton weighs whole texts and is in force at every step. Leave out during()."
            )
        return guide

    def weight(self, step: Step) -> Tensor:
        """Return 1 inside the window, 0 outside."""
        return ((step.progress_B >= self.start) & (step.progress_B < self.stop)).float()

    def to_config(self) -> dict[str, Any]:
        """Return {"during": [start, stop], "of": ...}."""
        return {"during": [self.start, self.stop], "of": self.operand.to_config()}

    def __repr__(self) -> str:
        """Show `a.during(0.0, 0.5)`."""
        return f"{_bracketed(self.operand)}.during({self.start}, {self.stop})"


def conjuncts(constraint: Constraint | None) -> list[Constraint]:
    """Return what must hold together: the operands of a conjunction, else the constraint itself."""
    if constraint is None:
        return []
    return list(constraint.children()) if isinstance(constraint, All) else [constraint]


def _require_constraints(operator: str, operands: Sequence[Any]) -> None:
    for operand in operands:
        if not isinstance(operand, Constraint):
            raise TypeError(f"{operator} joins constraints; {operand!r} is none, but of type {type(operand).__name__}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _tree(constraint: Constraint) -> Iterator[Constraint]:
    yield constraint
    for child in constraint.children():
        yield from _tree(child)


def _byte(part: Constraint, whole: Constraint) -> ByteAutomaton:
    if isinstance(part, RegularConstraint):
        return byte_automaton(part)
    if isinstance(part, Composite):
        return part.to_automaton()
    raise TypeError(f"{part!r} in {whole!r} has no automaton over whole texts.")


def _bracketed(part: Constraint) -> str:
    return f"({part!r})" if isinstance(part, All | AnyOf | Scaled) else repr(part)
