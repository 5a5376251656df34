"""What a corrector is: it says which written positions a masked sampler hides again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.errors import InvalidRequest
from guided_dlm.posterior import Factors, Posterior
from guided_dlm.processes import Transition
from guided_dlm.processes.schedules import Schedule
from guided_dlm.randomness import Purpose, Randomness

Law = Factors | Posterior


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """A canvas after a step wrote it, and what a corrector may ask about it.

    Attributes:
        at: the step.
        before: the canvas that the step's model call saw.
        after: the canvas with what the step wrote.
        eligible_BL: bool `[B, L]`, written positions that may be hidden: not fixed, and no tail where that is kept.
        open_BL: bool `[B, L]`, positions that are still hidden.
        chance_BL: fp64 `[B, L]`, the marginal probability with which each token was drawn.
        logits_BLV: the guided logits of the step, at written positions too; None in a turn after the last step.
        turn: which turn after the last step this is; None while the canvas is first written.
        look: calls the model once more, with these positions hidden (bool `[B, L]`), and returns the guided law there.
    """

    at: Transition
    before: Canvas
    after: Canvas
    eligible_BL: Tensor
    open_BL: Tensor
    chance_BL: Tensor
    randomness: Randomness
    look: Callable[[Tensor], Law]
    logits_BLV: Tensor | None = None
    turn: int | None = None

    def coins(self, step: int) -> Tensor:
        """Return this step's uniforms for hiding, fp64 `[B, L]`."""
        return self.randomness.uniform(step, Purpose.REMASK, self.after.tokens_BL.shape[1])

    @property
    def older_BL(self) -> Tensor:
        """The eligible positions that were written before this step."""
        return self.eligible_BL & (self.before.tokens_BL == self.after.tokens_BL)


@dataclass(frozen=True, kw_only=True)
class Corrector(ABC):
    """Chooses written positions to hide again; immutable.

    `keep_tail` leaves the end of text and the padding as they are, and with them how long the text is.
    """

    keep_tail: bool = True

    @property
    def passes(self) -> int:
        """How many more model calls each `select` makes."""
        return 0

    def transition(self, at: Transition, schedule: Schedule) -> Transition:
        """Return the step as this corrector wants it: how many positions to write, at which noise level."""
        return at

    def revisits(self, at: Transition) -> bool:
        """Whether this step or a later one may hide something, so that a full canvas does not end the run."""
        return False

    def turns(self, length: int) -> int:
        """Return how many turns follow the last step; each hides what `select` says and writes all of it again."""
        return 0

    def ends(self, turn: int, canvas: Canvas) -> bool:
        """Whether neither this turn nor a later one will hide anything in this canvas."""
        return False

    @property
    def compares_rows(self) -> bool:
        """Whether a row depends on the other rows of its batch."""
        return False

    def warmth(self, turn: int, length: int) -> float:
        """Return what the run's temperature is multiplied by in this turn of so many positions."""
        return 1.0

    @abstractmethod
    def select(self, written: Written) -> Tensor:
        """Return the positions to hide, bool `[B, L]`, among the eligible ones."""


def check_range(corrector: Corrector, name: str, value: float, low: float, high: float) -> None:
    """Refuse what is no number of a range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidRequest(f"{type(corrector).__name__}: {name}={value!r} must be a number from {low} to {high}.")


def check_counts(corrector: Corrector, least: int = 1, **counts: int) -> None:
    """Refuse what is no whole number, or less than `least`."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidRequest(
                f"{type(corrector).__name__}: {name}={value!r} must be a whole number, at least {least}."
            )
