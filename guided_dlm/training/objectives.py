"""Training losses, one function each: clean canvases in, a loss per canvas out.

`begin_B` is where each row's completion begins: what stands before it is a prompt, which is seen and not scored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

AHEAD = 4  # tokens that `left_to_right` scores after each place
WEIGHTINGS = ("bound", "flat")

Objective = Callable[[Any, Tensor, Tensor, torch.Generator | None, Tensor | None], Tensor]


def cross_entropy(logits_BLV: Tensor, tokens_BL: Tensor) -> Tensor:
    """Return the negative log-probability of each token, float32 `[B, L]`, in nats."""
    return F.cross_entropy(logits_BLV.float().transpose(1, 2), tokens_BL, reduction="none")


def autoregressive(
    model: Any,
    tokens_BL: Tensor,
    length_B: Tensor,
    generator: torch.Generator | None,
    begin_B: Tensor | None = None,
) -> Tensor:
    """Return -log p(text and its end) `[B]` of a causal model, in nats; the padding after the end is not counted.

    A prompt is scored too: it is text that a start for a masked model may learn from.
    """
    nll_BL = cross_entropy(model(input_ids=tokens_BL).logits, tokens_BL)
    inside_BL = torch.arange(tokens_BL.shape[1], device=tokens_BL.device) < length_B[:, None]
    return (nll_BL * inside_BL).sum(-1)


def comb(rows: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return antithetic times `[B]` in [0, 1): one draw and an even comb, in random order, so all levels are seen."""
    offset = torch.rand((), generator=generator, device=device)
    comb_B = (torch.arange(rows, device=device) + offset) / rows
    return comb_B[torch.rand(rows, generator=generator, device=device).argsort()]


