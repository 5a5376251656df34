"""Step 3 of the loop: soft guides shift the model's logits, all energies in one backward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guided_dlm.constraint import Guide, Step
from guided_dlm.errors import GuidedError, GuideFailed, InvalidRequest, shorten

MAX_SHIFT = 50.0  # nats; a soft guide never forbids, so that a hard constraint can always be met


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """Temperature, top-k and top-p: what is not kept loses 50 nats instead of being forbidden."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        if not _is_real(self.temperature) or not (self.temperature == 0 or 0.01 <= self.temperature <= 100):
            raise InvalidRequest(f"temperature={self.temperature!r} must be 0 (the mode) or in [0.01, 100].")
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 1):
            raise InvalidRequest(f"top_k={self.top_k!r} must be a whole number, at least 1.")
        if self.top_p is not None and not (_is_real(self.top_p) and 0 < self.top_p <= 1):
            raise InvalidRequest(f"top_p={self.top_p!r} must be in (0, 1].")

    def apply(self, logits_BLV: Tensor) -> Tensor:
        """Return the truncated logits; temperature 0 is the caller's business (the mode, ranked at temperature 1)."""
        if self.temperature not in (0.0, 1.0):
            logits_BLV = logits_BLV / self.temperature
        if self.top_k is not None and self.top_k < logits_BLV.shape[-1]:
            threshold = logits_BLV.topk(self.top_k, dim=-1).values[..., -1:]
            logits_BLV = torch.where(logits_BLV < threshold, logits_BLV - MAX_SHIFT, logits_BLV)
        if self.top_p is not None and self.top_p < 1:
            logits_BLV = _nucleus(logits_BLV, self.top_p)
        return logits_BLV


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shift(logits_BLV: Tensor, guide: Guide, step: Step, known_BL: Tensor | None = None) -> Tensor:
    """Return logits moved by the guide's bias and by minus its energy's gradient, together at most 50 nats.

    The energy is differentiated at the relaxed tokens, which are the leaf (FORMULAS C): softmax(logits), and the token
    itself where `known_BL` has one (-1 elsewhere). A first-order shift, so a best effort. Energies are summed over
    rows, so a row's shift does not depend on the batch.
    """
    total_BLV: Tensor | None = None
    if guide.bias is not None:
        total_BLV = guide.bias(step)
    if guide.energy is not None:
        with torch.enable_grad():
            relaxed_BLV = _relax(logits_BLV.detach(), known_BL).requires_grad_()
            energy_B = guide.energy(relaxed_BLV, step)
            if energy_B.shape != logits_BLV.shape[:1]:
                raise InvalidRequest(
                    f"An energy must return one number per row, shape ({logits_BLV.shape[0]},); got "
                    f"{tuple(energy_B.shape)}."
                )
            try:
                (gradient_BLV,) = torch.autograd.grad(energy_B.sum(), relaxed_BLV)
            except GuidedError:
                raise
            except RuntimeError as error:
                raise GuideFailed(
                    f"Step {step.index + 1} of {step.total}: the energies cannot be differentiated in the relaxed "
                    f"tokens ({shorten(str(error))}). Compute them from the probabilities, not from their argmax."
                ) from error
        del relaxed_BLV, energy_B  # a vocabulary's worth of memory for each position
        if total_BLV is None:
            return logits_BLV - gradient_BLV.clamp(-MAX_SHIFT, MAX_SHIFT)
        total_BLV = total_BLV - gradient_BLV
    if total_BLV is None:
        return logits_BLV
    return logits_BLV + total_BLV.clamp(-MAX_SHIFT, MAX_SHIFT)


def classifier_free(with_BLV: Tensor, without_BLV: Tensor, scale: float) -> Tensor:
    """Return scale * log p(x | condition) + (1 - scale) * log p(x) per position (2507.08965, eq. 8).

    Each law is normalised first. Where they differ by more than 50 nats they count as differing by 50, and what the
    conditional model calls impossible stays so.
    """
    log_c_BLV, log_u_BLV = with_BLV.log_softmax(-1), without_BLV.log_softmax(-1)
    gap_BLV = (log_c_BLV - log_u_BLV).nan_to_num(0.0, MAX_SHIFT, -MAX_SHIFT).clamp(-MAX_SHIFT, MAX_SHIFT)
    return log_c_BLV + ((scale - 1.0) * gap_BLV).clamp(-MAX_SHIFT, MAX_SHIFT)


def _relax(logits_BLV: Tensor, known_BL: Tensor | None) -> Tensor:
    p_BLV = logits_BLV.softmax(-1)
    if known_BL is None:
        return p_BLV
    # A model's logits at a position that is already decided mean nothing.
    row_N, place_N = (known_BL >= 0).nonzero(as_tuple=True)
    p_BLV[row_N, place_N] = 0.0
    p_BLV[row_N, place_N, known_BL[row_N, place_N]] = 1.0
    return p_BLV


def floor(logits_BLV: Tensor, writable_V: Tensor) -> Tensor:
    """Return logits with full support on the writable tokens.

    A model's own -inf becomes 50 nats below its best, or its worst finite logit where that is lower still: what
    temperature and truncation left of an unlikely token stays above what the model calls impossible.
    """
    impossible_BLV = logits_BLV.isneginf()
    worst_BL1 = logits_BLV.masked_fill(impossible_BLV, torch.inf).amin(-1, keepdim=True)
    lowest_BL1 = torch.minimum(logits_BLV.amax(-1, keepdim=True) - MAX_SHIFT, worst_BL1)
    return torch.where(impossible_BLV & writable_V, lowest_BL1, logits_BLV)


def _nucleus(logits_BLV: Tensor, top_p: float) -> Tensor:
    sorted_BLV, order_BLV = logits_BLV.sort(dim=-1, descending=True)
    p_BLV = sorted_BLV.softmax(-1)
    outside_BLV = (p_BLV.cumsum(-1) - p_BLV) >= top_p
    penalty_BLV = torch.zeros_like(logits_BLV).scatter(-1, order_BLV, outside_BLV.to(logits_BLV.dtype) * MAX_SHIFT)
    return logits_BLV - penalty_BLV
