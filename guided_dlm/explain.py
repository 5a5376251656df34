"""What a constraint compiles to, conjunct by conjunct, and what is promised: before any sampling."""

from __future__ import annotations

from dataclasses import dataclass

from guided_dlm.algebra import conjuncts
from guided_dlm.automata import TokenAutomaton
from guided_dlm.constraint import CompileContext, Constraint
from guided_dlm.feasibility import compile_feasible


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One row: a constraint, its token automaton's size (None where it has none), and what is promised."""

    name: str
    states: int | None
    classes: int | None
    edges: int | None
    promise: str


def explanation(constraint: Constraint, context: CompileContext) -> list[Explanation]:
    """Return a row per conjunct, and one for the product of all where there are several.

    Raises:
        Infeasible: no text satisfies the constraint in this canvas.
    """
    whole = compile_feasible(constraint, context)
    parts = conjuncts(constraint)
    rows = [_row(part, part.compile(context).automaton) for part in parts]
    if len(parts) > 1 and whole.automaton is not None:
        rows.append(_describe("all together", whole.automaton))
    return rows


def _row(part: Constraint, automaton: TokenAutomaton | None) -> Explanation:
    if automaton is None:
        return Explanation(name=repr(part), states=None, classes=None, edges=None, promise="best effort")
    return _describe(repr(part), automaton)


def _describe(name: str, automaton: TokenAutomaton) -> Explanation:
    return Explanation(
        name=name,
        states=automaton.num_states,
        classes=automaton.num_classes,
        edges=automaton.num_edges,
        promise="guaranteed by automaton",
    )
