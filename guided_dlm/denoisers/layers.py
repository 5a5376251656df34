"""The layers of the project's own transformers: attention within packed rows, gated feed-forward, noise levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from guided_dlm.denoisers.modeling import DiffusionTransformerConfig


class Rotation:
    """Rotary position embedding (2104.09864, eq. 34) at some positions, for heads of `width`."""

    def __init__(self, positions_BL: Tensor, width: int) -> None:
        """Compute the angles, once for all layers."""
        half = width // 2
        frequency = 10_000.0 ** (-torch.arange(half, device=positions_BL.device, dtype=torch.float32) / half)
        angle = positions_BL[..., None].float() * frequency
        self.cos_BLF, self.sin_BLF = angle.cos(), angle.sin()

    def __call__(self, x_BLPHD: Tensor) -> Tensor:
        """Return vectors `[B, L, ..., D]` turned, such as queries and keys of all heads, `[B, L, 2, H, D]`."""
        between = (None,) * (x_BLPHD.ndim - 3)
        cos, sin = (part[:, :, *between].to(x_BLPHD.dtype) for part in (self.cos_BLF, self.sin_BLF))
        left, right = x_BLPHD.chunk(2, dim=-1)
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
        return unit(x) * self.weight.to(x.dtype)


def unit(x: Tensor) -> Tensor:
    """Return `x` scaled to unit root mean square over the last axis."""
    return x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6).to(x.dtype)


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
        """Take where something is seen, bool `[B, L]`; the first position of each row always is."""
        self.width = int(here_BL.any(0).nonzero()[-1]) + 1
        self.place_N = here_BL[:, : self.width].flatten().nonzero()[:, 0]
        self.source_BL = here_BL.flatten().long().cumsum(-1).view(here_BL.shape) - 1

    def gather(self, x_BL: Tensor, only_N: Tensor | None = None) -> Tensor:
        """Return the values `[1, N, ...]` of `[B, L, ...]`, or those of them at the places `only_N`."""
        place_N = self.place_N if only_N is None else self.place_N[only_N]
        return x_BL[:, : self.width].flatten(0, 1)[place_N][None]

    def spread(self, x_1N: Tensor) -> Tensor:
        """Return values `[1, N, ...]` where they come from, `[B, L, ...]`; elsewhere that of the last seen before."""
        source_BL = self.source_BL[:, : self.width]
        return x_1N[0].index_select(0, source_BL.flatten()).view(*source_BL.shape, *x_1N.shape[2:])


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
        self,
        x_BLD: Tensor,
        rotation: Rotation,
        visible: Tensor | None,
        packing: Packing | None = None,
        only_N: Tensor | None = None,
    ) -> Tensor:
        """Return the next hidden states `[B, L, D]`; `visible` is a bool mask that broadcasts to `[B, H, L, L]`.

        With `packing` the states are one row, `[1, N, D]`, and attention is within the rows that they come from;
        `only_N` are then the places in it whose next states are wanted.
        """
        query, key, value = self.project(x_BLD, rotation, packing)
        mixed_BLD = self.look(query, key, value, visible)
        if packing is not None:
            mixed_BLD = packing.gather(mixed_BLD, only_N)
        return self.mix(x_BLD if only_N is None else x_BLD[:, only_N], mixed_BLD)

    def project(
        self, x_BLD: Tensor, rotation: Rotation, packing: Packing | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value, `[B, H, L, D / H]` each."""
        qkv = self.qkv(self.attention_norm(x_BLD)).unflatten(-1, (3, self.heads, -1))
        gain = torch.stack([self.query_norm.weight, self.key_norm.weight])[:, None].to(qkv.dtype)
        turned = rotation(unit(qkv[:, :, :2]) * gain)
        if packing is None:
            query, key = turned.permute(2, 0, 3, 1, 4)
            return query, key, qkv[:, :, 2].transpose(1, 2)
        query, key, value = packing.spread(torch.cat([turned, qkv[:, :, 2:]], dim=2)).permute(2, 0, 3, 1, 4)
        return query, key, value

    def look(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
        """Return what each query `[B, H, L, D / H]` reads, `[B, L, D]`; there may be more keys and values."""
        return attend(query, key, value, visible, self.causal, self.training).transpose(1, 2).flatten(2)

    def mix(self, x_BLD: Tensor, mixed_BLD: Tensor) -> Tensor:
        """Return the next hidden states `[B, L, D]` from these and what was read at the same places."""
        x_BLD = x_BLD + F.dropout(self.out(mixed_BLD), self.dropout, self.training)
        gate, up = self.gate_up(self.feedforward_norm(x_BLD)).chunk(2, dim=-1)
        next_BLD: Tensor = x_BLD + F.dropout(self.down(F.silu(gate) * up), self.dropout, self.training)
        return next_BLD
