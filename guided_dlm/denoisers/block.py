"""Adapter of the project's `BlockTransformer`: masked diffusion inside a block, a cache for what stands before it."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.denoisers.block_modeling import BlockTransformer
from guided_dlm.denoisers.modeling import DiffusionTransformer
from guided_dlm.denoisers.transformer import TransformerDenoiser
from guided_dlm.errors import InvalidRequest
from guided_dlm.randomness import Randomness
from guided_dlm.vocabulary import Vocabulary


class BlockDenoiser(TransformerDenoiser):
    """A `BlockTransformer` that fills the masks of one block; the canvas's prompt is all that was written before it.

    It carries a `PrefixCache`: the prompt's keys and values are computed once for a block, and for the next block only
    those of the tokens that were written since.
    """

    undoes = "block"
    model_class: ClassVar[type[DiffusionTransformer]] = BlockTransformer
    model: BlockTransformer

    def __init__(self, model: BlockTransformer, vocabulary: Vocabulary) -> None:
        """Take a model in evaluation mode; raises as `TransformerDenoiser` does."""
        super().__init__(model, vocabulary)
        self.block_length = model.config.block_length

    @cached_property
    def prior_V(self) -> Tensor:
        """The mean law of a text token over the positions of the first block, fp64 `[V]`; a tenth of it is flat.

        It is one model call on an empty canvas, made when it is first asked for.
        """
        assert self.block_length is not None and self.vocabulary.mask_id is not None  # __init__ looked
        blank = Canvas.from_prompts([None], self.vocabulary, self.block_length, self.device)
        blank = self.process.start(blank, Randomness(torch.zeros(1, dtype=torch.int64, device=self.device)))
        text_V = torch.from_numpy(self.vocabulary.writable).to(self.device)
        for token in (self.vocabulary.eos_id, self.vocabulary.pad_id):
            if token is not None:
                text_V = text_V & (torch.arange(len(text_V), device=self.device) != token)
        mean_V = self(blank, 1.0)[0][0].double().softmax(-1).mean(0) * text_V
        return 0.9 * mean_V / mean_V.sum() + 0.1 * text_V / text_V.sum()

    @torch.inference_mode()
    def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """Return float32 logits `[B, L, V]` of a block, and the cache of its prompt; the model needs no time.

        Raises:
            InvalidRequest: the canvas is longer than the blocks that the model was trained on.
        """
        width = canvas.tokens_BL.shape[1]
        if self.block_length is not None and width > self.block_length:
            raise InvalidRequest(
                f"This model writes blocks of {self.block_length} tokens, and was asked for {width} at once; leave out "
                f"block_length, or give at most {self.block_length}."
            )
        cache = self.model.extend(carry, canvas.prompt_BP, canvas.visible_BP)
        logits_BLV = self.model.predict_block(cache, canvas.tokens_BL)
        return logits_BLV.float().index_fill(-1, self._dead, -torch.inf), cache
