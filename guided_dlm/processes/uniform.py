"""Uniform diffusion: noise replaces a token by a random one; every position stays revisable until the end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes.base import Prediction, Process, Select, Transition
from guided_dlm.processes.schedules import Schedule, linear
from guided_dlm.randomness import Purpose, Randomness


@dataclass(frozen=True, kw_only=True)
class UniformProcess(Process):
    """The uniform process of 2412.10193 over a vocabulary of `size` tokens.

    Noise draws one of `token_ids`, by default of all: a mask or another special that no text holds need not be among
    them. N is their number.
    """

    size: int
    schedule: Schedule = linear
    token_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a noise that has no tokens to draw, or draws what is no token."""
        ids = self.token_ids
        if ids is not None and (not ids or len(set(ids)) < len(ids) or min(ids) < 0 or max(ids) >= self.size):
            raise InvalidRequest(
                f"token_ids of uniform noise must be distinct ids of the {self.size} tokens, at least one; got "
                f"{len(ids)} ids{f' from {min(ids)} to {max(ids)}' if ids else ''}."
            )

    @cached_property
    def noise_ids(self) -> Tensor:
        """The tokens that noise draws, int64 `[N]`."""
        return torch.arange(self.size) if self.token_ids is None else torch.tensor(self.token_ids)

    def start(self, canvas: Canvas, randomness: Randomness) -> Canvas:
        """Put a uniformly random token everywhere but at fixed positions."""
        uniform_BL = randomness.uniform(0, Purpose.START, canvas.tokens_BL.shape[1])
        return canvas.write(self.noise(uniform_BL), ~canvas.fixed_BL)

    def noise(self, uniform: Tensor) -> Tensor:
        """Return the tokens that noise draws for uniform numbers in [0, 1)."""
        place = (uniform * len(self.noise_ids)).long().clamp_max(len(self.noise_ids) - 1)
        return self.noise_ids.to(uniform.device)[place]

    def known(self, canvas: Canvas) -> Tensor:
        """Only what was given is certain."""
        return canvas.given_BL()

    def log_likelihood(self, canvas: Canvas, t: float, size: int) -> Tensor:
        """Return log(alpha [z = v] + (1 - alpha) / N); fixed positions are certain."""
        alpha = self.schedule(t)
        same_BLV = canvas.tokens_BL[..., None] == torch.arange(size, device=canvas.tokens_BL.device)
        noisy_BLV = alpha * same_BLV.double() + (1.0 - alpha) / len(self.noise_ids)
        return torch.where(canvas.fixed_BL[..., None], same_BLV.double(), noisy_BLV).log()

    def log_odds(self, alpha: float | Tensor) -> Tensor:
        """Return log q(z | v = z) - log q(z | v != z): by how much a token speaks for itself. Infinite at alpha = 1.

        Added to a position's logits at the token that stands there, it is `log_likelihood` up to a constant.
        """
        alpha = torch.as_tensor(alpha, dtype=torch.float64)
        return torch.log1p(len(self.noise_ids) * alpha / (1.0 - alpha))

    def transition(self, noisy_BL: Tensor, clean_BL: Tensor, at: Transition) -> Tensor:
        """Return q(z_s = v | z_t, x0), fp64 `[B, L, V]`, for one-hot x0 (2412.10193, eq. 13)."""
        x_BLV = torch.nn.functional.one_hot(clean_BL, self.size).double()
        return self.reverse(noisy_BL, x_BLV, at.alpha_t, at.alpha_s)

    def reverse(self, noisy_BL: Tensor, clean_BLV: Tensor, alpha_t: float | Tensor, alpha_s: float | Tensor) -> Tensor:
        """Return sum_v p(v) q(z_s | z_t, x0 = v) `[B, L, V]` for full posteriors p(x0_l | z_t) `[B, L, V]`.

        The alphas are numbers, or tensors that broadcast to `[B, L, 1]`.
        """
        N, ratio = len(self.noise_ids), alpha_t / alpha_s
        drawn_V = torch.zeros(self.size, dtype=clean_BLV.dtype, device=clean_BLV.device)
        drawn_V[self.noise_ids.to(drawn_V.device)] = 1.0
        stays_BL1 = clean_BLV.gather(-1, noisy_BL[..., None])
        drawn_BL1 = drawn_V[noisy_BL][..., None]
        other, same = 1.0 - alpha_t, N * alpha_t + 1.0 - alpha_t  # the normalisers where v is not, and is, z_t
        weight_BL1 = (1.0 - stays_BL1) / other + stays_BL1 / same
        law_BLV = (alpha_s - alpha_t) * clean_BLV / other + (1.0 - ratio) * (1.0 - alpha_s) / N * drawn_V * weight_BL1
        here_BL1 = ((N * alpha_t + alpha_s - alpha_t) / same - (alpha_s - alpha_t) / other) * stays_BL1 + (
            ratio - alpha_t
        ) * drawn_BL1 * weight_BL1
        return law_BLV.scatter_add(-1, noisy_BL[..., None], here_BL1.expand_as(stays_BL1))

    def step(self, canvas: Canvas, prediction: Prediction, at: Transition, select: Select) -> Canvas:
        """Draw the clean text jointly, then the canvas between it and the noise.

        `transition` is a mixture of z_t, of x0 and of noise; it is drawn as one, without a table over the vocabulary.
        """
        noisy_BL, clean_BL = canvas.tokens_BL, prediction.tokens()
        N, alpha_t, alpha_s = len(self.noise_ids), at.alpha_t, at.alpha_s
        ratio = alpha_t / alpha_s
        uniform_BL = prediction.randomness.uniform(at.index, Purpose.TRANSITION, noisy_BL.shape[1])
        both_BL = N * alpha_t * (noisy_BL == clean_BL)
        left_BL = uniform_BL * (both_BL + 1.0 - alpha_t)
        stays_BL = both_BL + ratio - alpha_t
        clears_BL = stays_BL + alpha_s - alpha_t
        noise = (1.0 - ratio) * (1.0 - alpha_s)
        written_BL = clean_BL
        if noise > 0.0:
            fresh_BL = self.noise(((left_BL - clears_BL) / noise).clamp(0.0, 1.0))
            written_BL = torch.where(left_BL < clears_BL, clean_BL, fresh_BL)
        return canvas.write(torch.where(left_BL < stays_BL, noisy_BL, written_BL), ~canvas.fixed_BL)
