"""Adapter of the project's `LatentTransformer`: Gaussian noise on embeddings."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.denoisers.latent_modeling import LatentTransformer
from guided_dlm.denoisers.modeling import DiffusionTransformer
from guided_dlm.denoisers.transformer import TransformerDenoiser, noise_levels
from guided_dlm.processes import GaussianProcess, Process
from guided_dlm.processes.schedules import schedule


@dataclass(frozen=True, kw_only=True, eq=False)
class SelfConditioning:
    """What is carried from step to step: the last unguided estimate of the clean embeddings, `[B, L, D]`."""

    estimate_BLD: Tensor

    def select(self, row_N: Tensor) -> SelfConditioning:
        """Return these rows, int64 `[N]`."""
        return SelfConditioning(estimate_BLD=self.estimate_BLD[row_N])


class GaussianDenoiser(TransformerDenoiser):
    """A `LatentTransformer` with its vocabulary and its noise; what is given stands in the canvas without noise.

    It steps by the exact ancestral step unless the model's sampling defaults or `stepping` say otherwise.
    """

    undoes = "gaussian"
    model_class: ClassVar[type[DiffusionTransformer]] = LatentTransformer
    model: LatentTransformer
    process: GaussianProcess

    def _process(self) -> Process:
        embeddings_VD = self.model.latent_embeddings().detach()
        noise = schedule(self.model.config.schedule)
        return GaussianProcess(embeddings_VD=embeddings_VD, schedule=noise, clean=self.sampling.clean or "draw")

    def stepping(self, **options: Any) -> Self:
        """Return this denoiser with other steps: `clean=`, `eta=` and `solver=` of `GaussianProcess`."""
        other = copy.copy(self)
        other.process = replace(self.process, **options)
        other.sampling = replace(self.sampling, clean=other.process.clean)
        return other

    @torch.inference_mode()
    def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """Return float32 logits `[B, L, V]` at noise level `t`, and the estimate that the next step reads."""
        return self._look(canvas, t, carry)

    def differentiable(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """Return what a call returns, the logits with their graph back to `canvas.latents_BLD`."""
        with torch.enable_grad():
            logits_BLV, carried = self._look(canvas, t, carry)
        return logits_BLV, replace(carried, estimate_BLD=carried.estimate_BLD.detach())

    def _look(self, canvas: Canvas, t: float, carry: SelfConditioning | None) -> tuple[Tensor, SelfConditioning]:
        if canvas.latents_BLD is None:
            raise ValueError("A Gaussian canvas has latents once start() was called.")
        tokens, visible = self._inputs(canvas)
        prompt = canvas.prompt_BP.shape[1]
        embeddings_VD = self.process.embeddings_VD
        given_BLD, time_BL = embeddings_VD[tokens], noise_levels(canvas, t)
        is_given_BL1 = torch.cat([torch.ones_like(canvas.visible_BP), canvas.fixed_BL], dim=1)[..., None]
        latents_BLD = torch.nn.functional.pad(canvas.latents_BLD.float(), (0, 0, prompt, 0))
        estimate_BLD = torch.zeros_like(latents_BLD)
        if carry is not None:
            estimate_BLD = torch.nn.functional.pad(carry.estimate_BLD, (0, 0, prompt, 0))
        abar_B = torch.full((len(tokens),), self.process.schedule(t), device=tokens.device)
        logits_BLV = self.model(
            latents_BLD=torch.where(is_given_BL1, given_BLD, latents_BLD),
            estimate_BLD=torch.where(is_given_BL1, given_BLD, estimate_BLD),
            time_BL=time_BL,
            abar_B=abar_B,
            attention_mask=visible,
        ).logits
        logits_BLV = self._of_completion(logits_BLV, canvas)
        return logits_BLV, SelfConditioning(estimate_BLD=logits_BLV.softmax(-1) @ embeddings_VD)
