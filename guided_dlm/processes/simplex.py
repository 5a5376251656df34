"""Diffusion on the simplex: Gaussian noise on almost-one-hot logits over the whole vocabulary (SSD-LM, 2210.17432)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes.base import Prediction, Select, Transition
from guided_dlm.processes.gaussian import GaussianProcess
from guided_dlm.processes.schedules import Schedule, cosine_squared
from guided_dlm.randomness import Randomness


@dataclass(frozen=True, kw_only=True, eq=False)
class SimplexProcess(GaussianProcess):
    """Noise on logits `[V]` that are K at the token and -K elsewhere (2210.17432, sec. 3.1); V = `size`, K = `scale`.

    w_t = sqrt(abar) w_0 + sqrt(1 - abar) K eps with standard normal eps. In units of K that is a `GaussianProcess`
    whose embeddings are the rows of 2 I - 1, and it takes the same steps; but no table of V by V is ever made. The
    canvas's latents are w_t, so D = V, in `dtype`. K cancels from every law; only a net that reads w_t sees it.

    `solver` may also be "renoise", the paper's own step (sec. 3.2): embed the joint draw, or at temperature 0 the mode,
    and noise it afresh to the next level. The default draws from q(w_s | w_t, w_0), the exact ancestral step. Either
    keeps q(w_t) exact where the draw is; the ancestral step is also the reverse of the forward process.
    """

    shifts: ClassVar[bool] = False  # latent guidance would need the table, and its formulas other units

    embeddings_VD: Tensor = field(init=False, repr=False)  # never made; whoever asks for it gets an AttributeError
    size: int
    scale: float = 5.0
    schedule: Schedule = cosine_squared
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise InvalidRequest(f"size={self.size} must be the number of tokens, at least 1.")
        if not isinstance(self.scale, int | float) or not 0 < self.scale < math.inf:
            raise InvalidRequest(f"scale={self.scale} is K of the almost-one-hot logits; give a positive number.")
        if self.solver not in ("ddim", "dpm++2m", "renoise"):
            raise InvalidRequest(f"solver={self.solver!r} is none of 'ddim', 'dpm++2m' and 'renoise'.")
        if self.solver != "renoise":
            super().__post_init__()
            return
        if self.clean != "draw" or self.eta != 1:
            raise InvalidRequest(
                f"solver='renoise' embeds a draw of the text and all its noise is fresh; leave out clean and eta (got "
                f"clean={self.clean!r}, eta={self.eta})."
            )

    def log_likelihood(self, canvas: Canvas, t: float, size: int) -> Tensor:
        """Return log N(w_t; sqrt(abar) w_0(v), (1 - abar) K^2 I), fp64, up to a constant; fixed positions are certain.

        All w_0(v) have one norm and differ in one coordinate: it is 2 sqrt(abar) / ((1 - abar) K) w_t[v].
        """
        abar = self.schedule(t)
        noisy_BLV = 2.0 * math.sqrt(abar) / ((1.0 - abar) * self.scale) * _latents(canvas).double()
        same_BLV = canvas.tokens_BL[..., None] == torch.arange(size, device=noisy_BLV.device)
        certain_BLV = torch.where(same_BLV, 0.0, -torch.inf).double()
        return torch.where(canvas.fixed_BL[..., None], certain_BLV, noisy_BLV)

    def step(self, canvas: Canvas, prediction: Prediction, at: Transition, select: Select) -> Canvas:
        """Take one step of the solver towards the predicted almost-one-hot logits."""
        if self.clean == "draw":
            clean_BLV = almost_one_hot(prediction.tokens(), self.size, self.scale).to(self.dtype)
        else:
            clean_BLV = self.mean(prediction)
        if self.solver == "dpm++2m":
            return replace(canvas, latents_BLD=self._dpm_step(canvas, clean_BLV, at), previous_BLD=clean_BLV)
        fresh_BLV = self._normal(canvas, prediction.randomness, step=at.index + 1)
        if self.solver == "renoise":
            after_BLV = math.sqrt(at.alpha_s) * clean_BLV + math.sqrt(1.0 - at.alpha_s) * fresh_BLV
        else:
            after_BLV = self._ddim_step(canvas, clean_BLV, fresh_BLV, at)
        return replace(canvas, latents_BLD=after_BLV)

    def mean(self, prediction: Prediction) -> Tensor:
        """Return the mean almost-one-hot logits under the law's marginals, `[B, L, V]`."""
        return self.scale * (2.0 * prediction.law.marginals().to(self.dtype) - 1.0)

    def _normal(self, canvas: Canvas, randomness: Randomness, step: int) -> Tensor:
        """Return K eps, `[B, L, V]`."""
        rows, length = canvas.tokens_BL.shape
        normal_BLV = randomness.normal(step, length * self.size).reshape(rows, length, self.size)
        return (self.scale * normal_BLV).to(self.dtype)


def almost_one_hot(tokens_BL: Tensor, size: int, scale: float) -> Tensor:
    """Return w_0, float32 `[B, L, V]`: K = `scale` at the token and -K elsewhere (2210.17432, sec. 3.1)."""
    logits_BLV = torch.full((*tokens_BL.shape, size), -scale, device=tokens_BL.device)
    return logits_BLV.scatter(-1, tokens_BL[..., None], scale)


def _latents(canvas: Canvas) -> Tensor:
    if canvas.latents_BLD is None:
        raise ValueError("A simplex canvas has latents once start() was called.")
    return canvas.latents_BLD