def hide(begin_B: Tensor, size_B: Tensor, width: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Hide k of the `size_B` positions from `begin_B` on, in each canvas, k uniform in 1..size.

    Returns the hidden positions, bool `[B, width]`, and the weight size / k of each, `[B]`, with which the sum of their
    cross entropies bounds -log p of these positions (2406.03736, eq. 3.8: the 1/t form of 2406.07524, less variance).
    """
    device = size_B.device
    count_B = ((comb(len(size_B), generator, device) * size_B).long() + 1).minimum(size_B)
    score_BL = torch.rand(len(size_B), width, generator=generator, device=device)
    place_BL = torch.arange(width, device=device) - begin_B[:, None]
    outside_BL = (place_BL < 0) | (place_BL >= size_B[:, None])
    rank_BL = score_BL.masked_fill(outside_BL, 2.0).argsort(-1).argsort(-1)
    return rank_BL < count_B[:, None], size_B / count_B


def any_order(
    tokens_BL: Tensor, length_B: Tensor, generator: torch.Generator | None, begin_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return hidden positions and weights `[B, L]` for orders over the whole canvas, its tail like any position."""
    begin_B = torch.zeros_like(length_B) if begin_B is None else begin_B
    hidden_BL, weight_B = hide(begin_B, tokens_BL.shape[1] - begin_B, tokens_BL.shape[1], generator)
    return hidden_BL, weight_B[:, None] * hidden_BL


def length_first(
    tokens_BL: Tensor, length_B: Tensor, generator: torch.Generator | None, begin_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return hidden positions and weights `[B, L]` for orders that write the end of the text and its tail first.

    This is what the default sampler does; the text is then hidden in any order. A canvas of only an end hides nothing.
    """
    begin_B = torch.zeros_like(length_B) if begin_B is None else begin_B
    text_B = length_B - 1 - begin_B
    hidden_BL, weight_B = hide(begin_B, text_B.clamp_min(1), tokens_BL.shape[1], generator)
    hidden_BL = hidden_BL & (text_B > 0)[:, None]
    return hidden_BL, weight_B[:, None] * hidden_BL


def left_to_right(
    tokens_BL: Tensor, length_B: Tensor, generator: torch.Generator | None, begin_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return hidden positions and weights `[B, L]` for the order of reading: all is hidden from some place on.

    The place is uniform over text and end. Scored are the next `AHEAD` tokens, each given what stands before the place,
    in the mean of as much weight as the whole text: only of the first of them is that a bound's term.
    """
    begin_B = torch.zeros_like(length_B) if begin_B is None else begin_B
    size_B = length_B - begin_B
    cut_B = begin_B + (comb(len(size_B), generator, size_B.device) * size_B).long()
    place_BL = torch.arange(tokens_BL.shape[1], device=tokens_BL.device) - cut_B[:, None]
    scored_BL = (place_BL >= 0) & (place_BL < AHEAD) & (place_BL < (length_B - cut_B)[:, None])
    return place_BL >= 0, scored_BL * (size_B / scored_BL.sum(-1))[:, None]


def weighted_nll(model: Any, tokens_BL: Tensor, hidden_BL: Tensor, weight_BL: Tensor) -> Tensor:
    """Return the weighted cross entropies `[B, L]` of the hidden tokens, in nats."""
    noisy_BL = tokens_BL.masked_fill(hidden_BL, model.config.mask_token_id)
    return cross_entropy(model(input_ids=noisy_BL).logits, tokens_BL) * weight_BL


def length_nll(model: Any, tokens_BL: Tensor, length_B: Tensor, eos_id: int, begin_B: Tensor | None = None) -> Tensor:
    """Return -log p(length) `[B]`, in nats: where the end stands, by its marginals on an empty canvas."""
    begin_B = torch.zeros_like(length_B) if begin_B is None else begin_B
    open_BL = torch.arange(tokens_BL.shape[1], device=tokens_BL.device) >= begin_B[:, None]
    empty_BL = tokens_BL.masked_fill(open_BL, model.config.mask_token_id)
    log_end_BL = model(input_ids=empty_BL).logits.float().log_softmax(-1)[..., eos_id]
    nll_B1: Tensor = -log_end_BL.masked_fill(~open_BL, -torch.inf).log_softmax(-1).gather(1, length_B[:, None] - 1)
    return nll_B1[:, 0]


def masked(
    model: Any,
    tokens_BL: Tensor,
    length_B: Tensor,
    generator: torch.Generator | None,
    begin_B: Tensor | None = None,
    onward: float = 0.0,
    weighting: str = "bound",
) -> Tensor:
    """Return the training loss `[B]`, in nats: a mixture of two kinds of order, or three.

    Every other canvas is hidden in any order, for an estimate of the masked-diffusion bound with the tail in it; the
    others with end and tail known, as the default sampler meets them. `evaluate_masked` reports the bounds themselves.
    A share `onward` of either is hidden from some place to the end instead, as `left_to_right` samplers meet it. With
    `weighting` "flat" the hidden tokens of any order weigh 2 each, however many they are, in all (size + 1) / size of
    the bound's weight on average: no bound any more, and less variance.
    """
    hidden_BL, weight_BL = any_order(tokens_BL, length_B, generator, begin_B)
    inner_BL, inner_weight_BL = length_first(tokens_BL, length_B, generator, begin_B)
    even_B1 = (torch.arange(len(tokens_BL), device=tokens_BL.device) % 2 == 0)[:, None]
    hidden_BL, weight_BL = (
        torch.where(even_B1, *pair) for pair in ((hidden_BL, inner_BL), (weight_BL, inner_weight_BL))
    )
    if weighting == "flat":
        weight_BL = 2.0 * hidden_BL
    if onward:
        rest = left_to_right(tokens_BL, length_B, generator, begin_B)
        onward_B1 = torch.rand(len(tokens_BL), 1, generator=generator, device=tokens_BL.device) < onward
        hidden_BL, weight_BL = (
            torch.where(onward_B1, *pair) for pair in zip(rest, (hidden_BL, weight_BL), strict=True)
        )
    return weighted_nll(model, tokens_BL, hidden_BL, weight_BL).sum(-1)
