"""What the sampler asks of a model: a canvas and a time in, one distribution over clean tokens per position out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guided_dlm.automata import TokenAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes import Process
from guided_dlm.sampling_defaults import SamplingDefaults
from guided_dlm.vocabulary import Vocabulary


class Denoiser(ABC):
    """An adapter around a model; hides target shifts, caches and self-conditioning.

    Attributes:
        vocabulary: the model's tokens.
        process: the corruption the model was trained to undo.
        capacity: the most tokens that prompt and completion may have together; None for no limit.
        tail: "scored" where the model was trained on the padding after the end of text, "free" where not.
        closed_tail: whether every canvas of the model is text, end, padding, so that a written end settles the rest.
        full_support: whether every writable token always has a positive probability.
        block_length: the most positions of one call, for a model that writes blocks left to right; None for whole
            canvases. What such a model carries is as good for the block after this one, whose prompt is longer.
        sampling: steps, temperature and other settings of calls that name none.
    """

    vocabulary: Vocabulary
    process: Process
    capacity: int | None = None
    tail: str = "scored"
    closed_tail: bool = False
    full_support: bool = True
    block_length: int | None = None
    sampling: SamplingDefaults = SamplingDefaults()

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model lives."""

    @property
    def embedding_VD(self) -> Tensor | None:
        """The model's input embedding, a row for each token of the vocabulary, or None where it has none."""
        return None

    @property
    def prior_V(self) -> Tensor | None:
        """How likely each token is in a text, fp64 `[V]`, as far as one table can say; None where nothing is said.

        Models that write blocks weigh with it what may follow a block, which they do not predict.
        """
        return None

    @abstractmethod
    def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """Return float logits `[B, L, V]` over clean tokens for the completion, and what to carry to the next step.

        Specials other than end of text and padding are -inf. Rows do not influence each other. A masked model of whole
        canvases also reads `canvas.ahead_BR`, where it is given: what comes after a block.
        """

    def at_open(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """As a call, for those who look at positions that are not written yet only; here it is the call itself.

        A model may do less work. Logits elsewhere mean nothing, but the same tokens are finite.
        """
        return self(canvas, t, carry)

    def differentiable(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """Return what a call returns, the logits with their graph back to `canvas.latents_BLD`; for latent guidance.

        What is carried has no gradient.

        Raises:
            InvalidRequest: the model reads no latents, or its adapter does not offer their gradient.
        """
        raise InvalidRequest(
            f"{type(self).__name__} offers no gradient with respect to latents, which latent guidance needs; leave out "
            "latent_guidance, or use a model of Gaussian noise on embeddings."
        )

    def log_evidence(
        self,
        canvas: Canvas,
        t: float,
        automata: TokenAutomaton | Sequence[TokenAutomaton] | None,
        bias_BLV: Tensor | None = None,
    ) -> Tensor | None:
        """Return log E[weight(x0) exp(bias(x0)) | x_t] under the model's joint law of all positions, fp64 `[B]`.

        It is differentiable in `canvas.latents_BLD`. None, as here, where the model knows one factor per position only.
        """
        return None
