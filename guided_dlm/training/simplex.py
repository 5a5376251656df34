"""Diffusion on the simplex (SSD-LM, 2210.17432): the training loss, and the same figure on held-out text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from guided_dlm.processes.schedules import alphas
from guided_dlm.processes.simplex import almost_one_hot
from guided_dlm.training.gaussian import evaluate_cross_entropy
from guided_dlm.training.objectives import comb, cross_entropy
from guided_dlm.training.uniform import EARLIEST


def draw_blocks(
    begin_B: Tensor, length: int, width: int | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which positions are noisy, which are there, bool `[B, length]`, and how many blocks a row has, `[B]`.

    A row's blocks of `width` follow one another from `begin_B` on, the last one shorter where the canvas ends. One of
    them is drawn, uniformly: it is noisy, and what is beyond it is not there. Without a width it is all one block.
    """
    place_L = torch.arange(length, device=begin_B.device)
    if width is None:
        return place_L >= begin_B[:, None], place_L < length + 0 * begin_B[:, None], torch.ones_like(begin_B)
    blocks_B = (-((begin_B - length) // width)).clamp_min(1)
    share_B = torch.rand(len(begin_B), generator=generator, device=begin_B.device)
    first_B = begin_B + width * (share_B * blocks_B).long().minimum(blocks_B - 1)
    there_BL = place_L < first_B[:, None] + width
    return (place_L >= first_B[:, None]) & there_BL, there_BL, blocks_B


def simplex(
    model: Any,
    tokens_BL: Tensor,
    length_B: Tensor,
    generator: torch.Generator | None,
    begin_B: Tensor | None = None,
) -> Tensor:
    """Return the training loss `[B]`, in nats: -log p(x0_l | w_t) summed over the completion and its tail.

    t is uniform in (0, 1], antithetic over the batch. As in the paper (2210.17432, sec. 3.1) it is the cross entropy of
    the clean tokens, no bound on -log p(text): its best net is the exact posterior of each position at every level.
    With `config.block_length` one block of each row, times the number of its blocks, stands for all of them: its
    context is clean, and nothing is beyond it (semi-autoregressive, as in the paper).
    """
    device, config = tokens_BL.device, model.config
    begin_B = torch.zeros_like(length_B) if begin_B is None else begin_B
    noisy_BL, there_BL, blocks_B = draw_blocks(begin_B, tokens_BL.shape[1], config.block_length, generator)
    t_B = (1.0 - comb(len(tokens_BL), generator, device)).clamp_min(EARLIEST)
    abar_B = alphas(config.schedule, t_B)
    signal_B11, spread_B11 = (root_B[:, None, None].float() for root_B in (abar_B.sqrt(), (1.0 - abar_B).sqrt()))
    clean_BLV = almost_one_hot(tokens_BL, config.vocab_size, config.simplex_scale)
    noise_BLV = config.simplex_scale * torch.randn(clean_BLV.shape, generator=generator, device=device)
    logits_BLV = model(
        latents_BLV=signal_B11 * clean_BLV + spread_B11 * noise_BLV,
        tokens_BL=tokens_BL,
        time_BL=t_B[:, None] * noisy_BL,
        attention_mask=None if config.block_length is None else there_BL,
    ).logits
    return (cross_entropy(logits_BLV, tokens_BL) * noisy_BL).sum(-1) * blocks_B


def evaluate_simplex(
    model: Any, examples: list[dict[str, Any]], pad_id: int, passes: int = 4, batch_size: int = 128
) -> dict[str, float]:
    """Return `cross_entropy` on full canvases: the training loss, in nats per token of text.

    A figure to compare runs with one schedule by, no bound. The padding's terms are in the sum, padding is not counted.
    """
    return evaluate_cross_entropy(simplex, model, examples, pad_id, passes, batch_size)
