"""What a constraint compiles to, conjunct by conjunct, and what is promised: before any sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guided_dlm.algebra import conjuncts
from guided_dlm.automata import TokenAutomaton
from guided_dlm.constraint import CompileContext, Constraint
from guided_dlm.feasibility import compile_feasible

WEIGHED = "exact per step, forbids nothing"  # what a weighted automaton promises


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One row: a constraint, its token automaton's size (None where it has none), what is promised, and its notes."""

    name: str
    states: int | None
    classes: int | None
    edges: int | None
    promise: str
    notes: Mapping[str, Any] = field(default_factory=dict)


def explanation(constraint: Constraint, context: CompileContext) -> list[Explanation]:
    """Return a row per conjunct, and one for the product of all where there are several.

    Raises:
        Infeasible: no text satisfies the constraint in this canvas.
    """
    whole = compile_feasible(constraint, context)
    parts = conjuncts(constraint)
    rows = [_row(part, part.compile(context).automaton, context) for part in parts]
    if len(parts) > 1 and whole.automaton is not None:
        hard = any(part.hard for part in parts)
        rows.append(_describe("all together", whole.automaton, "guaranteed by automaton" if hard else WEIGHED))
    return rows


def _row(part: Constraint, automaton: TokenAutomaton | None, context: CompileContext) -> Explanation:
    notes = {name: value for leaf in part.leaves() for name, value in leaf.notes(context).items()}
    if automaton is None:
        return Explanation(name=repr(part), states=None, classes=None, edges=None, promise="best effort", notes=notes)
    return _describe(repr(part), automaton, "guaranteed by automaton" if part.hard else WEIGHED, notes)


def _describe(
    name: str, automaton: TokenAutomaton, promise: str, notes: Mapping[str, Any] | None = None
) -> Explanation:
    return Explanation(
        name=name,
        states=automaton.num_states,
        classes=automaton.num_classes,
        edges=automaton.num_edges,
        promise=promise,
        notes=notes or {},
    )
