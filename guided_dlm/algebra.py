"""Composition: `All` (&), `AnyOf` (|), `Not` (~); `weighting` has what is for soft wishes only."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_, or_
from typing import Any, ClassVar

import torch
from torch import Tensor

from guided_dlm.automata import ByteAutomaton, TokenAutomaton
from guided_dlm.composite import Composite, bracketed, require_constraints, tree
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
from guided_dlm.weighting import During, Scaled, Scheduled, Timed

__all__ = ["All", "AnyOf", "Composite", "During", "Not", "Scaled", "Scheduled", "conjuncts"]


@dataclass(frozen=True, init=False, repr=False)
class All(Composite):
    """Every operand holds; soft operands add their pulls."""

    infix: ClassVar[bool] = True

    operands: tuple[Constraint, ...]

    def __init__(self, *operands: Constraint) -> None:
        """Flatten nested conjunctions, so that `a & b & c` is one `All` of three."""
        require_constraints("&", operands)
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
        return " & ".join(bracketed(part) for part in self.operands) or "All()"


@dataclass(frozen=True, init=False, repr=False)
class AnyOf(Composite):
    """At least one operand holds; all hard (a union of automata), or all energies (E = -logsumexp(-E_k))."""

    infix: ClassVar[bool] = True

    operands: tuple[Constraint, ...]

    def __init__(self, *operands: Constraint) -> None:
        """Flatten nested disjunctions; refuse a mixture of hard and soft."""
        require_constraints("|", operands)
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
        if timed := [part for part in flat if any(isinstance(node, Timed) for node in tree(part))]:
            raise TypeError(
                f"{timed[0]!r} in an alternative: while it pulls less it would weaken the others. "
                "Put the time around the whole, (a | b).during(...) or (a | b).scheduled(...)."
            )
        object.__setattr__(self, "operands", flat)

    def children(self) -> tuple[Constraint, ...]:
        """Return the operands."""
        return self.operands

    def compile(self, context: CompileContext) -> Guide:
        """Unite the automata, or join the energies."""
        if self.hard:
            return Guide(automaton=reduce(or_, self._live_automata(replace(context, plain=True))))
        energies = [part.compile(context).energy for part in self.operands]
        if any(energy is None for energy in energies):
            raise TypeError(
                f"{self!r} can be joined only where every operand is an energy; some wishes are one with "
                "method='relaxed'."
            )

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
        return " | ".join(bracketed(part) for part in self.operands)


@dataclass(frozen=True, repr=False)
class Not(Composite):
    """The operand does not hold."""

    operand: Constraint

    def __post_init__(self) -> None:
        """Refuse a soft operand."""
        require_constraints("~", (self.operand,))
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
            automaton = self.operand.compile(replace(context, plain=True)).automaton
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
        return f"~{bracketed(self.operand)}"


def conjuncts(constraint: Constraint | None) -> list[Constraint]:
    """Return what must hold together: the operands of a conjunction, else the constraint itself."""
    if constraint is None:
        return []
    return list(constraint.children()) if isinstance(constraint, All) else [constraint]


def _byte(part: Constraint, whole: Constraint) -> ByteAutomaton:
    if isinstance(part, RegularConstraint):
        return byte_automaton(part)
    if isinstance(part, Composite):
        return part.to_automaton()
    raise TypeError(f"{part!r} in {whole!r} has no automaton over whole texts.")
