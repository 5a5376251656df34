"""The canvas: the tokens or latents being written, and what of them is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guided_dlm.errors import InvalidRequest
from guided_dlm.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, eq=False)
class Canvas:
    """A batch of prompts and the completions being written after them.

    Attributes:
        prompt_BP: int64 `[B, P]`, left-padded, so that a short prompt keeps its distance to the completion.
        visible_BP: bool `[B, P]`, False at the padding.
        tokens_BL: int64 `[B, L]`, the completion as it stands.
        fixed_BL: bool `[B, L]`, positions given from the start and never rewritten.
        latents_BLD: float `[B, L, D]`, for processes that write vectors instead of tokens.
        previous_BLD: float `[B, L, D]`, what the step before took for clean, for solvers that look back one step.
        ahead_BR: int64 `[B, R]`, where the completion is a block of a canvas: the masks and given tokens after it,
            which a masked model reads and does not predict.
        before_BK: int64 `[B, K]`, where the completion is a block of a canvas: what was written before it. It is the
            end of the prompt too.
    """

    prompt_BP: Tensor
    visible_BP: Tensor
    tokens_BL: Tensor
    fixed_BL: Tensor
    latents_BLD: Tensor | None = None
    previous_BLD: Tensor | None = None
    ahead_BR: Tensor | None = None
    before_BK: Tensor | None = None

    @classmethod
    def from_prompts(
        cls, prompts: Sequence[str | None], vocabulary: Vocabulary, length: int, device: torch.device
    ) -> Canvas:
        """Encode and left-pad the prompts; the completion starts as `length` open positions.

        Raises:
            InvalidRequest: `length` is not positive, or a prompt cannot be written with the vocabulary.
        """
        if length < 1:
            raise InvalidRequest(f"A canvas of {length} tokens has no room for text; set max_new_tokens to at least 1.")
        encoded = [vocabulary.encode(prompt) if prompt else [] for prompt in prompts]
        width = max(map(len, encoded), default=0)
        filler = vocabulary.pad_id if vocabulary.pad_id is not None else 0
        rows, seen = [], []
        for ids in encoded:
            rows.append([filler] * (width - len(ids)) + ids)
            seen.append([False] * (width - len(ids)) + [True] * len(ids))
        shape = (len(prompts), width)
        return cls(
            prompt_BP=torch.tensor(rows, dtype=torch.int64, device=device).reshape(shape),
            visible_BP=torch.tensor(seen, dtype=torch.bool, device=device).reshape(shape),
            tokens_BL=torch.zeros(len(prompts), length, dtype=torch.int64, device=device),
            fixed_BL=torch.zeros(len(prompts), length, dtype=torch.bool, device=device),
        )

    def fix(self, tokens_BL: Tensor) -> Canvas:
        """Give tokens for good: int64 `[B, L]`, -1 where nothing is given."""
        given_BL = tokens_BL >= 0
        return replace(
            self, tokens_BL=torch.where(given_BL, tokens_BL, self.tokens_BL), fixed_BL=self.fixed_BL | given_BL
        )

    def write(self, tokens_BL: Tensor, where_BL: Tensor) -> Canvas:
        """Return the canvas with `tokens_BL` at the positions asked for, never at fixed ones."""
        return replace(self, tokens_BL=torch.where(where_BL & ~self.fixed_BL, tokens_BL, self.tokens_BL))

    def select(self, row_N: Tensor) -> Canvas:
        """Return these rows, int64 `[N]`."""
        fields = {name: value[row_N] for name, value in vars(self).items() if value is not None}
        return replace(self, **fields)

    def close_tail(self, end: int, padding: int, open_BL: Tensor) -> Canvas:
        """Write padding at the open positions after the first written end of text: nothing else can stand there."""
        ends_BL = ((self.tokens_BL == end) & ~open_BL).long()
        after_BL = (ends_BL.cumsum(-1) - ends_BL) > 0
        return self.write(torch.full_like(self.tokens_BL, padding), after_BL & open_BL)

    def given_BL(self) -> Tensor:
        """Return the fixed tokens `[B, L]`, -1 elsewhere."""
        return torch.where(self.fixed_BL, self.tokens_BL, -1)
