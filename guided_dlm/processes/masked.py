"""Masked (absorbing) diffusion: noise hides a token, a step writes some of the hidden ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.processes.base import Prediction, Process, Select, Transition
from guided_dlm.processes.schedules import Schedule, linear
from guided_dlm.randomness import Randomness


@dataclass(frozen=True, kw_only=True)
class MaskedProcess(Process):
    """The absorbing process of 2406.07524; written positions are copied, which ones to write is the rule's business."""

    mask_id: int
    schedule: Schedule = linear
    selects = True

    def start(self, canvas: Canvas, randomness: Randomness) -> Canvas:
        """Hide everything that is not fixed."""
        return canvas.write(torch.full_like(canvas.tokens_BL, self.mask_id), ~canvas.fixed_BL)

    def known(self, canvas: Canvas) -> Tensor:
        """Return the written tokens, -1 at the mask."""
        return canvas.tokens_BL.masked_fill(canvas.tokens_BL == self.mask_id, -1)

    def hide(self, canvas: Canvas, where_BL: Tensor) -> Canvas:
        """Put the mask back at these positions, never at fixed ones."""
        return canvas.write(torch.full_like(canvas.tokens_BL, self.mask_id), where_BL)

    def log_likelihood(self, canvas: Canvas, t: float, size: int) -> Tensor:
        """Return 0 for every clean token under a mask; elsewhere 0 for the token that stands there, -inf for others."""
        hidden_BL1 = (canvas.tokens_BL == self.mask_id)[..., None]
        same_BLV = canvas.tokens_BL[..., None] == torch.arange(size, device=canvas.tokens_BL.device)
        return torch.where(hidden_BL1 | same_BLV, 0.0, -torch.inf).double()

    def step(self, canvas: Canvas, prediction: Prediction, at: Transition, select: Select) -> Canvas:
        """Write the selected positions from one joint draw."""
        chosen_BL = select(prediction, at) & prediction.law.open_BL
        return canvas.write(prediction.tokens(chosen_BL), chosen_BL)
