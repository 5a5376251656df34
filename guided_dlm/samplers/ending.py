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

    def open_rows(self, known_BL: Tensor) -> Tensor:
        """Return the rows that have no end yet, bool `[B]`."""
        return ~known_BL.eq(self.end).any(-1)

    def sequential(self, logits_BLV: Tensor, open_B: Tensor) -> Tensor:
        """Return logits in which padding at a position weighs as much as everything else there together.

        The factors say "the text is over by here" at every later position again, and a product over positions counts
        that one fact many times: lengths would crowd around their middle. In a well-formed canvas padding only follows
        the end, so its weight may be constant; what is left at each position is text against end, given that the text
        has come so far, and the end of text gets exactly the marginals that the model gave it. Rows that have an end
        keep their logits; each open position of the others takes log 2 from log Z.
        """
        padding = torch.tensor([self.padding], device=logits_BLV.device)
        rest_BL1 = logits_BLV.index_fill(-1, padding, -torch.inf).logsumexp(-1, keepdim=True)
        kept_BL1 = logits_BLV.index_select(-1, padding)
        return logits_BLV.index_copy(-1, padding, torch.where(open_B[:, None, None], rest_BL1, kept_BL1))

    def inside(self, logits_BLV: Tensor, known_BL: Tensor) -> Tensor:
        """Return logits without end and padding where the text's end is settled: what is open then is text."""
        settled_B = ~self.open_rows(known_BL) | (known_BL[:, -1] >= 0)
        signs = torch.tensor([self.end, self.padding], device=logits_BLV.device)
        return torch.where(settled_B[:, None, None], logits_BLV.index_fill(-1, signs, -torch.inf), logits_BLV)

    def log_scale(self, known_BL: Tensor) -> Tensor:
        """Return what `sequential` took from each row's log Z, `[B]`."""
        return self.open_rows(known_BL) * (known_BL < 0).sum(-1) * math.log(2.0)

    def write(self, canvas: Canvas, prediction: Prediction) -> Canvas:
        """Write where the text of each row ends, and the padding after it.

        The place comes from its marginals: under an automaton it is read off the step's joint draw, which is a witness
        that a text fits. At temperature 0 it is the likeliest place. Where it says that the text fills the canvas, the
        last token is written instead: that settles it as well. Rows that have an end stay as they are.
        """
        law, position_L = prediction.law, torch.arange(canvas.tokens_BL.shape[1], device=canvas.tokens_BL.device)
        open_B1 = self.open_rows(law.known_BL)[:, None]
        if isinstance(law, Posterior) and not prediction.greedy:
            drawn_BL = prediction.tokens()
            here_BL, last_B1 = drawn_BL == self.end, drawn_BL[:, -1:]
        else:
            here_BL, last_B1 = self._from_marginals(prediction)
        last_BL = ~here_BL.any(-1, keepdim=True) & (position_L == len(position_L) - 1)
        token_BL = torch.where(last_BL, last_B1, self.end)
        written_BL = (here_BL | last_BL) & open_B1 & law.open_BL
        return canvas.write(token_BL, written_BL).close_tail(self.end, self.padding, law.open_BL & ~written_BL)

    def log_mass(self, law: Factors | Posterior, after: Canvas) -> Tensor:
        """Return the log-probability `[B]`, fp64, with which `write` would leave the canvas like this; 0 if closed."""
        tokens_BL, open_B = after.tokens_BL, self.open_rows(law.known_BL)
        ended_B = (tokens_BL == self.end).any(-1)
        if isinstance(law, Posterior):
            place_BL = torch.where(ended_B[:, None], tokens_BL == self.end, _last(tokens_BL))
            log_mass_B = (law.probability(tokens_BL) * place_BL).sum(-1).log()
        else:
            mass_BP = self._masses(law)
            share_BP = mass_BP / mass_BP.sum(-1, keepdim=True)
            last_BV = law.marginals()[:, -1].double()
            last_BV[:, [self.end, self.padding]] = 0.0
            last_B = (last_BV / last_BV.sum(-1, keepdim=True)).gather(-1, tokens_BL[:, -1:])[:, 0]
            ended_mass_B = (share_BP[:, :-1] * (tokens_BL == self.end)).sum(-1)
            log_mass_B = torch.where(ended_B, ended_mass_B, share_BP[:, -1] * last_B).log()
        return torch.where(open_B, log_mass_B, 0.0)

    def _masses(self, law: Factors | Posterior) -> Tensor:
        """Return the mass of the end at each position, and of a text that fills the canvas, `[B, L + 1]`."""
        text_ahead_BL = (law.known_BL >= 0).flip(-1).cumsum(-1).flip(-1) > 0
        end_BL = law.probability(self.end).double().masked_fill(text_ahead_BL, 0.0)
        full_B = (1.0 - end_BL[:, -1] - law.probability(self.padding)[:, -1]).clamp_min(0.0)
        return torch.cat([end_BL, full_B[:, None]], dim=-1)

    def _from_marginals(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Return where the end goes, bool `[B, L]`, and the last token `[B, 1]` of texts that fill the canvas."""
        law, greedy = prediction.law, prediction.greedy
        mass_BP = self._masses(law)
        uniform_B2 = prediction.randomness.uniform(prediction.step, Purpose.END, 2)
        place_B1 = _pick(mass_BP, uniform_B2[:, 0], greedy)
        last_B1 = torch.zeros_like(place_B1)
        width = law.known_BL.shape[1]
        if bool((place_B1 == width).any()):
            last_BV = law.marginals()[:, -1].double()
            last_BV[:, [self.end, self.padding]] = 0.0
            last_B1 = _pick(last_BV, uniform_B2[:, 1], greedy)
        return torch.arange(width, device=place_B1.device) == place_B1, last_B1


def tail_of(denoiser: Denoiser, ending: Ending | None, tokens_BL: Tensor) -> Tensor:
    """Return the positions that say how long a text is, bool `[B, L]`.

    These are the end of text and the padding; where a model's canvases end (`ending`), also the last position of a text
    that fills its canvas.
    """
    signs = [i for i in (denoiser.vocabulary.eos_id, denoiser.vocabulary.pad_id) if i is not None]
    tail_BL = torch.isin(tokens_BL, torch.tensor(signs, dtype=tokens_BL.dtype, device=tokens_BL.device))
    return tail_BL if ending is None else tail_BL | (ending.open_rows(tokens_BL)[:, None] & _last(tokens_BL))


def _last(tokens_BL: Tensor) -> Tensor:
    return torch.arange(tokens_BL.shape[1], device=tokens_BL.device).expand_as(tokens_BL) == tokens_BL.shape[1] - 1


def _pick(mass_BP: Tensor, uniform_B: Tensor, greedy: bool) -> Tensor:
    return mass_BP.argmax(-1, keepdim=True) if greedy else inverse_cdf(mass_BP, uniform_B)
