"""The project's transformer for Gaussian noise on embeddings: it reads vectors and predicts tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.modeling_outputs import MaskedLMOutput

from guided_dlm.denoisers.layers import ZeroLinear
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig

GIVEN_SCALE = 10.0  # the sharpness of a given token's likelihood; that of noise with abar = 0.9


class LatentTransformerConfig(DiffusionTransformerConfig):
    """A `DiffusionTransformerConfig` with `embedding_size`, the width of the vectors that carry the noise."""

    model_type = "guided_dlm_latent_transformer"

    def __init__(
        self,
        embedding_size: int = 16,
        process: str = "gaussian",
        schedule: str = "sqrt",
        time_features: int = 64,
        **kwargs: Any,
    ) -> None:
        """Record the sizes; see the class docstring."""
        self.embedding_size = embedding_size
        super().__init__(process=process, schedule=schedule, time_features=time_features, **kwargs)


class LatentTransformer(DiffusionTransformer):
    """Predicts every token of a canvas from noisy embeddings of all of them.

    The noisy embeddings are a learned projection of the rounding head's own rows, normalised (2211.15089, sec. 3.2): so
    head and embeddings are tied, and no loss gets smaller by making the embeddings longer. The net reads a soft token,
    the mean row of the table under what the noisy vector alone says, so that it begins as a model of tokens; beside it
    the noisy vector, and its own last estimate of the clean one (self-conditioning, 2208.04202).
    """

    config_class = LatentTransformerConfig  # type: ignore[assignment]
    config: LatentTransformerConfig

    def __init__(self, config: LatentTransformerConfig) -> None:
        """Make the layers; the trunk is that of `DiffusionTransformer`, so that its weights are a valid start."""
        super().__init__(config)
        self.to_latent = nn.Linear(config.hidden_size, config.embedding_size, bias=False)
        self.from_latent = ZeroLinear(2 * config.embedding_size, config.hidden_size, bias=False)
        self.post_init()

    def latent_embeddings(self) -> Tensor:
        """Return the clean embeddings `[V, D]`, float32, each of norm sqrt(D), so of unit variance per coordinate."""
        table_VD = F.linear(self.embedding.weight.float(), self.to_latent.weight.float())
        return F.normalize(table_VD, dim=-1) * math.sqrt(self.config.embedding_size)

    def forward(  # type: ignore[override]
        self,
        latents_BLD: Tensor,
        estimate_BLD: Tensor,
        time_BL: Tensor,
        abar_B: Tensor,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """Return `logits` `[B, L, V]` of the full posterior p(x0_l | x_t): the context's word times the likelihood.

        Args:
            latents_BLD: x_t, and clean embeddings at what is given.
            estimate_BLD: the last estimate of the clean embeddings, 0 where there is none.
            time_BL: noise level of each position, 0 at what is given.
            abar_B: the signal's variance at the noise level of each row, float `[B]`.
            attention_mask: `[B, L]`, 0 at left padding.
        """
        seen_BLV = self.likelihood(latents_BLD, time_BL, abar_B)
        dtype = self.from_latent.weight.dtype
        vectors_BLD = self.from_latent(torch.cat([latents_BLD, estimate_BLD], dim=-1).to(dtype))
        soft_BLD = seen_BLV.softmax(-1).to(dtype) @ self.embedding.weight
        net_BLV = self.read(self.trunk(soft_BLD + vectors_BLD, attention_mask, time_BL))
        return MaskedLMOutput(logits=net_BLV.float() + seen_BLV)

    def likelihood(self, latents_BLD: Tensor, time_BL: Tensor, abar_B: Tensor) -> Tensor:
        """Return log N(x_t; sqrt(abar) Emb(v), 1 - abar), float32 `[B, L, V]`, up to a constant.

        All embeddings have one norm, so it is linear in them. What is given counts as hardly noisy.
        """
        with torch.autocast(latents_BLD.device.type, enabled=False):
            match_BLV = latents_BLD.float() @ self.latent_embeddings().T
            scale_B11 = (abar_B.sqrt() / (1.0 - abar_B))[:, None, None].float()
            return torch.where((time_BL > 0)[..., None], scale_B11, GIVEN_SCALE) * match_BLV


AutoConfig.register(LatentTransformerConfig.model_type, LatentTransformerConfig, exist_ok=True)
AutoModel.register(LatentTransformerConfig, LatentTransformer, exist_ok=True)
