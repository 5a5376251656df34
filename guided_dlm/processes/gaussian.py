"""Gaussian diffusion over embeddings: noise is added to vectors, and a step moves them towards the predicted text."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes.base import Prediction, Process, Select, Transition
from guided_dlm.processes.schedules import Schedule, sqrt
from guided_dlm.randomness import Randomness


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianProcess(Process):
    """Variance-preserving noise on embeddings `[V, D]` (2205.14217); `schedule` gives abar, the signal's variance.

    `clean` says what a step moves towards: "draw", the embedding of a joint draw (with eta = 1 the exact ancestral
    step), or "mean", the posterior-mean embedding under the constrained marginals (smoother, exact per step as well).
    `eta` is the share of fresh noise of 2010.02502, eq. 16.
    """

    embeddings_VD: Tensor
    schedule: Schedule = sqrt
    clean: str = "draw"
    eta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.clean not in ("draw", "mean"):
            raise InvalidRequest(f"clean={self.clean!r} is neither 'draw' nor 'mean'.")
        if not 0 <= self.eta <= 1:
            raise InvalidRequest(f"eta={self.eta} must be between 0 (no fresh noise) and 1 (the ancestral step).")

    def start(self, canvas: Canvas, randomness: Randomness) -> Canvas:
        """Fill the latents with standard normals."""
        return replace(canvas, latents_BLD=self._normal(canvas, randomness, step=0))

    def known(self, canvas: Canvas) -> Tensor:
        """Only what was given is certain."""
        return canvas.given_BL()

    def log_likelihood(self, canvas: Canvas, t: float, size: int) -> Tensor:
        """Return log N(x_t; sqrt(abar) Emb(v), (1 - abar) I), without its constant; fixed positions are certain."""
        abar = self.schedule(t)
        x_BLD = _latents(canvas)
        distance_BLV = (x_BLD[:, :, None] - math.sqrt(abar) * self.embeddings_VD).square().sum(-1)
        noisy_BLV = -distance_BLV / (2.0 * (1.0 - abar))
        same_BLV = canvas.tokens_BL[..., None] == torch.arange(size, device=x_BLD.device)
        certain_BLV = torch.where(same_BLV, 0.0, -torch.inf).double()
        return torch.where(canvas.fixed_BL[..., None], certain_BLV, noisy_BLV)

    def step(self, canvas: Canvas, prediction: Prediction, at: Transition, select: Select) -> Canvas:
        """Take one DDIM step towards the predicted clean embeddings."""
        if self.clean == "draw":
            clean_BLD = self.embeddings_VD[prediction.tokens()]
        else:
            clean_BLD = prediction.law.marginals().to(self.embeddings_VD.dtype) @ self.embeddings_VD
        abar_t, abar_s = at.alpha_t, at.alpha_s
        noise_BLD = (_latents(canvas) - math.sqrt(abar_t) * clean_BLD) / math.sqrt(1.0 - abar_t)
        ratio = abar_t / abar_s if abar_s > 0 else 1.0
        sigma = self.eta * math.sqrt((1.0 - abar_s) / (1.0 - abar_t)) * math.sqrt(1.0 - ratio)
        fresh_BLD = self._normal(canvas, prediction.randomness, step=at.index + 1)
        kept = math.sqrt(max(0.0, 1.0 - abar_s - sigma**2))
        return replace(canvas, latents_BLD=math.sqrt(abar_s) * clean_BLD + kept * noise_BLD + sigma * fresh_BLD)

    def _normal(self, canvas: Canvas, randomness: Randomness, step: int) -> Tensor:
        rows, length = canvas.tokens_BL.shape
        width = self.embeddings_VD.shape[1]
        return randomness.normal(step, length * width).reshape(rows, length, width).to(self.embeddings_VD.dtype)


def _latents(canvas: Canvas) -> Tensor:
    if canvas.latents_BLD is None:
        raise ValueError("A Gaussian canvas has latents once start() was called.")
    return canvas.latents_BLD
