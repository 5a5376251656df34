"""`Repetition`: a soft pull away from n-grams that stand in the text already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from constraints.classifier import check_strength
from guided_dlm.constraint import CompileContext, Constraint, Guide, Step
from guided_dlm.errors import InvalidRequest
from guided_dlm.registry import register


@register("repetition")
@dataclass(frozen=True, kw_only=True, repr=False)
class Repetition(Constraint):
    """Push away from writing an n-gram of `max_ngram` tokens a second time; shorter ones may repeat freely.

    A token loses `strength` nats for each copy that it would complete, as the last or the first token of the n-gram, at
    every step. Copies that are written in one and the same step are not seen: a best effort.
    """

    max_ngram: int = 3
    strength: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what is no length or no number."""
        check_strength(self.strength, "Repetition")
        if isinstance(self.max_ngram, bool) or not isinstance(self.max_ngram, int) or self.max_ngram < 1:
            raise InvalidRequest(f"Repetition: max_ngram={self.max_ngram!r} is a number of tokens, at least 1.")

    def compile(self, context: CompileContext) -> Guide:
        """Return the bias, which reads the written tokens at each step."""
        size = len(context.vocabulary)
        text_V = torch.from_numpy(context.vocabulary.is_text).to(context.device)

        def bias(step: Step) -> Tensor:
            known_BL = step.tokens_BL if step.known_BL is None else step.known_BL
            known_BL = torch.where(text_V[known_BL.clamp_min(0)] & (known_BL >= 0), known_BL, -1)
            before = self.max_ngram - 1
            copies_BLV = _completed(known_BL, before, size)
            if before:  # read backwards, the first token of an n-gram is its last
                copies_BLV = copies_BLV + _completed(known_BL.flip(1), before, size).flip(1)
            return -self.strength * copies_BLV

        return Guide(bias=bias)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Return minus the number of n-grams (of tokens, else of words) that repeat an earlier one."""
        units: Sequence[object] = text.split() if tokens is None else tokens
        grams = [tuple(units[i : i + self.max_ngram]) for i in range(len(units) - self.max_ngram + 1)]
        return float(len(set(grams)) - len(grams))

    def __repr__(self) -> str:
        """Show both numbers."""
        return f"Repetition(max_ngram={self.max_ngram}, strength={self.strength})"


def _completed(tokens_BL: Tensor, before: int, size: int) -> Tensor:
    """Return how often each token follows, elsewhere, the `before` tokens that stand before a position, `[B, L, V]`."""
    rows, length = tokens_BL.shape
    if before >= length:  # no such n-gram fits the canvas
        return torch.zeros(rows, length, size, device=tokens_BL.device)
    same_BLL = (~torch.eye(length, dtype=torch.bool, device=tokens_BL.device)).expand(rows, -1, -1)
    for distance in range(1, before + 1):
        shifted_BL = torch.full_like(tokens_BL, -1)
        shifted_BL[:, distance:] = tokens_BL[:, : length - distance]
        same_BLL = same_BLL & (shifted_BL[:, :, None] == shifted_BL[:, None, :]) & (shifted_BL >= 0)[:, :, None]
    written_BL = tokens_BL >= 0
    copies_BLV = torch.zeros(rows, length, size, device=tokens_BL.device)
    index_BLL = tokens_BL.clamp_min(0)[:, None, :].expand(-1, length, -1)
    return copies_BLV.scatter_add_(-1, index_BLL, (same_BLL & written_BL[:, None, :]).to(copies_BLV.dtype))
