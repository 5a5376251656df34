"""Block diffusion: the training loss, and a bound on -log p of what is written block by block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from guided_dlm.training.data import CanvasCollator
from guided_dlm.training.objectives import cross_entropy, hide


def hide_in_blocks(
    begin_B: Tensor, length: int, width: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Hide k of the w positions of each block, k uniform in 1..w; w is `width`, or less where the canvas ends.

    Blocks follow one another from `begin_B` on. Returns the hidden positions, bool `[B, length]`, and the weight w / k
    of each, float `[B, length]`, 0 where nothing is hidden; see `hide`.
    """
    device, B = begin_B.device, len(begin_B)
    blocks = -(-length // width)
    first_BN = begin_B[:, None] + width * torch.arange(blocks, device=device)
    size_BN = (length - first_BN).clamp(0, width)
    size_R = size_BN.flatten()
    hidden_RW, weight_R = hide(torch.zeros_like(size_R), size_R.clamp_min(1), width, generator)
    hidden_BK = (hidden_RW & (size_R > 0)[:, None]).view(B, blocks * width)
    weight_BK = (weight_R[:, None] * hidden_RW).view(B, blocks * width)
    offset_BL = torch.arange(length, device=device) - begin_B[:, None]
    hidden_BL = hidden_BK.gather(1, offset_BL.clamp_min(0)) & (offset_BL >= 0)
    return hidden_BL, weight_BK.gather(1, offset_BL.clamp_min(0)) * hidden_BL


def block_nll(
    model: Any, tokens_BL: Tensor, begin_B: Tensor, generator: torch.Generator | None, weighting: str = "bound"
) -> tuple[Tensor, Tensor]:
    """Return one estimate of the bound on -log p(completion, tail) `[B]`, and the clean stream's -log p `[B, L]`.

    The bound is, for each block, the weighted cross entropies of hidden tokens given all blocks before it (2503.09573,
    eq. 8, in the form of `hide`). All in nats. With `weighting` "flat" hidden tokens weigh 2 each, as in `masked`.
    """
    hidden_BL, weight_BL = hide_in_blocks(begin_B, tokens_BL.shape[1], model.config.block_length, generator)
    weight_BL = 2.0 * hidden_BL if weighting == "flat" else weight_BL
    noisy_BL = tokens_BL.masked_fill(hidden_BL, model.config.mask_token_id)
    out = model(input_ids=tokens_BL, noisy_ids=noisy_BL, begin_B=begin_B)
    bound_B = (cross_entropy(out.logits, tokens_BL) * weight_BL).sum(-1)
    return bound_B, cross_entropy(out.causal_logits, tokens_BL)


def block(
    model: Any,
    tokens_BL: Tensor,
    length_B: Tensor,
    generator: torch.Generator | None,
    begin_B: Tensor | None = None,
    weighting: str = "bound",
) -> Tensor:
    """Return the training loss `[B]`, in nats: the bound of `block_nll` plus the clean stream's own -log p.

    The second term is autoregressive, over text and end of the completion. It keeps a start from an autoregressive
    model what it is, and lets one causal pass score a finished text. `evaluate_block` reports the bound alone.
    """
    begin_B = torch.zeros_like(length_B) if begin_B is None else begin_B
    bound_B, causal_BL = block_nll(model, tokens_BL, begin_B, generator, weighting)
    place_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
    inside_BL = (place_L >= begin_B[:, None]) & (place_L < length_B[:, None])
    return bound_B + (causal_BL * inside_BL).sum(-1)


@torch.inference_mode()
def evaluate_block(
    model: Any,
    examples: list[dict[str, Any]],
    pad_id: int,
    passes: int = 4,
    batch_size: int = 128,
    progress: bool = False,
) -> dict[str, float]:
    """Return `bound` on full canvases, in nats per token of text and end; prompts are seen and not scored.

    It bounds -log p(text, end, tail) of the model that writes block by block, inside a block one token at a time in any
    order. The padding's terms are in the sum, padding is not counted as tokens.
    """
    model.eval()
    generator = torch.Generator(model.device).manual_seed(0)
    collate = CanvasCollator(pad_id, model.config.max_position_embeddings, full_share=1.0)
    loader: DataLoader[Any] = DataLoader(examples, batch_size=batch_size, collate_fn=collate)  # type: ignore[arg-type]
    total, count = 0.0, 0
    for _ in tqdm(range(passes), desc="bound", disable=not progress):
        for batch in loader:
            tokens_BL, length_B, begin_B = (batch[name].to(model.device) for name in ("input_ids", "length", "begin"))
            total += float(block_nll(model, tokens_BL, begin_B, generator)[0].sum())
            count += int((length_B - begin_B).sum())
    return {"bound": total / count}
