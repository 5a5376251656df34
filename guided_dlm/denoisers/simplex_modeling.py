"""The project's transformer for noise on the simplex: it reads noisy logits over the vocabulary, predicts tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel
from transformers.modeling_outputs import MaskedLMOutput

from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig


class SimplexTransformerConfig(DiffusionTransformerConfig):
    """A `DiffusionTransformerConfig` with `simplex_scale`, K of the almost-one-hot logits (5 in 2210.17432, sec. 4.1).

    `block_length` is how many tokens the model was trained to write at a time, after a clean context; None for whole
    canvases.
    """

    model_type = "guided_dlm_simplex_transformer"

    def __init__(
        self,
        simplex_scale: float = 5.0,
        block_length: int | None = None,
        process: str = "simplex",
        schedule: str = "cosine_squared",
        time_features: int = 64,
        **kwargs: Any,
    ) -> None:
        """Record the sizes; see the class docstring."""
        self.simplex_scale = simplex_scale
        self.block_length = block_length
        super().__init__(process=process, schedule=schedule, time_features=time_features, **kwargs)


class SimplexTransformer(DiffusionTransformer):
    """Predicts every token of a canvas from noisy logits of all of them; it has no weights beyond those of its base.

    A noisy position is read as softmax(w_t) times the embedding table, plus the embedded time, and the net says the
    full posterior p(x0_l | w_t) itself (2210.17432, sec. 3.1). It is not given the likelihood of a position's noise,
    as a `LatentTransformer` is: briefly trained on few texts, nets that were had a lower loss and wrote worse.
    """

    config_class = SimplexTransformerConfig  # type: ignore[assignment]
    config: SimplexTransformerConfig

    def forward(  # type: ignore[override]
        self,
        latents_BLV: Tensor,
        tokens_BL: Tensor,
        time_BL: Tensor,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """Return `logits` `[B, L, V]` of the full posterior p(x0_l | w_t).

        Args:
            latents_BLV: w_t; what stands at given positions means nothing.
            tokens_BL: int64, the tokens at given positions; what stands at others means nothing.
            time_BL: noise level of each position, 0 at what is given.
            attention_mask: `[B, L]`, 0 at left padding and at what is beyond the text so far.
        """
        soft_BLD = latents_BLV.float().softmax(-1).to(self.embedding.weight.dtype) @ self.embedding.weight
        read_BLD = torch.where((time_BL > 0)[..., None], soft_BLD, self.embedding(tokens_BL))
        return MaskedLMOutput(logits=self.read(self.trunk(read_BLD, attention_mask, time_BL)).float())


AutoConfig.register(SimplexTransformerConfig.model_type, SimplexTransformerConfig, exist_ok=True)
AutoModel.register(SimplexTransformerConfig, SimplexTransformer, exist_ok=True)
