"""The project's transformer for block diffusion: causal over what is written, bidirectional inside the block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModel
from transformers.utils.generic import ModelOutput

from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig


class BlockTransformerConfig(DiffusionTransformerConfig):
    """A `DiffusionTransformerConfig` with `block_length`, how many tokens are written at a time."""

    model_type = "guided_dlm_block_transformer"

    def __init__(self, block_length: int = 8, process: str = "block", **kwargs: Any) -> None:
        """Record the sizes; see the class docstring."""
        self.block_length = block_length
        super().__init__(process=process, **kwargs)


@dataclass
class BlockOutput(ModelOutput):
    """Logits `[B, L, V]` of each token, given the blocks before it and its noisy block, and given all before it."""

    logits: Tensor | None = None
    causal_logits: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PrefixCache:
    """Keys and values of a prefix, but for its last token: that one opens the next block.

    `layers` holds a key and a value `[B, H, P, D / H]` for each layer, of the start vector and of P - 1 tokens.
    `prefix_BP` and `visible_BP` are the prefix they were made for.
    """

    prefix_BP: Tensor
    visible_BP: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...]

    def select(self, row_N: Tensor) -> PrefixCache:
        """Return these rows, int64 `[N]`."""
        return PrefixCache(
            prefix_BP=self.prefix_BP[row_N],
            visible_BP=self.visible_BP[row_N],
            layers=tuple((key[row_N], value[row_N]) for key, value in self.layers),
        )

    def begins(self, prefix_BP: Tensor, visible_BP: Tensor) -> bool:
        """Whether this is the cache of the prefix, or of its beginning."""
        P = self.prefix_BP.shape[1]
        same = torch.equal(self.prefix_BP, prefix_BP[:, :P])  # False where the shapes differ
        return same and torch.equal(self.visible_BP, visible_BP[:, :P])


class BlockTransformer(DiffusionTransformer):
    """Predicts the tokens of one block from the clean tokens before it and the block's own noisy ones (2503.09573).

    One network reads two streams. The clean stream is the start vector and the clean tokens, causal, so that its keys
    and values can be kept. The noisy stream of a block is the last clean token before it (or the start vector) and the
    block's tokens, which see each other and the clean stream before that last token. As in `DiffusionTransformer` the
    hidden state one before a token predicts it, so an autoregressive checkpoint is a valid start.
    """

    config_class = BlockTransformerConfig  # type: ignore[assignment]
    config: BlockTransformerConfig

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, noisy_ids: Tensor, begin_B: Tensor, **_: Any
    ) -> BlockOutput:
        """Return the logits of all blocks in one pass over both streams, and those of the clean stream.

        Args:
            input_ids: the clean tokens, int64 `[B, L]`.
            noisy_ids: the tokens as each one's own block sees them, int64 `[B, L]`.
            begin_B: where each row's first block begins, int64 `[B]`; `logits` before it mean nothing.
        """
        (B, L), W = input_ids.shape, self.config.block_length
        blocks = -(-(L - int(begin_B.min())) // W)
        slot_M = torch.arange(blocks * (W + 1), device=input_ids.device)
        opens_M = slot_M % (W + 1) == 0
        first_BM = begin_B[:, None] + slot_M // (W + 1) * W
        place_BM = first_BM + slot_M % (W + 1)  # 0 is the start vector, l + 1 is token l
        there_BM = (place_BM <= L) & (first_BM < L)
        place_BM = place_BM.clamp_max(L)
        start_B1D = self.start.expand(B, 1, -1)
        clean_BLD = torch.cat([start_B1D, self.embedding(input_ids)], dim=1)
        noisy_BLD = torch.cat([start_B1D, self.embedding(noisy_ids)], dim=1)
        source_BLD = torch.where(opens_M[:, None], _rows(clean_BLD, place_BM), _rows(noisy_BLD, place_BM))
        x_BTD = torch.cat([clean_BLD[:, :L], source_BLD], dim=1)
        position_BT = torch.cat([torch.arange(L, device=input_ids.device).expand(B, -1), place_BM], dim=1)
        visible = _two_streams(L, slot_M // (W + 1), first_BM, there_BM)
        rotation = self.rotation(position_BT)
        for layer in self.blocks:
            x_BTD = layer(x_BTD, rotation, visible)
        hidden_BTD = self.final_norm(x_BTD)
        offset_BL = (torch.arange(L, device=input_ids.device) - begin_B[:, None]).clamp_min(0)
        predictor_BL = L + offset_BL // W * (W + 1) + offset_BL % W
        return BlockOutput(
            logits=self.read(_rows(hidden_BTD, predictor_BL)), causal_logits=self.read(hidden_BTD[:, :L])
        )

    def extend(self, cache: PrefixCache | None, prefix_BP: Tensor, visible_BP: Tensor) -> PrefixCache:
        """Return the cache of a prefix `[B, P]`; of one that `cache` begins, only what is new is computed.

        Left padding, where `visible_BP` is False, acts as if it were not there.
        """
        if cache is None or not cache.begins(prefix_BP, visible_BP):
            cache = None
        old, P = 0 if cache is None else cache.prefix_BP.shape[1], prefix_BP.shape[1]
        if cache is not None and old == P:
            return cache
        x_BND, position_BP, here_BP = (part[:, :P] for part in self._prefix(prefix_BP, visible_BP))
        causal_NP = torch.ones(P, P, dtype=torch.bool, device=prefix_BP.device).tril()[old:]
        visible = (here_BP[:, None, :] & causal_NP)[:, None]
        x_BND, layers, rotation = x_BND[:, old:], [], self.rotation(position_BP[:, old:])
        for index, layer in enumerate(self.blocks):
            query, key, value = layer.project(x_BND, rotation)  # type: ignore[operator]
            if cache is not None and old:
                key, value = (torch.cat(pair, dim=2) for pair in zip(cache.layers[index], (key, value), strict=True))
            x_BND = layer.mix(x_BND, layer.look(query, key, value, visible))  # type: ignore[operator]
            layers.append((key, value))
        return PrefixCache(prefix_BP=prefix_BP, visible_BP=visible_BP, layers=tuple(layers))

    def predict_block(self, cache: PrefixCache, tokens_BW: Tensor) -> Tensor:
        """Return the logits `[B, W, V]` of one block's tokens, given as they stand, after the cache's prefix."""
        (B, W), P = tokens_BW.shape, cache.prefix_BP.shape[1]
        prefix_BPD, position_BP, here_BP = self._prefix(cache.prefix_BP, cache.visible_BP)
        x_BND = torch.cat([prefix_BPD[:, P:], self.embedding(tokens_BW)], dim=1)
        last_B1 = position_BP[:, P:]
        own_BN = torch.ones(B, W + 1, dtype=torch.bool, device=tokens_BW.device)
        # A row that is all padding so far is opened by the start vector itself, which then is not seen a second time.
        seen_BT = torch.cat([here_BP[:, :P] & (position_BP[:, :P] < last_B1), own_BN], dim=1)
        rotation = self.rotation(last_B1 + torch.arange(W + 1, device=tokens_BW.device))
        for layer, past in zip(self.blocks, cache.layers, strict=True):
            query, key, value = layer.project(x_BND, rotation)  # type: ignore[operator]
            key, value = (torch.cat(pair, dim=2) for pair in zip(past, (key, value), strict=True))
            x_BND = layer.mix(x_BND, layer.look(query, key, value, seen_BT[:, None, None]))  # type: ignore[operator]
        return self.read(self.final_norm(x_BND[:, :W]))

    def _prefix(self, prefix_BP: Tensor, visible_BP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return start vector and prefix embedded `[B, P + 1, D]`, their positions, and where they are no padding."""
        start_B1D = self.start.expand(len(prefix_BP), 1, -1)
        tokens_BPD = torch.where(visible_BP[..., None], self.embedding(prefix_BP), start_B1D)
        positions_BP, here_BP = F.pad(visible_BP.long().cumsum(-1), (1, 0)), F.pad(visible_BP, (1, 0), value=True)
        return torch.cat([start_B1D, tokens_BPD], dim=1), positions_BP, here_BP


