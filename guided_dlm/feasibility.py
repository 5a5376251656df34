"""Refuse what cannot be, before any model call, and name who clashes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from guided_dlm.algebra import All, conjuncts
from guided_dlm.automata import TokenAutomaton
from guided_dlm.constraint import CompileContext, Constraint, Guide
from guided_dlm.errors import Infeasible


def compile_feasible(constraint: Constraint, context: CompileContext) -> Guide:
    """Compile a constraint and make sure that some canvas of the context's length satisfies it.

    Raises:
        Infeasible: none does; the message names the smallest set of constraints that clash.
    """
    guide = constraint.compile(context)
    if guide.automaton is None or fits(guide.automaton, context.length):
        return guide
    raise Infeasible(explain_clash([part for part in conjuncts(constraint) if part.hard], context))


def fits(automaton: TokenAutomaton, length: int) -> bool:
    """Return whether some canvas of exactly `length` positions is accepted."""
    return bool(automaton.accepting.any()) and bool(automaton.feasible_lengths(length)[length])


def explain_clash(hard: Sequence[Constraint], context: CompileContext) -> str:
    """Return a sentence that names the smallest set of constraints with no common text in the canvas."""
    where = f"in a canvas of {context.length} tokens"
    for size in range(1, len(hard)):
        for group in itertools.combinations(hard, size):
            automaton = All(*group).compile(context).automaton
            if automaton is not None and not fits(automaton, context.length):
                return _sentence(group, where)
    return _sentence(hard, where)


def _sentence(group: Sequence[Constraint], where: str) -> str:
    names = [f'"{part!r}"' for part in group]
    if len(names) == 1:
        return f"{names[0]} cannot be satisfied {where}. Raise max_new_tokens or relax it."
    listed = ", ".join(names[:-1]) + " and " + names[-1]
    return f"{listed} cannot hold together {where}. Relax one of them or raise max_new_tokens."
