"""Refuse what cannot be, before any model call, and name who clashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from guided_dlm.algebra import All, conjuncts
from guided_dlm.automata import TokenAutomaton
from guided_dlm.automata.dfa import FAR
from guided_dlm.constraint import CompileContext, Constraint, Guide
from guided_dlm.errors import AutomatonTooLarge, Infeasible
from guided_dlm.watch import watched


def compile_feasible(constraint: Constraint, context: CompileContext) -> Guide:
    """Compile a constraint and make sure that some canvas of the context's length satisfies it.

    Raises:
        Infeasible: none does; the message names constraints that clash, none of which could be left out.
    """
    guide = constraint.compile(context)
    if not isinstance(constraint, All):  # which watches its operands one by one
        guide = watched(guide, constraint)
    if guide.automaton is None or fits(guide.automaton, context.length):
        return guide
    hard = [part for part in conjuncts(constraint) if part.hard or part.compile(context).automaton is not None]
    raise Infeasible(explain_clash(hard, context) + shortest_canvas(hard, context))


def fits(automaton: TokenAutomaton, length: int) -> bool:
    """Return whether some canvas of exactly `length` positions is accepted."""
    return bool(automaton.accepting.any()) and bool(automaton.feasible_lengths(length)[length])


def shortest_canvas(hard: Sequence[Constraint], context: CompileContext) -> str:
    """Return a sentence that says how long a canvas would have to be, where a longer one would do and can be told."""
    try:
        automaton = All(*hard).compile(replace(context, length=FAR)).automaton
    except (AutomatonTooLarge, Infeasible):
        return ""
    least = int(automaton.distance[automaton.start]) if automaton is not None and automaton.accepting.any() else 0
    return f" The shortest text takes {least} tokens." if least > context.length else ""


def explain_clash(hard: Sequence[Constraint], context: CompileContext) -> str:
    """Return a sentence that names constraints with no common text in the canvas, none of which could be left out.

    One constraint after the other is left out for good where the rest still clash, so n constraints take n products.
    """
    clash = list(hard)
    for part in hard:
        rest = [other for other in clash if other is not part]
        if rest and _clash(rest, context):
            clash = rest
    return _sentence(clash, f"in a canvas of {context.length} tokens")


def _clash(group: Sequence[Constraint], context: CompileContext) -> bool:
    """Return whether nothing satisfies the group; a product too large to tell counts as no."""
    try:
        automaton = All(*group).compile(context).automaton
    except AutomatonTooLarge:
        return False
    return automaton is not None and not fits(automaton, context.length)


def _sentence(group: Sequence[Constraint], where: str) -> str:
    names = [f'"{part!r}"' for part in group]
    if len(names) == 1:
        return f"{names[0]} cannot be satisfied {where}. Raise max_new_tokens or relax it."
    listed = ", ".join(names[:-1]) + " and " + names[-1]
    return f"{listed} cannot hold together {where}. Relax one of them or raise max_new_tokens."
