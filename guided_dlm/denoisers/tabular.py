"""A denoiser that knows the whole joint law: exact conditionals of a small explicit problem, for exact tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.denoisers.base import Denoiser
from guided_dlm.errors import InvalidRequest
from guided_dlm.processes import MaskedProcess, Process
from guided_dlm.vocabulary import Vocabulary


class TabularDenoiser(Denoiser):
    """Bayes' rule over an explicit joint `[V] * L`, for any process that can tell q(canvas | clean tokens).

    A canvas that the joint cannot have produced gets factors that are uniform over the writable tokens.
    """

    full_support = False

    def __init__(self, joint: Tensor, vocabulary: Vocabulary, process: Process | None = None) -> None:
        """Normalise the joint; the process is masked diffusion with the vocabulary's mask token by default.

        Raises:
            InvalidRequest: the joint's sides are not the vocabulary's size, or it is negative or zero everywhere.
        """
        size, length = len(vocabulary), joint.dim()
        if any(side != size for side in joint.shape):
            raise InvalidRequest(f"A joint over {size} tokens has all sides {size}; got shape {tuple(joint.shape)}.")
        if bool((joint < 0).any()) or float(joint.sum()) <= 0:
            raise InvalidRequest("A joint needs probabilities that are not negative and not all zero.")
        if process is None:
            if vocabulary.mask_id is None:
                raise InvalidRequest("Masked diffusion needs a vocabulary with a mask_id; give one, or a process.")
            process = MaskedProcess(mask_id=vocabulary.mask_id)
        self.vocabulary, self.process, self.capacity = vocabulary, process, length
        self.joint = joint.double() / joint.double().sum()
        support = self.joint.nonzero()
        self._log_joint_N = self.joint[tuple(support.T)].log()
        self._support_NLV = torch.nn.functional.one_hot(support, size).double()
        self._writable_V = torch.from_numpy(vocabulary.writable).to(self.joint)

    @property
    def device(self) -> torch.device:
        """Where the joint lives."""
        return self.joint.device

    def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """Return log p(x0_l | canvas), fp64 `[B, L, V]`, by summing over the joint."""
        if canvas.prompt_BP.shape[1] or canvas.tokens_BL.shape[1] != self.joint.dim():
            raise InvalidRequest(
                f"This joint has {self.joint.dim()} positions and takes no prompt; got a prompt of "
                f"{canvas.prompt_BP.shape[1]} and a completion of {canvas.tokens_BL.shape[1]} tokens."
            )
        likelihood_BLV = self.process.log_likelihood(canvas, t, len(self.vocabulary))
        # Finite stand-ins for -inf, so that 0 * -inf makes no NaN in the sum over positions.
        evidence_BN = torch.einsum("blv,nlv->bn", likelihood_BLV.clamp_min(-1e9), self._support_NLV)
        score_BN = evidence_BN + self._log_joint_N
        impossible_B11 = (score_BN.amax(-1) < -1e8)[:, None, None]
        marginals_BLV = torch.einsum("bn,nlv->blv", score_BN.softmax(-1), self._support_NLV)
        return torch.where(impossible_B11, self._writable_V, marginals_BLV).log(), None
