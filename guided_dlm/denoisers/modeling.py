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


def rotate(x_BHLD: Tensor, positions_BL: Tensor) -> Tensor:
    """Apply rotary position embedding (2104.09864, eq. 34) to queries or keys `[B, H, L, D]`."""
    half = x_BHLD.shape[-1] // 2
    frequency = 10_000.0 ** (-torch.arange(half, device=x_BHLD.device, dtype=torch.float32) / half)
    angle = positions_BL[:, None, :, None].float() * frequency
    cos, sin = angle.cos().to(x_BHLD.dtype), angle.sin().to(x_BHLD.dtype)
    left, right = x_BHLD[..., :half], x_BHLD[..., half:]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, causal: bool, training: bool) -> Tensor:
    """Return softmax attention `[B, H, L, D]`.

    It is written out where that is faster: on short canvases torch's fused kernel takes three times as long for its
    backward pass on a CPU, and twice as long in bfloat16 (but less on long ones).
    """
    short = key.shape[-2] <= 512
    slow = training or (short and query.device.type == "cpu" and query.dtype == torch.bfloat16)
    if not slow:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible, is_causal=causal and visible is None
        )
    score = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if visible is None and causal:
        visible = torch.ones(score.shape[-2:], dtype=torch.bool, device=score.device).tril()
    if visible is not None:
        score = score + torch.zeros_like(visible, dtype=score.dtype).masked_fill_(~visible, -torch.inf)
    mixed: Tensor = score.softmax(-1).to(value.dtype) @ value
    return mixed


class RMSNorm(nn.Module):
    """Root-mean-square norm (1910.07467) that stays in the input's dtype under autocast, where torch's falls back."""

    def __init__(self, width: int) -> None:
        """Start at unit gain."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` scaled to unit root mean square over the last axis, times the gain."""
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
        return x * scale.to(x.dtype) * self.weight.to(x.dtype)


class ZeroLinear(nn.Linear):
    """A linear map that starts as zero, so that a model begins as if the branch behind it were not there."""


class TimeEmbedding(nn.Module):
    """The noise level as a vector: sinusoids of it (1706.03762, sec. 3.5; 2006.11239, app. B), then a small network."""

    def __init__(self, features: int, width: int) -> None:
        """Make the network; its last layer is zero."""
        super().__init__()
        self.waves = features // 2
        self.first = nn.Linear(2 * self.waves, width, bias=False)
        self.last = ZeroLinear(width, width, bias=False)

    def forward(self, time_BL: Tensor) -> Tensor:
        """Return `[B, L, D]` from noise levels in [0, 1], `[B, L]`."""
        step = torch.arange(self.waves, device=time_BL.device, dtype=torch.float32)
        angle = 1000.0 * time_BL.float()[..., None] * 10_000.0 ** (-step / self.waves)
        wave_BLF = torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.first.weight.dtype)
        embedded: Tensor = self.last(F.silu(self.first(wave_BLF)))
        return embedded


