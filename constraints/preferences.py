"""`Preferences`: weights for texts that match patterns, in the same exact pass as everything hard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from constraints.matching import fullmatch
from guided_dlm.automata import ByteAutomaton, WeightedAutomaton
from guided_dlm.constraint import WeightedConstraint
from guided_dlm.errors import InvalidRequest
from guided_dlm.registry import register

Weights = tuple[tuple[str, float], ...]


def as_weights(value: object, where: str) -> Weights:
    """Return (text, nats) pairs from a mapping, or from pairs.

    Raises:
        InvalidRequest: it is empty, or a weight is no finite number.
    """
    pairs = tuple(value.items()) if isinstance(value, Mapping) else tuple(value) if isinstance(value, Sequence) else ()
    if not pairs or isinstance(value, str):
        raise InvalidRequest(f"{where}={value!r}: give a mapping from text to weight in nats, like {{'river': 2.0}}.")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise InvalidRequest(f"{where}: {pair!r} is no text with a weight.")
        text, weight = pair
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise InvalidRequest(f"{where}[{text!r}]={weight!r}: a weight is a finite number of nats.")
    return tuple((text, float(weight)) for text, weight in pairs)


@register("preferences")
@dataclass(frozen=True, kw_only=True, repr=False)
class Preferences(WeightedConstraint):
    r"""A text weighs the sum, in nats, of the weights of all patterns that it matches as a whole.

    `Preferences({r".*\d.*": -3.0})` makes texts with a digit exp(3) times less likely than the model would. Patterns
    are those of `Regex`, and "." matches newlines too.
    """

    weights: Weights = field(kw_only=False)

    def __post_init__(self) -> None:
        """Refuse an empty mapping, weights that are no numbers, and patterns that are not regular."""
        object.__setattr__(self, "weights", as_weights(self.weights, "Preferences: weights"))
        for pattern, _ in self.weights:
            ByteAutomaton.check_regex(f"(?s:{pattern})")

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Match each pattern again, without an automaton."""
        return sum(weight for pattern, weight in self.weights if fullmatch(f"(?s:{pattern})", text))

    def to_weighted(self) -> WeightedAutomaton:
        """Return one feature per pattern."""
        return WeightedAutomaton((ByteAutomaton.from_regex(f"(?s:{p})"), weight) for p, weight in self.weights)

    def __repr__(self) -> str:
        """Show the mapping."""
        return f"Preferences({dict(self.weights)!r})"
