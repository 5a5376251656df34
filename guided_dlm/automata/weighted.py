"""WeightedAutomaton: a log-weight for every text, as a sum over regular sets of texts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING

from guided_dlm.automata.byte import ByteAutomaton
from guided_dlm.automata.token import TokenAutomaton
from guided_dlm.errors import InvalidRequest

if TYPE_CHECKING:
    from guided_dlm.vocabulary import Vocabulary


class WeightedAutomaton:
    """A text weighs the sum, in nats, of the weights of all the given sets that it is in; it forbids nothing.

    In the posterior a canvas of weight w is exp(w) times as likely as the factors make it, in one pass with everything
    hard: the law is proportional to prod_l p_l(x_l) * exp(w(text)) * [text accepted].
    """

    def __init__(self, features: Iterable[tuple[ByteAutomaton, float]]) -> None:
        """Take pairs of a set of texts and its weight.

        Raises:
            InvalidRequest: a weight is no finite number.
        """
        self.features = tuple(features)
        for _, weight in self.features:
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise InvalidRequest(f"A weight is a finite number of nats, not {weight!r}.")

    def weight(self, data: bytes) -> float:
        """Return the log-weight of the text with these bytes."""
        return sum(weight for feature, weight in self.features if feature.accepts(data))

    def lift(self, vocabulary: Vocabulary) -> TokenAutomaton:
        """Return all well-formed canvases over a vocabulary, with the weights of their texts."""
        everything = TokenAutomaton.well_formed(vocabulary)
        lifted = ((feature.lift(vocabulary), weight) for feature, weight in self.features)
        return reduce(lambda whole, feature: whole.weigh(*feature), lifted, everything.scaled(1.0))
