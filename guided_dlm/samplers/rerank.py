"""Energy reranking: several joint draws per step, one kept by what an autoregressive model says of the whole text.

Positions that are drawn in parallel may contradict each other; a causal model reads them together and knows. Draws
cost no model call of the denoiser, so a step with reranking is as many calls as one without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guided_dlm.errors import InvalidRequest
from guided_dlm.posterior import Factors
from guided_dlm.posterior.chain import inverse_cdf
from guided_dlm.processes import Prediction
from guided_dlm.randomness import Purpose, Randomness, particle_seeds
from guided_dlm.vocabulary import Vocabulary
from guided_dlm.watch import watched_reward

_LEAST = -50.0  # nats: what a token costs that the model itself rules out and a guide or a constraint does not
Score = Callable[[list[str]], Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Rerank:
    """Draw `candidates` clean texts in each step, keep one with probability proportional to exp(score) / p(x0 | z_t).

    With log p(text) of an autoregressive model for `score` (`Judge.log_p`), this is the importance sampling of EDLM
    (2410.21357, algorithm 1): p is the model's own factorised law of the text, so that with many candidates the draw
    has the autoregressive law, as far as the denoiser proposes it. Guides and constraints stay in force: a candidate is
    drawn from the guided, conditioned posterior, and only the model's own factors are divided out. Finitely many
    candidates are an approximation; hard constraints hold on every one of them, and all are well formed: text, end,
    padding. `score` sees the completion alone, without its prompt.

    `window` is the part of the run that reranks, as progress from 0 to 1.
    """

    score: Score
    candidates: int = 8
    window: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if not callable(self.score):
            raise InvalidRequest(f"Rerank: score={self.score!r} must take a list of texts; give judge.log_p.")
        if isinstance(self.candidates, bool) or not isinstance(self.candidates, int) or self.candidates < 2:
            raise InvalidRequest(f"Rerank: candidates={self.candidates!r} must be a whole number, at least 2.")
        try:
            first, last = map(float, self.window)
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"Rerank: window={self.window!r} must be two numbers.") from error
        if not 0.0 <= first < last <= 1.0:
            raise InvalidRequest(f"Rerank: window={self.window!r} must rise between 0 and 1.")
        object.__setattr__(self, "window", (first, last))

    def covers(self, progress: float) -> bool:
        """Whether this part of the run reranks."""
        return self.window[0] <= progress < self.window[1]

    def choice(self, own_BLV: Tensor, vocabulary: Vocabulary) -> Callable[[Prediction], Tensor]:
        """Return what draws the clean text of a step from its prediction; `own_BLV` are the model's own logits."""

        def texts_score(texts: list[str], tokens: Tensor) -> Any:
            return torch.as_tensor(self.score(texts), dtype=torch.float64)

        return partial(_best_of, own_BLV=own_BLV, rerank=self, vocabulary=vocabulary, score=texts_score)


def _best_of(prediction: Prediction, own_BLV: Tensor, rerank: Rerank, vocabulary: Vocabulary, score: Any) -> Tensor:
    """Return one of several draws per row, int64 `[B, L]`."""
    law, count = prediction.law, rerank.candidates
    own, seeds_BK = Factors(own_BLV, law.known_BL), particle_seeds(prediction.randomness.seeds_B, count)
    checked = watched_reward(score, f"Rerank, score at step {prediction.step + 1}")
    drawn, log_w = [], []
    for seeds_B in seeds_BK.reshape(-1, count).T:
        randomness = Randomness(seeds_B.contiguous(), prediction.randomness.first_step)
        tokens_BL = prediction.draw(randomness)
        texts = [vocabulary.decode(row) for row in tokens_BL.tolist()]
        drawn.append(tokens_BL)
        log_w.append(
            checked(texts, tokens_BL).to(tokens_BL.device) - own.log_p(tokens_BL).double().clamp_min(_LEAST).sum(-1)
        )
    uniform_B = prediction.randomness.uniform(prediction.step, Purpose.RESAMPLE, 1)[:, 0]
    pick_B1 = inverse_cdf(torch.stack(log_w, dim=-1).softmax(-1), uniform_B)
    tokens_BKL = torch.stack(drawn, dim=1)
    return tokens_BKL.gather(1, pick_B1[..., None].expand(-1, 1, tokens_BKL.shape[-1]))[:, 0]