def _rows(x_BLD: Tensor, index_BM: Tensor) -> Tensor:
    """Return the vectors `[B, M, D]` at the indices of each row."""
    return x_BLD.gather(1, index_BM[..., None].expand(-1, -1, x_BLD.shape[-1]))


def _two_streams(length: int, block_M: Tensor, first_BM: Tensor, there_BM: Tensor) -> Tensor:
    """Return who sees whom, bool `[B, 1, L + M, L + M]`: the clean stream, then the noisy one of every block.

    `block_M` is the block of each noisy vector, `first_BM` the place of the vector that opens it, and `there_BM` where
    a vector is inside the canvas. Every vector sees itself, so that no softmax is empty.
    """
    B, M = first_BM.shape
    place_L = torch.arange(length, device=first_BM.device)
    causal_BLL = (place_L <= place_L[:, None]).expand(B, -1, -1)
    back_BML = place_L < first_BM[..., None]
    own_BMM = (block_M == block_M[:, None]) & there_BM[:, None, :]
    own_BMM = own_BMM | torch.eye(M, dtype=torch.bool, device=first_BM.device)
    clean_BLT = torch.cat([causal_BLL, causal_BLL.new_zeros(B, length, M)], dim=2)
    return torch.cat([clean_BLT, torch.cat([back_BML, own_BMM], dim=2)], dim=1)[:, None]


AutoConfig.register(BlockTransformerConfig.model_type, BlockTransformerConfig, exist_ok=True)
AutoModel.register(BlockTransformerConfig, BlockTransformer, exist_ok=True)
