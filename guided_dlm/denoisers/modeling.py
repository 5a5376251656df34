"""The project's own small denoiser: a transformer that reads a noisy canvas, as a transformers `PreTrainedModel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_outputs import MaskedLMOutput

from guided_dlm.denoisers.layers import Block, Packing, RMSNorm, Rotation, TimeEmbedding, ZeroLinear


class DiffusionTransformerConfig(PretrainedConfig):
    """Sizes and conventions of a `DiffusionTransformer`.

    `causal` attends leftwards only (an autoregressive model; also the start of a diffusion model). `tail` says whether
    the model was trained on the padding after the end of text ("scored") or not ("free"); `reads_tail` is False where
    it also learned from canvases that end soon after the text, so that long padding need not be read. Output position
    l is always the prediction for token l, read from the hidden state one position before it. `never_written_ids` are
    tokens that no completion holds: fragments of characters that the training texts never had.

    `process` is the noise that the model was trained to undo, "masked" or "uniform", and `schedule` the name of its
    noise schedule. `time_features` is how many sinusoids of the noise level the model reads; 0 for a model that is not
    told it. `noiseless_ids` are tokens that uniform noise never writes: the mask and other specials.
    """

    model_type = "guided_dlm_transformer"

    def __init__(
        self,
        vocab_size: int = 1024,
        hidden_size: int = 256,
        num_hidden_layers: int = 6,
        num_attention_heads: int = 4,
        intermediate_size: int = 704,
        max_position_embeddings: int = 64,
        causal: bool = False,
        tail: str = "scored",
        reads_tail: bool = True,
        dropout: float = 0.0,
        mask_token_id: int | None = None,
        never_written_ids: Sequence[int] = (),
        process: str = "masked",
        schedule: str = "linear",
        time_features: int = 0,
        noiseless_ids: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        """Record the sizes; see the class docstring."""
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.causal = causal
        self.tail = tail
        self.reads_tail = reads_tail
        self.dropout = dropout
        self.mask_token_id = mask_token_id
        self.never_written_ids = list(never_written_ids)
        self.process = process
        self.schedule = schedule
        self.time_features = time_features
        self.noiseless_ids = list(noiseless_ids)
        super().__init__(**kwargs)


class DiffusionTransformer(PreTrainedModel):
    """Predicts every token of a canvas from the tokens that are visible.

    A learned start vector stands before the canvas, and the hidden state *before* a position predicts it, as in an
    autoregressive model; so an autoregressive checkpoint of the same shape is a valid start (2410.17891, sec. 3).
    """

    config_class = DiffusionTransformerConfig
    config: DiffusionTransformerConfig
    base_model_prefix = "model"

    def __init__(self, config: DiffusionTransformerConfig) -> None:
        """Make the layers; the rounding head is the embedding table itself."""
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.start = nn.Parameter(torch.zeros(config.hidden_size))
        self.time = TimeEmbedding(config.time_features, config.hidden_size) if config.time_features else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.final_norm = RMSNorm(config.hidden_size)
        self.logit_scale = nn.Parameter(torch.tensor(config.hidden_size**-0.5))
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embedding table, as other transformers models do."""
        return self.embedding

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ZeroLinear):
            nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 / (2 * self.config.num_hidden_layers) ** 0.25)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=1.0)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        time_BL: Tensor | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """Return `logits` `[B, L, V]`: position l predicts token l.

        Args:
            input_ids: int64 `[B, L]`, unknown tokens replaced by the mask token.
            attention_mask: `[B, L]`, 0 at padding left and right, which then acts as if it were not there: the first
                token after padding on the left is predicted as the first of all.
            time_BL: noise level of each position, float `[B, L]`, 0 at what is given; for models that are told it.
        """
        return MaskedLMOutput(logits=self.read(self.trunk(self.embedding(input_ids), attention_mask, time_BL)))

    def read(self, hidden_BLD: Tensor) -> Tensor:
        """Return the logits `[B, L, V]` of hidden states: the rounding head is the embedding table itself."""
        return F.linear(hidden_BLD, self.embedding.weight) * self.logit_scale

    def trunk(self, tokens_BLD: Tensor, attention_mask: Tensor | None = None, time_BL: Tensor | None = None) -> Tensor:
        """Return the hidden states `[B, L, D]` that predict each position, from embedded tokens; see `forward`."""
        x_BLD = self._opened(tokens_BLD, time_BL)
        B, L, _ = tokens_BLD.shape
        if attention_mask is None:
            positions_BL = torch.arange(L + 1, device=tokens_BLD.device).expand(B, -1)
            return self._run(x_BLD, positions_BL, None)[:, :L]
        here_BL = F.pad(attention_mask.bool(), (1, 0), value=True)
        if not self.training:
            packing = Packing(here_BL)
            packed_1ND = self._run_packed(x_BLD, here_BL, packing)
            # As below: what is not seen predicts what the last seen before it does.
            return packed_1ND[0, packing.source_BL[:, :L]]
        # Padding impersonates the start vector, unseen: so it predicts the first token as the start would.
        x_BLD = torch.where(here_BL[..., None], x_BLD, x_BLD[:, :1])
        return self._run(x_BLD, here_BL.long().cumsum(-1) - 1, self._visible(here_BL))[:, :L]

    def trunk_at(self, tokens_BLD: Tensor, attention_mask: Tensor, only_BL: Tensor) -> Tensor:
        """Return the hidden states `[N, D]` of `trunk` at the N positions of `only_BL`, row by row; for inference."""
        here_BL = F.pad(attention_mask.bool(), (1, 0), value=True)
        packing = Packing(here_BL)
        only_N = packing.source_BL[:, :-1][only_BL]
        return self._run_packed(self._opened(tokens_BLD, None), here_BL, packing, only_N)[0]

    def _opened(self, tokens_BLD: Tensor, time_BL: Tensor | None) -> Tensor:
        """Return the start vector and the tokens after it, `[B, L + 1, D]`, told the noise level where they are."""
        start_B1D = self.start.expand(len(tokens_BLD), 1, -1)
        if self.time is not None:
            if time_BL is None:
                raise ValueError("This model is told the noise level (config.time_features); give time_BL.")
            tokens_BLD = tokens_BLD + self.time(time_BL)
            # The start is no token with a level of its own: it is told how noisy the canvas is.
            start_B1D = start_B1D + self.time(time_BL.amax(-1, keepdim=True))
        return torch.cat([start_B1D, tokens_BLD], dim=1)

    def _visible(self, here_BL: Tensor) -> Tensor:
        visible = here_BL[:, None, None, :]
        return visible & visible.new_ones(here_BL.shape[1], here_BL.shape[1]).tril() if self.config.causal else visible

    def _run_packed(self, x_BLD: Tensor, here_BL: Tensor, packing: Packing, only_N: Tensor | None = None) -> Tensor:
        positions_BL = here_BL.long().cumsum(-1) - 1
        visible = self._visible(here_BL[:, : packing.width])
        return self._run(packing.gather(x_BLD), packing.gather(positions_BL), visible, packing, only_N)

    def _run(
        self,
        x_BLD: Tensor,
        positions_BL: Tensor,
        visible: Tensor | None,
        packing: Packing | None = None,
        only_N: Tensor | None = None,
    ) -> Tensor:
        rotation, last = self.rotation(positions_BL), len(self.blocks) - 1
        for place, block in enumerate(self.blocks):
            x_BLD = block(x_BLD, rotation, visible, packing, only_N if place == last else None)
        hidden_BLD: Tensor = self.final_norm(x_BLD)
        return hidden_BLD

    def rotation(self, positions_BL: Tensor) -> Rotation:
        """Return how queries and keys at these positions are turned, in all layers."""
        return Rotation(positions_BL, self.config.hidden_size // self.config.num_attention_heads)


AutoConfig.register(DiffusionTransformerConfig.model_type, DiffusionTransformerConfig, exist_ok=True)
AutoModel.register(DiffusionTransformerConfig, DiffusionTransformer, exist_ok=True)
