"""What the guides of a conjunction add up to: a product of automata, and sums of soft channels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from guided_dlm.automata import TokenAutomaton
from guided_dlm.constraint import Constraint, Guide
from guided_dlm.errors import AutomatonTooLarge

SMALL_PRODUCT = 10_000  # pairs of states; a larger product is cut to what the canvas can hold


def sum_of(functions: list[Callable[..., Tensor]]) -> Callable[..., Tensor] | None:
    """Return the sum of channels, None where there is none."""
    if not functions:
        return None
    return lambda *args: sum((f(*args) for f in functions[1:]), start=functions[0](*args))


def target_of(guides: list[Guide]) -> Guide | None:
    """Return what stays part of the law of all guides together, None where that is all of them."""
    if all(guide.target is None for guide in guides):
        return None
    kept = [guide if guide.target is None else guide.target for guide in guides]
    return Guide(
        bias=sum_of([guide.bias for guide in kept if guide.bias]),
        energy=sum_of([guide.energy for guide in kept if guide.energy]),
        reward=sum_of([guide.reward for guide in kept if guide.reward]),  # what nothing proposes for
    )


def product(hard: list[tuple[Constraint, TokenAutomaton]], length: int) -> TokenAutomaton:
    """Multiply smallest first, large products as far as the canvas reaches; name the constraints that take too much."""
    hard = sorted(hard, key=lambda pair: pair[1].num_states)
    done, whole = [hard[0][0]], hard[0][1]
    for part, automaton in hard[1:]:
        try:
            whole = whole.combine(automaton, "both", max_states=SMALL_PRODUCT)
        except AutomatonTooLarge:
            try:
                whole = whole.combine(automaton, "both", length=length)
            except AutomatonTooLarge as error:
                names = " & ".join(map(repr, done))
                soft = any(one.log_weight is not None for one in (whole, automaton))
                hint = " A weighted wish multiplies states; with method='relaxed' it takes none." if soft else ""
                raise AutomatonTooLarge(f"{names} together with {part!r} is too large: {error}{hint}") from error
        done.append(part)
    return whole
