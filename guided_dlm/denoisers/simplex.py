"""Adapter of the project's `SimplexTransformer`: noise on almost-one-hot logits over the vocabulary."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.denoisers.modeling import DiffusionTransformer
from guided_dlm.denoisers.simplex_modeling import SimplexTransformer
from guided_dlm.denoisers.transformer import TransformerDenoiser, noise_levels
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes import Process, SimplexProcess
from guided_dlm.processes.schedules import schedule
from guided_dlm.vocabulary import Vocabulary


class SimplexDenoiser(TransformerDenoiser):
    """A `SimplexTransformer` with its vocabulary and its noise; what is given stands in the canvas without noise.

    It steps by the exact ancestral step unless `stepping` says otherwise: `stepping(solver="renoise")` is the decoding
    of SSD-LM (2210.17432, sec. 3.2). A model that was trained on blocks writes blocks, each after all before it.
    """

    undoes = "simplex"
    model_class: ClassVar[type[DiffusionTransformer]] = SimplexTransformer
    model: SimplexTransformer
    process: SimplexProcess

    def __init__(self, model: SimplexTransformer, vocabulary: Vocabulary) -> None:
        """Take a model in evaluation mode; raises as `TransformerDenoiser` does."""
        super().__init__(model, vocabulary)
        self.block_length = model.config.block_length

    def _process(self) -> Process:
        config = self.model.config
        return SimplexProcess(
            size=config.vocab_size,
            scale=config.simplex_scale,
            schedule=schedule(config.schedule),
            dtype=torch.float32,
        )

    def stepping(self, **options: Any) -> Self:
        """Return this denoiser with other steps: `solver=`, `clean=` and `eta=` of `SimplexProcess`."""
        other = copy.copy(self)
        other.process = replace(self.process, **options)
        return other

    @torch.inference_mode()
    def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """Return float32 logits `[B, L, V]` at noise level `t`; nothing is carried.

        Raises:
            InvalidRequest: the canvas is longer than the blocks that the model was trained on.
        """
        if canvas.latents_BLD is None:
            raise ValueError("A simplex canvas has latents once start() was called.")
        width = canvas.tokens_BL.shape[1]
        if self.block_length is not None and width > self.block_length:
            raise InvalidRequest(
                f"This model writes blocks of {self.block_length} tokens, and was asked for {width} at once; leave out "
                f"block_length, or give at most {self.block_length}."
            )
        tokens, visible = self._inputs(canvas)
        prompt = canvas.prompt_BP.shape[1]
        logits_BLV = self.model(
            latents_BLV=torch.nn.functional.pad(canvas.latents_BLD.float(), (0, 0, prompt, 0)),
            tokens_BL=tokens,
            time_BL=noise_levels(canvas, t),
            attention_mask=visible,
        ).logits
        return self._of_completion(logits_BLV, canvas), None
