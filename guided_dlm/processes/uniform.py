"""Uniform diffusion: noise replaces a token by a random one; every position stays revisable until the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.posterior.chain import inverse_cdf
from guided_dlm.processes.base import Prediction, Process, Select, Transition
from guided_dlm.processes.schedules import Schedule, linear
from guided_dlm.randomness import Purpose, Randomness


@dataclass(frozen=True, kw_only=True)
class UniformProcess(Process):
    """The uniform process of 2412.10193 over a vocabulary of `size` tokens."""

    size: int
    schedule: Schedule = linear

    def start(self, canvas: Canvas, randomness: Randomness) -> Canvas:
        """Put a uniformly random token everywhere but at fixed positions."""
        uniform_BL = randomness.uniform(0, Purpose.START, canvas.tokens_BL.shape[1])
        return canvas.write((uniform_BL * self.size).long(), ~canvas.fixed_BL)

    def known(self, canvas: Canvas) -> Tensor:
        """Only what was given is certain."""
        return canvas.given_BL()

    def log_likelihood(self, canvas: Canvas, t: float, size: int) -> Tensor:
        """Return log(alpha [z = v] + (1 - alpha) / N); fixed positions are certain."""
        alpha = self.schedule(t)
        same_BLV = canvas.tokens_BL[..., None] == torch.arange(size, device=canvas.tokens_BL.device)
        noisy_BLV = alpha * same_BLV.double() + (1.0 - alpha) / self.size
        return torch.where(canvas.fixed_BL[..., None], same_BLV.double(), noisy_BLV).log()

    def transition(self, noisy_BL: Tensor, clean_BL: Tensor, at: Transition) -> Tensor:
        """Return q(z_s = v | z_t, x0) `[B, L, V]` for one-hot x0 (2412.10193, eq. 13)."""
        N, alpha_t, alpha_s = self.size, at.alpha_t, at.alpha_s
        ratio = alpha_t / alpha_s
        z_BLV = torch.nn.functional.one_hot(noisy_BL, N).double()
        x_BLV = torch.nn.functional.one_hot(clean_BL, N).double()
        numerator = (
            N * alpha_t * z_BLV * x_BLV
            + (ratio - alpha_t) * z_BLV
            + (alpha_s - alpha_t) * x_BLV
            + (1.0 - ratio) * (1.0 - alpha_s) / N
        )
        same_BL1 = (noisy_BL == clean_BL)[..., None].double()
        return numerator / (N * alpha_t * same_BL1 + 1.0 - alpha_t)

    def step(self, canvas: Canvas, prediction: Prediction, at: Transition, select: Select) -> Canvas:
        """Draw the clean text jointly, then the canvas between it and the noise."""
        law_BLV = self.transition(canvas.tokens_BL, prediction.tokens(), at)
        uniform_BL = prediction.randomness.uniform(at.index, Purpose.TRANSITION, canvas.tokens_BL.shape[1])
        return canvas.write(inverse_cdf(law_BLV, uniform_BL)[..., 0], ~canvas.fixed_BL)
