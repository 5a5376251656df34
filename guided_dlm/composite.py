"""What the operators on constraints share: operands, a repr like the expression, checks of what is joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from guided_dlm.automata import ByteAutomaton
from guided_dlm.constraint import Constraint


class Composite(Constraint):
    """A constraint made of constraints; `infix` says that its repr needs brackets inside another's."""

    infix: ClassVar[bool] = False

    @property
    def hard(self) -> bool:  # type: ignore[override]
        """Whether every leaf is guaranteed by an automaton."""
        return all(part.hard for part in self.children())

    def to_automaton(self) -> ByteAutomaton:
        """Return the automaton over whole texts, where every operand has one."""
        missing = [part for part in self.children() if not hasattr(part, "to_automaton")]
        raise TypeError(f"{missing[0] if missing else self!r} has no automaton over whole texts.")


def require_constraints(operator: str, operands: Sequence[Any]) -> None:
    """Refuse operands that are no constraints."""
    for operand in operands:
        if not isinstance(operand, Constraint):
            raise TypeError(f"{operator} joins constraints; {operand!r} is none, but of type {type(operand).__name__}.")


def tree(constraint: Constraint) -> Iterator[Constraint]:
    """Yield the constraint and everything below it."""
    yield constraint
    for child in constraint.children():
        yield from tree(child)


def bracketed(part: Constraint) -> str:
    """Return the repr of an operand, in brackets where it would bind otherwise without."""
    return f"({part!r})" if isinstance(part, Composite) and part.infix else repr(part)
