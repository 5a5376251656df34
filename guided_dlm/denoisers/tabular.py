"""A denoiser that knows the whole joint law: exact conditionals of a small explicit problem, for exact tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from guided_dlm.automata import TokenAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers.base import Denoiser
from guided_dlm.errors import Infeasible, InvalidRequest
from guided_dlm.posterior import Posterior
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
        self._support_NL = self.joint.nonzero()
        self._log_joint_N = self.joint[tuple(self._support_NL.T)].log()
        self._support_NLV = torch.nn.functional.one_hot(self._support_NL, size).double()
        self._writable_V = torch.from_numpy(vocabulary.writable).to(self.joint)

    @property
    def device(self) -> torch.device:
        """Where the joint lives."""
        return self.joint.device

    def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """Return log p(x0_l | canvas), fp64 `[B, L, V]`, by summing over the joint."""
        score_BN = self._scores(canvas, t)
        impossible_B11 = (score_BN.amax(-1) < -1e8)[:, None, None]
        marginals_BLV = torch.einsum("bn,nlv->blv", score_BN.softmax(-1), self._support_NLV)
        return _log(torch.where(impossible_B11, self._writable_V, marginals_BLV)), None

    def differentiable(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        """Return what a call returns, the logits with their graph back to `canvas.latents_BLD`."""
        if not self.process.shifts:
            return super().differentiable(canvas, t, carry)
        with torch.enable_grad():
            return self(canvas, t, carry)

    def log_evidence(
        self,
        canvas: Canvas,
        t: float,
        automata: TokenAutomaton | Sequence[TokenAutomaton] | None,
        bias_BLV: Tensor | None = None,
    ) -> Tensor:
        """Return log E[weight(x0) exp(bias(x0)) | x_t], fp64 `[B]`, by summing over the joint.

        Raises:
            Infeasible: the joint gives every canvas that is wished for probability 0.
        """
        with torch.enable_grad():
            score_BN = self._scores(canvas, t)
            wished_BN = score_BN if automata is None else score_BN + self._log_weights(automata)
            if bias_BLV is not None:
                shape = (len(score_BN), *self._support_NLV.shape[1:])
                wished_BN = wished_BN + torch.einsum("blv,nlv->bn", bias_BLV.expand(shape).double(), self._support_NLV)
            if bool(wished_BN.isneginf().all(-1).any()):
                raise Infeasible(
                    "Every canvas that the constraint accepts has probability 0 under this joint, so nothing leads "
                    "there; change the constraint or the joint, or leave out latent_guidance."
                )
            return wished_BN.logsumexp(-1) - score_BN.logsumexp(-1)

    def _log_weights(self, automata: TokenAutomaton | Sequence[TokenAutomaton]) -> Tensor:
        """Return the log-weight of each canvas of the joint, fp64 `[N]`, or `[B, N]` with an automaton for each row."""
        if not isinstance(automata, TokenAutomaton):
            found = {automaton: self._log_weights(automaton) for automaton in dict.fromkeys(automata)}
            return torch.stack([found[automaton] for automaton in automata])
        # With every position known, log Z is the log-weight of the canvas itself.
        return Posterior(torch.zeros_like(self._support_NLV), automata, known_BL=self._support_NL).log_z

    def _scores(self, canvas: Canvas, t: float) -> Tensor:
        """Return log p(canvas | x0) + log p(x0), fp64 `[B, N]`, up to a constant, for each canvas x0 of the joint."""
        if canvas.prompt_BP.shape[1] or canvas.tokens_BL.shape[1] != self.joint.dim():
            raise InvalidRequest(
                f"This joint has {self.joint.dim()} positions and takes no prompt; got a prompt of "
                f"{canvas.prompt_BP.shape[1]} and a completion of {canvas.tokens_BL.shape[1]} tokens."
            )
        likelihood_BLV = self.process.log_likelihood(canvas, t, len(self.vocabulary))
        # Finite stand-ins for -inf, so that 0 * -inf makes no NaN in the sum over positions.
        evidence_BN = torch.einsum("blv,nlv->bn", likelihood_BLV.clamp_min(-1e9), self._support_NLV)
        return evidence_BN + self._log_joint_N


def _log(p_BLV: Tensor) -> Tensor:
    """Return logarithms; what is too small to divide by has no gradient."""
    divides_BLV = p_BLV > 1e-280
    return torch.where(divides_BLV, torch.where(divides_BLV, p_BLV, 1.0).log(), p_BLV.detach().log())
