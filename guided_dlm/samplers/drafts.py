"""Parallel drafts, verified by a causal model: the denoiser writes the whole rest at once, the other one reads it.

Position l of a draft is kept with probability min(1, p(x_l | x_<l) / q(x_l | x_<l)), left to right; at the first one
that is not kept, a token comes from the residual (p - q)+ (2211.17192, algorithm 1; for diffusion drafts 2604.11035).
What comes out has the law of the causal model, however poor the drafts; good ones save passes. Under a hard constraint
p is the causal law masked token by token, so that each token leaves a canvas that can be completed: that is what
constrained autoregressive decoding draws, and not the causal model's law given the constraint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from guided_dlm.automata import TokenAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.constraint import Guide
from guided_dlm.denoisers import Denoiser
from guided_dlm.errors import InvalidRequest, VocabularyMismatch
from guided_dlm.posterior import Posterior
from guided_dlm.posterior.chain import inverse_cdf
from guided_dlm.posterior.tables import ending_weights
from guided_dlm.processes import Transition
from guided_dlm.randomness import Purpose
from guided_dlm.samplers.blocks import advance_states, feasible
from guided_dlm.samplers.loop import NO_CARRY, Carry, Plan, Snapshot, logits_of, predict
from guided_dlm.vocabulary import Vocabulary


class Verifier(Protocol):
    """What reads drafts: `guided_dlm.denoisers.causal.CausalModel`, or anything with its call and a vocabulary."""

    vocabulary: Vocabulary

    def __call__(self, canvas: Canvas) -> Tensor:
        """Return log p(x_l | prompt, x_<l) of the completion, float `[B, L, V]`."""


def check_drafts(denoiser: Denoiser, verifier: Verifier, guides: Sequence[Guide]) -> None:
    """Refuse models that cannot work together, and soft guides, which would be rejected with the drafts they shaped.

    Raises:
        InvalidRequest: the denoiser is not masked, or writes in blocks, or a guide is soft.
        VocabularyMismatch: the two write other tokens.
    """
    if not hasattr(verifier, "vocabulary") or not callable(verifier):
        raise InvalidRequest(f"verifier={verifier!r} is no causal model; give CausalModel.from_pretrained(folder).")
    if not denoiser.process.selects or denoiser.block_length is not None:
        raise InvalidRequest("verifier= needs a masked model that predicts the whole canvas; leave it out.")
    if verifier.vocabulary.fingerprint != denoiser.vocabulary.fingerprint:
        raise VocabularyMismatch("verifier=: the causal model writes other tokens than the denoiser.")
    for guide in guides:
        automaton = guide.automaton
        weighted = automaton is not None and (
            automaton.symbols is not None or len(set(ending_weights(automaton).tolist()) - {0.0}) > 1
        )
        if weighted or guide.bias is not None or guide.energy is not None or guide.reward is not None:
            raise InvalidRequest(
                "verifier= gives texts the law of the causal model under hard constraints, and a soft guide would "
                "shape only the drafts. Leave out the guide or the verifier."
            )


class Lookahead:
    """Which tokens may follow each prefix of a canvas under one automaton."""

    def __init__(self, automaton: TokenAutomaton, length: int, device: torch.device) -> None:
        """Count which states can still be accepted with so many positions left."""
        self.automaton, dead = automaton, automaton.num_states
        table = np.where(automaton.transitions < 0, dead, automaton.transitions).astype(np.int64)
        self._next_SC = torch.from_numpy(np.pad(table, ((0, 0), (0, 1)), constant_values=dead)).to(device)
        self._class_V = torch.from_numpy(automaton.token_class.astype(np.int64)).to(device)  # -1 is the added column
        live_RS = np.pad(feasible(automaton, length) > 0, ((0, 0), (0, 1)))
        self.live_LS = torch.from_numpy(live_RS[::-1].copy()).to(device)[1:]  # after each position

    def states(self, tokens_BL: Tensor) -> Tensor:
        """Return the state before each position, int64 `[B, L]`."""
        state_B = torch.full((len(tokens_BL),), self.automaton.start, device=tokens_BL.device)
        before = []
        for column in range(tokens_BL.shape[1]):
            before.append(state_B)
            state_B = advance_states(self.automaton, state_B, tokens_BL[:, column : column + 1])
        return torch.stack(before, dim=1)

    def after(self, value_LSR: Tensor, tokens_BL: Tensor, outside: float) -> Tensor:
        """Return for each token what the state after it is worth, `[B, L, V]`; values are `[L, S, B or 1]`."""
        next_BLC = self._next_SC[self.states(tokens_BL)]
        dead_L1R = value_LSR.new_full((len(value_LSR), 1, value_LSR.shape[-1]), outside)
        value_LSR = torch.cat([value_LSR, dead_L1R], dim=1)
        place_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)[None, :, None]
        row_B = torch.arange(len(tokens_BL), device=tokens_BL.device)[:, None, None] % value_LSR.shape[-1]
        worth_BLC: Tensor = value_LSR[place_L, next_BLC, row_B]
        return worth_BLC[..., self._class_V]


def run_drafts(plan: Plan, canvas: Canvas, carry: Carry = NO_CARRY, *, verifier: Verifier) -> Iterator[Snapshot]:
    """Yield a snapshot for each draft: what of it was kept, and the token that ends it; stops once nothing is open.

    Each takes one call of the denoiser and one of the verifier, and writes at least one token in every row.
    """
    process, vocabulary = plan.denoiser.process, plan.denoiser.vocabulary
    automaton, length = plan.automata, canvas.tokens_BL.shape[1]
    if not isinstance(automaton, TokenAutomaton):
        raise InvalidRequest("Drafts are read under one automaton, TokenAutomaton.well_formed where nothing is asked.")
    lookahead = Lookahead(automaton, length, canvas.tokens_BL.device)
    canvas = process.start(canvas, plan.randomness)
    for index in range(length):
        if bool((process.known(canvas) >= 0).all()):
            break
        at = Transition.of(index, length, process.schedule)
        logits_BLV, carry, calls = logits_of(plan, canvas, at, carry)
        prediction, used_BLV = predict(plan, canvas, at, logits_BLV)
        assert isinstance(prediction.law, Posterior)
        draft_BL = prediction.tokens()
        log_q_BLV = used_BLV.double().log_softmax(-1) + lookahead.after(
            prediction.law.onward()[1:], draft_BL, -torch.inf
        )
        live_BLV = lookahead.after(lookahead.live_LS[..., None], draft_BL, False)
        log_p_BLV = verifier(replace(canvas, tokens_BL=draft_BL)).double().masked_fill(~live_BLV, -torch.inf)
        tokens_BL, kept_BL = _verified(
            plan, index, draft_BL, process.known(canvas), log_q_BLV.softmax(-1), log_p_BLV.softmax(-1)
        )
        after = canvas.write(tokens_BL, kept_BL)
        if vocabulary.eos_id is not None and vocabulary.pad_id is not None:
            after = after.close_tail(vocabulary.eos_id, vocabulary.pad_id, process.known(after) < 0)
        yield Snapshot(
            at=at, before=canvas, after=after, prediction=prediction, logits_BLV=used_BLV, calls=calls, carry=carry
        )
        canvas = after


def _verified(
    plan: Plan, step: int, draft_BL: Tensor, known_BL: Tensor, q_BLV: Tensor, p_BLV: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the draft with its first rejected token replaced, and how far it counts, bool `[B, L]`."""
    place_L = torch.arange(draft_BL.shape[1], device=draft_BL.device)
    p_BL, q_BL = (law.gather(-1, draft_BL[..., None])[..., 0] for law in (p_BLV, q_BLV))
    coin_BL = plan.randomness.uniform(step, Purpose.ACCEPT, len(place_L))
    rejected_BL = (coin_BL * q_BL >= p_BL) & (known_BL < 0)
    first_B1 = torch.where(rejected_BL, place_L, len(place_L)).amin(-1, keepdim=True)
    rest_BLV = (p_BLV - q_BLV).clamp_min(0.0)
    here_B11 = first_B1.clamp_max(len(place_L) - 1)[..., None].expand(-1, 1, p_BLV.shape[-1])
    rest_BV = rest_BLV.gather(1, here_B11)[:, 0]
    other_B1 = inverse_cdf(rest_BV, plan.randomness.uniform(step, Purpose.RESAMPLE, 1)[:, 0])
    return torch.where(place_L == first_B1, other_B1, draft_BL), place_L <= first_B1
