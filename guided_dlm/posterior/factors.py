"""Independent positions: the posterior when no hard constraint is in force."""

from __future__ import annotations

import torch
from torch import Tensor

from guided_dlm.posterior.chain import inverse_cdf


class Factors:
    """A model's prediction as it is: one distribution per position, independent of the others.

    Args:
        logits_BLV: float `[B, L, V]`; normalised here.
        known_BL: int64 `[B, L]`, the token where it is already decided, -1 where it is open.
    """

    def __init__(self, logits_BLV: Tensor, known_BL: Tensor | None = None) -> None:
        """Normalise the open positions."""
        self.shape = logits_BLV.shape
        self.known_BL = all_open(logits_BLV) if known_BL is None else known_BL
        self.open_BL = self.known_BL < 0
        self._log_p_MV = open_rows(logits_BLV, self.open_BL).log_softmax(-1)

    def marginals(self) -> Tensor:
        """Return the probability of each token `[B, L, V]`, one-hot where known."""
        p_BLV = self._log_p_MV.new_zeros(self.shape)
        p_BLV.scatter_(-1, self.known_BL.clamp_min(0)[..., None], 1.0)
        p_BLV[self.open_BL] = self._log_p_MV.exp()
        return p_BLV

    def confidence(self, without: int | None = None) -> Tensor:
        """Return the largest marginal `[B, L]`, leaving out one token id if asked; 1 where known."""
        return self._fill(_best(self._log_p_MV, without).exp(), 1.0)

    def entropy(self) -> Tensor:
        """Return the entropy of each marginal `[B, L]`, in nats; 0 where known."""
        log_p_MV = self._log_p_MV
        return self._fill(-(log_p_MV.exp() * log_p_MV.clamp_min(-1e4)).sum(-1), 0.0)

    def probability(self, token: int | Tensor) -> Tensor:
        """Return the marginal `[B, L]` of one token, or of the token at each position of int64 `[B, L]`."""
        token_BL = token if isinstance(token, Tensor) else torch.full_like(self.known_BL, token)
        p_M1 = self._log_p_MV.gather(1, token_BL[self.open_BL][:, None]).exp()
        return self._fill(p_M1[:, 0], self.known_BL == token_BL)

    def log_p(self, token_BL: Tensor) -> Tensor:
        """Return the log-probability `[B, L]` of the token at each position; 0 where known."""
        return self._fill(self._log_p_MV.gather(1, token_BL[self.open_BL][:, None])[:, 0], 0.0)

    def draw(self, path_BL: Tensor, token_BL: Tensor, where_BL: Tensor | None = None) -> Tensor:
        """Return one joint draw `[B, L]` by inverse CDF from uniforms `[B, L]`; -1 at positions not asked for."""
        wanted_BL = self.open_BL if where_BL is None else self.open_BL & where_BL
        rows_MV = self._log_p_MV[wanted_BL[self.open_BL]]
        tokens_BL = self.known_BL.clone()
        tokens_BL[wanted_BL] = inverse_cdf(rows_MV.double().exp(), token_BL[wanted_BL])[:, 0]
        return tokens_BL

    def mode(self) -> Tensor:
        """Return the most probable canvas `[B, L]`."""
        return self._fill(self._log_p_MV.argmax(-1), self.known_BL)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return one joint draw `[B, L]`."""
        uniform_BL = torch.rand(self.shape[:2], generator=generator, device=self.known_BL.device, dtype=torch.float64)
        return self.draw(uniform_BL, uniform_BL)

    def _fill(self, open_M: Tensor, known: Tensor | float) -> Tensor:
        shape = (*self.known_BL.shape, *open_M.shape[1:])
        base = known.to(open_M.dtype).clone() if isinstance(known, Tensor) else open_M.new_full(shape, known)
        base[self.open_BL] = open_M
        return base


def open_rows(logits_BLV: Tensor, open_BL: Tensor) -> Tensor:
    """Return the logits of the open positions `[M, V]`, at least float32, without a copy where all are open."""
    if logits_BLV.dtype in (torch.float16, torch.bfloat16):
        logits_BLV = logits_BLV.float()
    flat_NV = logits_BLV.flatten(0, 1)
    index_M = open_BL.flatten().nonzero()[:, 0]
    return flat_NV if len(index_M) == len(flat_NV) else flat_NV.index_select(0, index_M)


def all_open(logits_BLV: Tensor) -> Tensor:
    """Return known tokens `[B, L]` of a canvas where nothing is known: -1 everywhere."""
    return torch.full(logits_BLV.shape[:2], -1, dtype=torch.int64, device=logits_BLV.device)


def _best(log_p_MV: Tensor, without: int | None) -> Tensor:
    if without is None:
        return log_p_MV.amax(-1)
    left, right = log_p_MV[:, :without], log_p_MV[:, without + 1 :]
    sides = [side.amax(-1) for side in (left, right) if side.shape[1]]
    return torch.stack(sides).amax(0)