class Packing:
    """The positions of a batch that are seen, one after another in a single row: no work is spent on the others."""

    def __init__(self, here_BL: Tensor) -> None:
        """Take where something is seen, bool `[B, L]`; the first position always is."""
        width = int(here_BL.any(0).nonzero()[-1]) + 1
        self.shape = (len(here_BL), width)
        self.place_N = here_BL[:, :width].flatten().nonzero()[:, 0]

    def gather(self, x_BL: Tensor) -> Tensor:
        """Return the values `[1, N, ...]` of `[B, L, ...]`."""
        return x_BL[:, : self.shape[1]].flatten(0, 1)[self.place_N][None]

    def spread(self, x_1HND: Tensor) -> Tensor:
        """Return queries, keys or values where they come from, `[B, H, L, D]`, with zeros at the others."""
        (B, L), (_, H, _, D) = self.shape, x_1HND.shape
        zeros = x_1HND.new_zeros(B * L, H, D)
        return zeros.index_copy(0, self.place_N, x_1HND[0].transpose(0, 1)).view(B, L, H, D).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm attention with normalised queries and keys, then a gated feed-forward (SwiGLU, 2002.05202)."""

    def __init__(self, config: DiffusionTransformerConfig) -> None:
        """Make the projections of one layer."""
        super().__init__()
        width = config.hidden_size
        self.heads, self.causal, self.dropout = config.num_attention_heads, config.causal, config.dropout
        self.attention_norm = RMSNorm(width)
        self.feedforward_norm = RMSNorm(width)
        self.query_norm = RMSNorm(width // self.heads)
        self.key_norm = RMSNorm(width // self.heads)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, width, bias=False)

    def forward(
        self, x_BLD: Tensor, positions_BL: Tensor, visible: Tensor | None, packing: Packing | None = None
    ) -> Tensor:
        """Return the next hidden states `[B, L, D]`; `visible` is a bool mask that broadcasts to `[B, H, L, L]`.

        With `packing` the states are one row, `[1, N, D]`, and attention is within the rows that they come from.
        """
        return self.mix(x_BLD, *self.project(x_BLD, positions_BL), visible, packing)

    def project(self, x_BLD: Tensor, positions_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value, `[B, H, L, D / H]` each."""
        B, L, D = x_BLD.shape
        qkv = self.qkv(self.attention_norm(x_BLD)).view(B, L, 3, self.heads, D // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query = rotate(self.query_norm(query), positions_BL)
        key = rotate(self.key_norm(key), positions_BL)
        return query, key, value

    def mix(
        self,
        x_BLD: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        visible: Tensor | None,
        packing: Packing | None = None,
    ) -> Tensor:
        """Return the next hidden states; keys and values may be those of more positions than `x_BLD` has."""
        if packing is not None:
            query, key, value = (packing.spread(part) for part in (query, key, value))
        mixed = attend(query, key, value, visible, self.causal, self.training).transpose(1, 2)
        mixed = mixed if packing is None else packing.gather(mixed)
        attended = self.out(mixed.reshape(x_BLD.shape))
        x_BLD = x_BLD + F.dropout(attended, self.dropout, self.training)
        gate, up = self.gate_up(self.feedforward_norm(x_BLD)).chunk(2, dim=-1)
        return x_BLD + F.dropout(self.down(F.silu(gate) * up), self.dropout, self.training)


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
        B, L, _ = tokens_BLD.shape
        start_B1D = self.start.expand(B, 1, -1)
        if self.time is not None:
            if time_BL is None:
                raise ValueError("This model is told the noise level (config.time_features); give time_BL.")
            tokens_BLD = tokens_BLD + self.time(time_BL)
            # The start is no token with a level of its own: it is told how noisy the canvas is.
            start_B1D = start_B1D + self.time(time_BL.amax(-1, keepdim=True))
        x_BLD = torch.cat([start_B1D, tokens_BLD], dim=1)
        if attention_mask is None:
            positions_BL = torch.arange(L + 1, device=tokens_BLD.device).expand(B, -1)
            return self._run(x_BLD, positions_BL, None)[:, :L]
        here_BL = F.pad(attention_mask.bool(), (1, 0), value=True)
        positions_BL = here_BL.long().cumsum(-1) - 1
        visible = here_BL[:, None, None, :]
        if self.config.causal:
            visible = visible & torch.ones(L + 1, L + 1, dtype=torch.bool, device=tokens_BLD.device).tril()
        if self.training:
            # Padding impersonates the start vector, unseen: so it predicts the first token as the start would.
            x_BLD = torch.where(here_BL[..., None], x_BLD, start_B1D)
            return self._run(x_BLD, positions_BL, visible)[:, :L]
        packing = Packing(here_BL)
        width = packing.shape[1]
        visible = visible[..., :width, :width] if self.config.causal else visible[..., :width]
        packed_1ND = self._run(packing.gather(x_BLD), packing.gather(positions_BL), visible, packing)
        # As above: what is not seen predicts what the last seen before it does.
        last_BL = (here_BL.flatten().long().cumsum(-1) - 1).view(B, L + 1)
        return packed_1ND[0, last_BL[:, :L]]

    def _run(
        self, x_BLD: Tensor, positions_BL: Tensor, visible: Tensor | None, packing: Packing | None = None
    ) -> Tensor:
        for block in self.blocks:
            x_BLD = block(x_BLD, positions_BL, visible, packing)
        hidden_BLD: Tensor = self.final_norm(x_BLD)
        return hidden_BLD


AutoConfig.register(DiffusionTransformerConfig.model_type, DiffusionTransformerConfig, exist_ok=True)
AutoModel.register(DiffusionTransformerConfig, DiffusionTransformer, exist_ok=True)
