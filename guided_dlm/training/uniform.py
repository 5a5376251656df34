"""Uniform diffusion: the training loss, and a bound on -log p of what the sampler writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from guided_dlm.denoisers.transformer import uniform_process
from guided_dlm.processes.schedules import alphas
from guided_dlm.processes.uniform import UniformProcess
from guided_dlm.training.data import CanvasCollator
from guided_dlm.training.objectives import comb, cross_entropy

EARLIEST = 1e-3  # the lowest noise level that is trained on; at 0 nothing is left to learn


def corrupt(
    process: UniformProcess, tokens_BL: Tensor, begin_B: Tensor, t_B: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return z_t for clean canvases, int64 `[B, L]`, and the noise level of each position: 0 in the prompt."""
    device, shape = tokens_BL.device, tokens_BL.shape
    alpha_B1 = alphas(process.schedule, t_B)[:, None]
    noise_BL = process.noise(torch.rand(shape, generator=generator, device=device))
    replaced_BL = torch.rand(shape, generator=generator, device=device) >= alpha_B1
    free_BL = torch.arange(shape[1], device=device) >= begin_B[:, None]
    return torch.where(replaced_BL & free_BL, noise_BL, tokens_BL), (t_B[:, None] * free_BL).float()


def full_posterior(model: Any, process: UniformProcess, noisy_BL: Tensor, t_B: Tensor, time_BL: Tensor) -> Tensor:
    """Return logits of p(x0_l | z_t), float32 `[B, L, V]`: the net's leave-one-out law times q(z_l | x0_l)."""
    logits_BLV: Tensor = model(input_ids=noisy_BL, time_BL=time_BL).logits.float()
    odds_B11 = process.log_odds(alphas(process.schedule, t_B)).to(logits_BLV)[:, None, None]
    z_BL1 = noisy_BL[..., None]
    return logits_BLV.scatter_add(-1, z_BL1, odds_B11.expand_as(z_BL1))


def uniform(
    model: Any,
    tokens_BL: Tensor,
    length_B: Tensor,
    generator: torch.Generator | None,
    begin_B: Tensor | None = None,
) -> Tensor:
    """Return the training loss `[B]`, in nats: -log p(x0_l | z_t) summed over the completion and its tail.

    t is uniform in (0, 1], antithetic over the batch. This is a reweighted loss, no bound: its best net is the same,
    the exact posterior of each position, but levels weigh alike where the bound of 2412.10193 (eq. 17) weighs the low
    ones more. `evaluate_uniform` reports a bound.
    """
    process = uniform_process(model.config)
    begin_B = torch.zeros_like(length_B) if begin_B is None else begin_B
    t_B = (1.0 - comb(len(tokens_BL), generator, tokens_BL.device)).clamp_min(EARLIEST)
    noisy_BL, time_BL = corrupt(process, tokens_BL, begin_B, t_B, generator)
    nll_BL = cross_entropy(full_posterior(model, process, noisy_BL, t_B, time_BL), tokens_BL)
    return (nll_BL * (time_BL > 0)).sum(-1)


def bound_terms(
    model: Any,
    tokens_BL: Tensor,
    begin_B: Tensor,
    index_B: Tensor,
    levels: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Return `levels` * KL(q(z_s | z_t, x0) || p(z_s | z_t)) `[B]` in nats, t = index / levels and s one level below.

    p is the sampler's own step of `levels`: sum_v p(x0 = v | z_t) q(z_s | z_t, v), the posterior in full. The mean over
    `index_B`, uniform in 1..levels, and over z_t bounds -log p(x0) from above, but for `prior_term`.
    """
    process = uniform_process(model.config)
    t_B, s_B = index_B / levels, (index_B - 1) / levels
    noisy_BL, time_BL = corrupt(process, tokens_BL, begin_B, t_B, generator)
    belief_BLV = full_posterior(model, process, noisy_BL, t_B, time_BL).double().softmax(-1)
    alpha_t, alpha_s = (alphas(process.schedule, at_B)[:, None, None] for at_B in (t_B, s_B))
    # The sampler's last step returns the draw of x0 itself, also where the schedule never gets quite clean.
    alpha_s = torch.where((index_B == 1)[:, None, None], 1.0, alpha_s)
    model_BLV = process.reverse(noisy_BL, belief_BLV, alpha_t, alpha_s)
    onehot_BLV = torch.nn.functional.one_hot(tokens_BL, process.size).double()
    exact_BLV = process.reverse(noisy_BL, onehot_BLV, alpha_t, alpha_s)
    kl_BL = (torch.xlogy(exact_BLV, exact_BLV) - torch.xlogy(exact_BLV, model_BLV)).sum(-1)
    return levels * (kl_BL * (time_BL > 0)).sum(-1)


def prior_term(process: UniformProcess, size_B: Tensor) -> Tensor:
    """Return KL(q(z_1 | x0) || noise) `[B]` for `size_B` noisy positions: 0 where the schedule ends in noise alone."""
    alpha, N = torch.tensor(process.schedule(1.0), dtype=torch.float64), len(process.noise_ids)
    same, other = alpha + (1.0 - alpha) / N, (1.0 - alpha) / N
    return size_B * (torch.xlogy(same, same * N) + (N - 1) * torch.xlogy(other, other * N)).to(size_B.device)


@torch.inference_mode()
def evaluate_uniform(
    model: Any,
    examples: list[dict[str, Any]],
    pad_id: int,
    passes: int = 4,
    levels: int = 1000,
    batch_size: int = 32,
    progress: bool = False,
) -> dict[str, float]:
    """Return `bound` on full canvases, in nats per token of text and end; prompts are seen and not scored.

    It bounds -log p(text, end, tail) under this model's unguided sampler with `levels` steps, estimated with one noise
    level for each example and pass. The padding's terms are in the sum, padding is not counted as tokens.
    """
    model.eval()
    process = uniform_process(model.config)
    generator = torch.Generator(model.device).manual_seed(0)
    collate = CanvasCollator(pad_id, model.config.max_position_embeddings, full_share=1.0)
    loader: DataLoader[Any] = DataLoader(examples, batch_size=batch_size, collate_fn=collate)  # type: ignore[arg-type]
    total, count = 0.0, 0
    for _ in tqdm(range(passes), desc="bound", disable=not progress):
        for batch in loader:
            tokens_BL, length_B, begin_B = (batch[name].to(model.device) for name in ("input_ids", "length", "begin"))
            index_B = (comb(len(tokens_BL), generator, tokens_BL.device) * levels).long().clamp_max(levels - 1) + 1
            total += float(bound_terms(model, tokens_BL, begin_B, index_B, levels, generator).sum())
            total += float(prior_term(process, tokens_BL.shape[1] - begin_B).sum())
            count += int((length_B - begin_B).sum())
    return {"bound": total / count}
