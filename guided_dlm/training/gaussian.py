"""Gaussian diffusion over learned embeddings: the training loss, and the same figure on held-out text."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from guided_dlm.processes.schedules import alphas
from guided_dlm.training.data import CanvasCollator
from guided_dlm.training.objectives import Objective, comb, cross_entropy
from guided_dlm.training.uniform import EARLIEST

SELF_CONDITIONED = 0.5  # the share of batches that get a first pass without gradient (2208.04202, sec. 3.2)


def gaussian(
    model: Any,
    tokens_BL: Tensor,
    length_B: Tensor,
    generator: torch.Generator | None,
    begin_B: Tensor | None = None,
    conditioned: float = SELF_CONDITIONED,
) -> Tensor:
    """Return the training loss `[B]`, in nats: -log p(x0_l | x_t) summed over the completion and its tail.

    t is uniform in (0, 1], antithetic over the batch. The cross entropy trains net and embeddings at once (2211.15089,
    eq. 4). It is no bound on -log p(text): its best net is the exact posterior of each position at every level, which
    is all that the sampler asks for. A batch is self-conditioned with probability `conditioned`.
    """
    device = tokens_BL.device
    begin_B = torch.zeros_like(length_B) if begin_B is None else begin_B
    t_B = (1.0 - comb(len(tokens_BL), generator, device)).clamp_min(EARLIEST)
    abar_B = alphas(model.config.schedule, t_B).float()
    free_BL1 = (torch.arange(tokens_BL.shape[1], device=device) >= begin_B[:, None])[..., None]
    embeddings_VD = model.latent_embeddings()
    clean_BLD = embeddings_VD[tokens_BL]
    noise_BLD = torch.randn(clean_BLD.shape, generator=generator, device=device)
    signal_B11, spread_B11 = abar_B.sqrt()[:, None, None], (1.0 - abar_B).sqrt()[:, None, None]
    noisy = {
        "latents_BLD": torch.where(free_BL1, signal_B11 * clean_BLD + spread_B11 * noise_BLD, clean_BLD),
        "time_BL": t_B[:, None] * free_BL1[..., 0],
        "abar_B": abar_B,
    }
    estimate_BLD = torch.zeros_like(clean_BLD)
    if float(torch.rand((), generator=generator, device=device)) < conditioned:
        with torch.no_grad():
            first = model(estimate_BLD=torch.where(free_BL1, estimate_BLD, clean_BLD), **noisy)
            estimate_BLD = first.logits.softmax(-1) @ embeddings_VD
    logits_BLV = model(estimate_BLD=torch.where(free_BL1, estimate_BLD, clean_BLD), **noisy).logits
    return (cross_entropy(logits_BLV, tokens_BL) * free_BL1[..., 0]).sum(-1)


def evaluate_gaussian(
    model: Any, examples: list[dict[str, Any]], pad_id: int, passes: int = 4, batch_size: int = 128
) -> dict[str, float]:
    """Return `cross_entropy` on full canvases: the training loss, always self-conditioned, in nats per token of text.

    A figure to compare runs with one schedule by, no bound. The padding's terms are in the sum, padding is not counted.
    """
    return evaluate_cross_entropy(partial(gaussian, conditioned=1.0), model, examples, pad_id, passes, batch_size)


@torch.inference_mode()
def evaluate_cross_entropy(
    objective: Objective, model: Any, examples: list[dict[str, Any]], pad_id: int, passes: int, batch_size: int
) -> dict[str, float]:
    """Return an objective on full canvases, as `cross_entropy` in nats per token of text; always the same noise."""
    model.eval()
    generator = torch.Generator(model.device).manual_seed(0)
    collate = CanvasCollator(pad_id, model.config.max_position_embeddings, full_share=1.0)
    loader: DataLoader[Any] = DataLoader(examples, batch_size=batch_size, collate_fn=collate)  # type: ignore[arg-type]
    total, count = 0.0, 0
    for _ in range(passes):
        for batch in loader:
            tokens_BL, length_B, begin_B = (batch[name].to(model.device) for name in ("input_ids", "length", "begin"))
            total += float(objective(model, tokens_BL, length_B, generator, begin_B).sum())
            count += int((length_B - begin_B).sum())
    return {"cross_entropy": total / count}
