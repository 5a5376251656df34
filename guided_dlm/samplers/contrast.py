"""What classifier-free guidance contrasts a model with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import Denoiser


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrast:
    """Classifier-free guidance: what stands in for the condition, and how far to go from it (2507.08965).

    `denoiser` answers without the condition: the model itself, or a second one. `prompt_BP` and `visible_BP` take the
    place of the canvas's prompt. `scale` maps progress in [0, 1) to gamma; 1 is the conditional model, and 0 the other.
    """

    denoiser: Denoiser
    scale: Callable[[float], float]
    prompt_BP: Tensor
    visible_BP: Tensor

    def unconditional(self, canvas: Canvas) -> Canvas:
        """Return the canvas with its condition taken away."""
        return replace(canvas, prompt_BP=self.prompt_BP, visible_BP=self.visible_BP)

    def select(self, row_N: Tensor) -> Contrast:
        """Return the contrast of these rows, int64 `[N]`."""
        return replace(self, prompt_BP=self.prompt_BP[row_N], visible_BP=self.visible_BP[row_N])

    def after(self, written_BL: Tensor) -> Contrast:
        """Return the contrast for the block after these tokens: they are no condition, so both halves see them."""
        seen_BL = torch.ones_like(written_BL, dtype=torch.bool)
        prompt_BP = torch.cat([self.prompt_BP, written_BL], dim=1)
        return replace(self, prompt_BP=prompt_BP, visible_BP=torch.cat([self.visible_BP, seen_BL], dim=1))
