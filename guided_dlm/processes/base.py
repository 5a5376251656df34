"""What a corruption process must say: its noise, its transition, and how likely the canvas is given clean tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.errors import InvalidRequest
from guided_dlm.posterior import Factors, Posterior
from guided_dlm.processes.schedules import Schedule
from guided_dlm.randomness import Purpose, Randomness


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One step from noise level `t` down to `s`, step `index` of `total`.

    `unmask` is the probability that a noisy position becomes clean where that is not the process's own: a corrector
    that hides written positions makes up for them.
    """

    index: int
    total: int
    t: float
    s: float
    alpha_t: float
    alpha_s: float
    unmask: float | None = None

    @classmethod
    def of(cls, index: int, total: int, schedule: Schedule) -> Transition:
        """Return step `index` of `total` equal steps in t."""
        t, s = 1.0 - index / total, 1.0 - (index + 1) / total
        return cls(index=index, total=total, t=t, s=s, alpha_t=schedule(t), alpha_s=schedule(s))

    @property
    def last(self) -> bool:
        """Whether the canvas must be clean after this step."""
        return self.index == self.total - 1

    @property
    def whole(self) -> bool:
        """Whether every open position is written in this step."""
        return self.last or self.unmask == 1.0

    @property
    def share(self) -> float:
        """The probability that a noisy position becomes clean in this step (2406.07524, eq. 7)."""
        if self.last:
            return 1.0
        return (self.alpha_s - self.alpha_t) / (1.0 - self.alpha_t) if self.unmask is None else self.unmask


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What the guided model believes about the clean text at one step, and the step's own randomness.

    `shift_BLD` is what latent guidance adds to the clean vectors that a step moves towards. `choice` draws the clean
    text in place of one plain draw.
    """

    law: Factors | Posterior
    randomness: Randomness
    step: int
    greedy: bool = False
    pad_id: int | None = None
    log_scale_B: Tensor | None = None
    shift_BLD: Tensor | None = None
    choice: Callable[[Prediction], Tensor] | None = None

    @property
    def log_z(self) -> Tensor:
        """Log-probability `[B]` that a text drawn from the factors satisfies the automaton, fp64; 0 without one.

        Under a weighted automaton it is the log of the expected weight.

        While a model's text has no end yet, the text is drawn position by position as far as it goes
        (`Ending.sequential`), so that any text at all has probability 1.
        """
        if isinstance(self.law, Factors):
            return torch.zeros(len(self.law.known_BL), dtype=torch.float64, device=self.law.known_BL.device)
        return self.law.log_z if self.log_scale_B is None else self.law.log_z + self.log_scale_B

    def tokens(self, where_BL: Tensor | None = None) -> Tensor:
        """Return one joint draw (or the mode) `[B, L]`; what stands at open positions not asked for means nothing.

        Repeated calls at one step read the same draw, so what they write fits together.
        """
        there = "_whole" in self.__dict__  # a draw that is there costs nothing
        whole = where_BL is None or self.greedy or self.choice is not None or there
        return self._whole if whole else self.draw(self.randomness, where_BL)

    @cached_property
    def _whole(self) -> Tensor:
        if self.greedy:
            return self.law.mode()
        return self.draw(self.randomness) if self.choice is None else self.choice(self)

    def draw(self, randomness: Randomness, where_BL: Tensor | None = None) -> Tensor:
        """Return a joint draw `[B, L]` with this randomness."""
        width = self.law.known_BL.shape[1]
        path_BL = randomness.uniform(self.step, Purpose.PATH, width)
        token_BL = randomness.uniform(self.step, Purpose.TOKEN, width)
        return self.law.draw(path_BL, token_BL, where_BL)


Select = Callable[[Prediction, Transition], Tensor]


class Process(ABC):
    """A corruption process; immutable. `schedule` maps t to alpha."""

    schedule: Schedule
    selects: bool = False  # whether `step` asks a commit rule which positions to write
    shifts: ClassVar[bool] = False  # whether `step` adds `Prediction.shift_BLD`, so that its latents can be guided

    @abstractmethod
    def start(self, canvas: Canvas, randomness: Randomness) -> Canvas:
        """Return the canvas at t = 1: pure noise where nothing is fixed."""

    @abstractmethod
    def known(self, canvas: Canvas) -> Tensor:
        """Return the tokens that are already clean `[B, L]`, -1 where the model still has to say."""

    @abstractmethod
    def log_likelihood(self, canvas: Canvas, t: float, size: int) -> Tensor:
        """Return log q(canvas position | clean token v) `[B, L, V]`, up to a constant, V = `size`."""

    @abstractmethod
    def step(self, canvas: Canvas, prediction: Prediction, at: Transition, select: Select) -> Canvas:
        """Return the next canvas, at noise level `at.s`."""

    def hide(self, canvas: Canvas, where_BL: Tensor) -> Canvas:
        """Return the canvas with these positions unknown again, never fixed ones.

        Raises:
            InvalidRequest: this process knows no such canvas; only masked diffusion does.
        """
        raise InvalidRequest(f"{type(self).__name__} has no mask to hide a written position with; leave out corrector.")
