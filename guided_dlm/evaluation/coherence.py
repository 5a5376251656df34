"""Whether the tokens of a finished text agree with each other, as the model itself sees it.

Positions that a masked model predicts in parallel may contradict each other. Two measures say how much (2604.11035):
self-acceptance, how near each token is to the best one given all the others, and introspective acceptance, how well
the law that wrote a token agrees with the law of a model that sees the whole text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import Denoiser
from guided_dlm.errors import InvalidRequest
from guided_dlm.pipeline import GuidedPipeline
from guided_dlm.samplers import Corrector, Snapshot


@dataclass(frozen=True, kw_only=True, eq=False)
class RestLaw:
    """What the model says of each token of finished texts, given the prompt and all other tokens.

    `chance_NL` is p(x_l | rest) and `best_NL` the maximum over v of p(v | rest), fp64 `[N, L]`; both are 1 at positions
    that were not asked about. `calls` counts model calls.
    """

    chance_NL: Tensor
    best_NL: Tensor
    calls: int


@dataclass(frozen=True, kw_only=True)
class Coherence:
    """Means over all text tokens of all texts, from 0 to 1; `denoiser_calls` are those of sampling, for all texts."""

    self_acceptance: float
    introspective_acceptance: float
    denoiser_calls: int


@dataclass(kw_only=True, eq=False)
class Proposals:
    """A pipeline callback that keeps the probability with which each token was drawn: the proposal q of each position.

    It is the marginal, under the law of the step that wrote the token, of what stands there: guided, conditioned and
    truncated as that law was. A token that a corrector wrote again has the q of the last time. Rows must stay in place:
    not for particles or blocks.
    """

    parts: list[Tensor] = field(default_factory=list)

    def __call__(self, snapshot: Snapshot) -> None:
        """Note what a step wrote; its first step begins a batch."""
        before_BL, after_BL = snapshot.before.tokens_BL, snapshot.after.tokens_BL
        if snapshot.at.index == 0:
            self.parts.append(torch.ones(after_BL.shape, dtype=torch.float64, device=after_BL.device))
        q_BL = snapshot.prediction.law.probability(after_BL).double()
        self.parts[-1] = torch.where(after_BL != before_BL, q_BL, self.parts[-1])

    @property
    def q_NL(self) -> Tensor:
        """The proposals of all rows, fp64 `[N, L]`, on the CPU; 1 where nothing was written."""
        if not self.parts:
            raise InvalidRequest("Nothing was sampled with this callback; give it to a pipeline call first.")
        if len({part.shape[1] for part in self.parts}) > 1:
            raise InvalidRequest("Proposals reads runs over whole canvases; leave out block_length.")
        return torch.cat([part.cpu() for part in self.parts])


def text_positions(denoiser: Denoiser, tokens_NL: Tensor) -> Tensor:
    """Return the positions of text, bool `[N, L]`: before the first end of text or padding."""
    lengths = [denoiser.vocabulary.text_length(row) for row in tokens_NL.tolist()]
    return torch.arange(tokens_NL.shape[1]) < torch.tensor(lengths).reshape(-1, 1)


@torch.no_grad()
def rest_law(
    denoiser: Denoiser, canvas: Canvas, where_NL: Tensor | None = None, batch_size: int = 256, progress: bool = False
) -> RestLaw:
    """Hide one position at a time of finished canvases and ask the model what stands there.

    Each model call takes `batch_size` pairs of a text and a hidden position, so there are as many calls as positions
    asked about (bool `[N, L]`; all by default) / `batch_size`. The model is asked at noise 1 / L.

    Raises:
        InvalidRequest: the process has no mask to hide a position with.
    """
    process, length = denoiser.process, canvas.tokens_BL.shape[1]
    where_NL = torch.ones_like(canvas.fixed_BL) if where_NL is None else where_NL.to(canvas.fixed_BL.device)
    row_M, place_M = where_NL.nonzero(as_tuple=True)
    chance_NL = torch.ones(where_NL.shape, dtype=torch.float64, device=where_NL.device)
    best_NL = chance_NL.clone()
    free = replace(canvas, fixed_BL=torch.zeros_like(canvas.fixed_BL))
    begins = range(0, len(row_M), batch_size)
    for begin in tqdm(begins, desc="re-reading", unit="call", disable=not progress):
        row_K, place_K = row_M[begin : begin + batch_size], place_M[begin : begin + batch_size]
        here_KL = torch.arange(length, device=place_K.device) == place_K[:, None]
        hidden = process.hide(free.select(row_K), here_KL)
        p_KV = denoiser(hidden, 1.0 / length)[0][here_KL].double().softmax(-1)
        chance_NL[row_K, place_K] = p_KV.gather(-1, canvas.tokens_BL[row_K, place_K][:, None])[:, 0]
        best_NL[row_K, place_K] = p_KV.amax(-1)
    return RestLaw(chance_NL=chance_NL.cpu(), best_NL=best_NL.cpu(), calls=len(begins))


def self_acceptance(law: RestLaw, where_NL: Tensor) -> float:
    """Return the mean over these positions of min(1, p(x_l | rest) / q(x_l)), with q(x_l) = max_v p(v | rest).

    p is the model's law at position l when only l is hidden from it. So each term is p of the token that stands there
    over p of the best token there: 1 where the text has the model's own choice (2604.11035, for a bidirectional model).

    Raises:
        InvalidRequest: there is no position to average over.
    """
    return _mean_acceptance(law.chance_NL, law.best_NL, where_NL)


def introspective_acceptance(law: RestLaw, q_NL: Tensor, where_NL: Tensor) -> float:
    """Return the mean over these positions of min(1, p(x_l | rest) / q(x_l)), q from `Proposals` (2604.11035).

    p is the model's law when it sees the whole text but position l, without guides; q is the law that wrote the token.
    For independent positions it is 1.

    Raises:
        InvalidRequest: there is no position to average over.
    """
    return _mean_acceptance(law.chance_NL, q_NL, where_NL)


def _mean_acceptance(p_NL: Tensor, q_NL: Tensor, where_NL: Tensor) -> float:
    if p_NL.shape != q_NL.shape or p_NL.shape != where_NL.shape:
        raise InvalidRequest(
            f"Acceptance compares laws of the same positions; got shapes {tuple(p_NL.shape)}, {tuple(q_NL.shape)} and "
            f"{tuple(where_NL.shape)}. Sample whole canvases without particles."
        )
    if not bool(where_NL.any()):
        raise InvalidRequest("There is no text token to measure.")
    return float((p_NL / q_NL.clamp_min(1e-300)).clamp_max(1.0)[where_NL].mean())


def measure(
    pipeline: GuidedPipeline,
    *,
    prompt: str | None = None,
    num_samples: int = 64,
    corrector: str | Corrector | None = None,
    progress: bool = False,
    **request: Any,
) -> Coherence:
    """Sample texts and return how coherent they are; `request` holds further options of the pipeline's call.

    Raises:
        InvalidRequest: the model is not masked, all texts are empty, or an option is out of range.
    """
    denoiser = pipeline.denoiser
    if not (prompt is None or isinstance(prompt, str)):
        raise InvalidRequest(f"prompt={prompt!r}: coherence is measured for one prompt at a time; give a text or None.")
    for name in ("callback", "particles"):
        if name in request:
            raise InvalidRequest(f"{name}= cannot be measured with: the law of each draw would not be known.")
    if not denoiser.process.selects:
        raise InvalidRequest("Coherence hides one position at a time, and only masked models have a mask for that.")
    proposals = Proposals()
    out = pipeline(
        prompt, num_samples=num_samples, corrector=corrector or "none", progress=progress, callback=proposals, **request
    )
    if out.stopped:
        raise KeyboardInterrupt
    canvas = Canvas.from_prompts([prompt] * num_samples, denoiser.vocabulary, out.tokens.shape[1], denoiser.device)
    canvas = replace(canvas, tokens_BL=out.tokens.to(denoiser.device))
    where_NL = text_positions(denoiser, out.tokens)
    law = rest_law(denoiser, canvas, where_NL, progress=progress)
    return Coherence(
        self_acceptance=self_acceptance(law, where_NL),
        introspective_acceptance=introspective_acceptance(law, proposals.q_NL, where_NL),
        denoiser_calls=out.denoiser_calls,
    )
