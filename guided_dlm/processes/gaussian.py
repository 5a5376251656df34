"""Gaussian diffusion over embeddings: noise is added to vectors, and a step moves them towards the predicted text."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

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

    `solver` is "ddim", or "dpm++2m" (2211.01095, algorithm 2): second order by looking back at the step before, for few
    steps. It solves an ordinary differential equation, so it takes the mean and no fresh noise.
    """

    shifts: ClassVar[bool] = True

    embeddings_VD: Tensor
    schedule: Schedule = sqrt
    clean: str = "draw"
    eta: float = 1.0
    solver: str = "ddim"

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.clean not in ("draw", "mean"):
            raise InvalidRequest(f"clean={self.clean!r} is neither 'draw' nor 'mean'.")
        if not 0 <= self.eta <= 1:
            raise InvalidRequest(f"eta={self.eta} must be between 0 (no fresh noise) and 1 (the ancestral step).")
        if self.solver not in ("ddim", "dpm++2m"):
            raise InvalidRequest(f"solver={self.solver!r} is neither 'ddim' nor 'dpm++2m'.")
        if self.solver == "dpm++2m" and (self.clean != "mean" or self.eta != 0):
            raise InvalidRequest(
                f"solver='dpm++2m' extrapolates the posterior mean and adds no noise; set clean='mean' and eta=0 (got "
                f"clean={self.clean!r}, eta={self.eta})."
            )

    def start(self, canvas: Canvas, randomness: Randomness) -> Canvas:
        """Fill the latents with standard normals."""
        return replace(canvas, latents_BLD=self._normal(canvas, randomness, step=0), previous_BLD=None)

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
        """Take one step of the solver towards the predicted clean embeddings."""
        clean_BLD = self.embeddings_VD[prediction.tokens()] if self.clean == "draw" else self.mean(prediction)
        if prediction.shift_BLD is not None:
            clean_BLD = clean_BLD + prediction.shift_BLD
        if self.solver == "dpm++2m":
            after_BLD = self._dpm_step(canvas, clean_BLD, at)
            return replace(canvas, latents_BLD=after_BLD, previous_BLD=clean_BLD)
        fresh_BLD = self._normal(canvas, prediction.randomness, step=at.index + 1)
        return replace(canvas, latents_BLD=self._ddim_step(canvas, clean_BLD, fresh_BLD, at))

    def mean(self, prediction: Prediction) -> Tensor:
        """Return the mean clean embeddings under the law's marginals, `[B, L, D]`."""
        return prediction.law.marginals().to(self.embeddings_VD.dtype) @ self.embeddings_VD

    def moments(self, canvas: Canvas, clean_BLD: Tensor, at: Transition) -> tuple[Tensor, float]:
        """Return mean `[B, L, D]` and deviation of x_s given x_t and the clean vectors (2010.02502, eq. 12)."""
        abar_t, abar_s = at.alpha_t, at.alpha_s
        noise_BLD = (_latents(canvas) - math.sqrt(abar_t) * clean_BLD) / math.sqrt(1.0 - abar_t)
        ratio = abar_t / abar_s if abar_s > 0 else 1.0
        sigma = self.eta * math.sqrt((1.0 - abar_s) / (1.0 - abar_t)) * math.sqrt(1.0 - ratio)
        kept = math.sqrt(max(0.0, 1.0 - abar_s - sigma**2))
        return math.sqrt(abar_s) * clean_BLD + kept * noise_BLD, sigma

    def _ddim_step(self, canvas: Canvas, clean_BLD: Tensor, fresh_BLD: Tensor, at: Transition) -> Tensor:
        mean_BLD, sigma = self.moments(canvas, clean_BLD, at)
        return mean_BLD + sigma * fresh_BLD

    def _dpm_step(self, canvas: Canvas, clean_BLD: Tensor, at: Transition) -> Tensor:
        """Return the next latents: DDIM without noise, towards a clean text extrapolated along the log-SNR.

        Where the log-SNR is infinite (at the first level or the last) there is nothing to extrapolate along, and the
        step is of first order.
        """
        abar_t, abar_s = at.alpha_t, at.alpha_s
        aim_BLD = clean_BLD
        if canvas.previous_BLD is not None and at.index > 0:
            before = Transition.of(at.index - 1, at.total, self.schedule).alpha_t
            width, last_width = _log_snr(abar_s) - _log_snr(abar_t), _log_snr(abar_t) - _log_snr(before)
            if math.isfinite(width) and 0.0 < last_width < math.inf:
                aim_BLD = clean_BLD + width / (2.0 * last_width) * (clean_BLD - canvas.previous_BLD)
        shrink = math.sqrt((1.0 - abar_s) / (1.0 - abar_t))
        return shrink * _latents(canvas) + (math.sqrt(abar_s) - shrink * math.sqrt(abar_t)) * aim_BLD

    def _normal(self, canvas: Canvas, randomness: Randomness, step: int) -> Tensor:
        rows, length = canvas.tokens_BL.shape
        width = self.embeddings_VD.shape[1]
        return randomness.normal(step, length * width).reshape(rows, length, width).to(self.embeddings_VD.dtype)


def _latents(canvas: Canvas) -> Tensor:
    if canvas.latents_BLD is None:
        raise ValueError("A Gaussian canvas has latents once start() was called.")
    return canvas.latents_BLD


def _log_snr(abar: float) -> float:
    """Return lambda of 2211.01095, log(sqrt(abar) / sqrt(1 - abar)); infinite where there is no noise, or no signal."""
    if abar <= 0.0:
        return -math.inf
    return math.inf if abar >= 1.0 else 0.5 * math.log(abar / (1.0 - abar))


def clean_from_noise(x_BLD: Tensor, noise_BLD: Tensor, abar: float) -> Tensor:
    """Return the clean vectors of a model that predicts the noise eps: (x_t - sqrt(1 - abar) eps) / sqrt(abar).

    Raises:
        InvalidRequest: abar is 0, where the noise says nothing about the clean vectors.
    """
    if abar <= 0.0:
        raise InvalidRequest("At abar=0 there is no signal, so predicted noise tells nothing; start at a lower level.")
    return (x_BLD - math.sqrt(1.0 - abar) * noise_BLD) / math.sqrt(abar)


def clean_from_velocity(x_BLD: Tensor, velocity_BLD: Tensor, abar: float) -> Tensor:
    """Return the clean vectors of a model that predicts v = sqrt(abar) eps - sqrt(1 - abar) x0 (2202.00512, app. D)."""
    return math.sqrt(abar) * x_BLD - math.sqrt(1.0 - abar) * velocity_BLD
