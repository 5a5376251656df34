"""Where the text ends: decided first, from its own marginals, for models whose canvases are text, end, padding.

Padding is easy to predict everywhere. Ranked by confidence with the rest it is written first and makes texts short;
left to the last, the model is asked about canvases that it never saw. To draw the end first is one more order of
writing the canvas: exact for an exact denoiser, and what masked models are trained for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import Denoiser
from guided_dlm.posterior import Factors, Posterior
from guided_dlm.posterior.chain import inverse_cdf
from guided_dlm.processes import Prediction
from guided_dlm.randomness import Purpose


@dataclass(frozen=True)
class Ending:
    """How a model's canvases end: text, one `end` token, then `padding` to the last position."""

    end: int
    padding: int

    @classmethod
    def of(cls, denoiser: Denoiser) -> Ending | None:
        """Return the ending of a model whose canvases are text, end, padding; None where the two are not told apart."""
        end, padding = denoiser.vocabulary.eos_id, denoiser.vocabulary.pad_id
        if not (denoiser.closed_tail and denoiser.process.selects) or end is None or padding in (None, end):
            return None
        return cls(end, padding)

    def is_open(self, known_BL: Tensor) -> bool:
        """Return whether some row has no end yet."""
        ended_BL = known_BL.eq(self.end)
        return not bool(ended_BL.any(-1).all())

    def sequential(self, logits_BLV: Tensor) -> Tensor:
        """Return logits in which padding at a position weighs as much as everything else there together.

        The factors say "the text is over by here" at every later position again, and a product over positions counts
        that one fact many times: lengths would crowd around their middle. In a well-formed canvas padding only follows
        the end, so its weight may be constant; what is left at each position is text against end, given that the text
        has come so far, and the end of text gets exactly the marginals that the model gave it. Each row loses
        `log_scale` nats.
        """
        padding = torch.tensor([self.padding], device=logits_BLV.device)
        rest_BL1 = logits_BLV.index_fill(-1, padding, -torch.inf).logsumexp(-1, keepdim=True)
        return logits_BLV.index_copy(-1, padding, rest_BL1)

    def write(self, canvas: Canvas, prediction: Prediction) -> Canvas:
        """Draw where the text ends from the marginals (their best place at temperature 0) and write it.

        Where the draw says that the text fills the canvas, its last token is written instead: that settles it as well.
        Nothing is written in a row that has an end, nor before text that is already there.
        """
        law, length = prediction.law, canvas.tokens_BL.shape[1]
        ended_B1 = (law.known_BL == self.end).any(-1, keepdim=True)
        text_ahead_BL = (law.known_BL >= 0).flip(-1).cumsum(-1).flip(-1) > 0
        end_BL = law.probability(self.end).double().masked_fill(ended_B1 | text_ahead_BL, 0.0)
        mass_BP = torch.cat([end_BL, self._full(law, end_BL)[:, None]], dim=-1)
        uniform_B2 = prediction.randomness.uniform(prediction.step, Purpose.END, 2)
        place_B = _pick(mass_BP, uniform_B2[:, 0], prediction.greedy)
        here_BL = torch.arange(length, device=end_BL.device) == place_B[:, None]
        after = canvas.write(torch.full_like(canvas.tokens_BL, self.end), here_BL & law.open_BL)
        full_B = (place_B == length) & ~ended_B1[:, 0] & law.open_BL[:, -1]
        if not bool(full_B.any()):
            return after
        last_BV = law.marginals()[:, -1].double()
        last_BV[:, [self.end, self.padding]] = 0.0
        token_B1 = _pick(last_BV, uniform_B2[:, 1], prediction.greedy)[:, None]
        last_BL = full_B[:, None] & (torch.arange(length, device=end_BL.device) == length - 1)
        return after.write(token_B1.expand_as(canvas.tokens_BL), last_BL)

    def _full(self, law: Factors | Posterior, end_BL: Tensor) -> Tensor:
        """Return the probability `[B]` of a text that fills the canvas."""
        if isinstance(law, Factors):
            return (1.0 - end_BL[:, -1] - law.probability(self.padding)[:, -1]).clamp_min(0.0)
        # Below rounding it is nothing: the automaton may not allow such a text.
        rest_B = 1.0 - end_BL.sum(-1)
        return torch.where(rest_B > 1e-9, rest_B, 0.0)


def _pick(mass_BP: Tensor, uniform_B: Tensor, greedy: bool) -> Tensor:
    return mass_BP.argmax(-1) if greedy else inverse_cdf(mass_BP, uniform_B)[:, 0]


def log_scale(known_BL: Tensor) -> Tensor:
    """Return the nats `[B]` that `Ending.sequential` took from log Z: each open position counted its weight twice."""
    return (known_BL < 0).sum(-1).double() * math.log(2.0)
