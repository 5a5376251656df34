"""Block by block, left to right, for models that predict one block and nothing beyond it.

What is written becomes prompt; the automaton's state and the room that is left are carried along. A block may end in
any state from which the rest of the canvas can still be accepted, so a hard constraint never dead-ends. Beyond the
block nothing is predicted (a masked model of whole canvases sees masks there): all such states count alike, or, with a
model that says how likely its tokens are in general (`Denoiser.prior_V`), as likely as independent tokens would be
accepted. Exact per step for the block; a guess beyond.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from guided_dlm.automata import TokenAutomaton
from guided_dlm.automata.dfa import edges
from guided_dlm.canvas import Canvas
from guided_dlm.errors import InvalidRequest
from guided_dlm.posterior import Posterior
from guided_dlm.posterior.tables import ending_weights
from guided_dlm.randomness import Purpose
from guided_dlm.samplers.finish import Observe, Stopped, sample_with
from guided_dlm.samplers.loop import NO_CARRY, Carry, Plan

_LEAST = 1e-20  # of the likeliest state: what can be accepted at all is never ruled out
_TEXT = 50.0  # nats: what a token of text costs where the end is all that is wanted


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """A canvas that is written in blocks: what stands so far `[B, W]`, the automaton's states and what is carried.

    `weight_RS` has the weight of each state by how many positions are left, see `feasible` and `lookahead`.
    """

    plan: Plan
    automaton: TokenAutomaton
    canvas: Canvas
    width: int
    weight_RS: Tensor
    written: Tensor
    state_B: Tensor
    carry: Carry = NO_CARRY

    @classmethod
    def start(cls, plan: Plan, canvas: Canvas, width: int) -> Blocks:
        """Begin with nothing written; without a constraint the canvas is held to well-formed text.

        Raises:
            InvalidRequest: the rows have different automata, or `width` is not positive.
        """
        if width < 1:
            raise InvalidRequest(f"block_length={width} must be at least 1.")
        automaton = plan.automata or TokenAutomaton.well_formed(plan.denoiser.vocabulary)
        if not isinstance(automaton, TokenAutomaton):
            raise InvalidRequest(
                "Blocks carry the state of one automaton; give all rows of a batch the same constraint."
            )
        (rows, length), device = canvas.tokens_BL.shape, canvas.tokens_BL.device
        prior_V = None if plan.automata is None else plan.denoiser.prior_V
        if prior_V is None:
            weight_RS = feasible(automaton, length)
        else:
            weight_RS = lookahead(automaton, length, prior_V.cpu().numpy())
        return cls(
            plan=plan,
            automaton=automaton,
            canvas=canvas,
            width=width,
            weight_RS=torch.from_numpy(weight_RS).to(device),
            written=canvas.given_BL()[:, :0],
            state_B=torch.full((rows,), automaton.start, device=device),
        )

    @property
    def left(self) -> int:
        """How many positions are not written yet."""
        return self.canvas.tokens_BL.shape[1] - self.written.shape[1]

    def block(self) -> tuple[Plan, Canvas]:
        """Return the plan and the canvas of the next block, what was written before it as its prompt."""
        plan, canvas, begin = self.plan, self.canvas, self.written.shape[1]
        here = slice(begin, begin + min(self.width, self.left))
        block = Canvas(
            prompt_BP=torch.cat([canvas.prompt_BP, self.written], dim=1),
            visible_BP=torch.cat([canvas.visible_BP, torch.ones_like(self.written, dtype=torch.bool)], dim=1),
            tokens_BL=canvas.tokens_BL[:, here],
            fixed_BL=canvas.fixed_BL[:, here],
            ahead_BR=self._ahead(here.stop),
            before_BK=self.written,
        )
        part = replace(
            plan,
            automata=self.automaton,
            start_B=self.state_B,
            terminal_S=self.weight_RS[self.left - (here.stop - begin)],
            contrast=None if plan.contrast is None else plan.contrast.after(self.written),
            randomness=replace(plan.randomness, first_step=plan.randomness.first_step + begin * plan.steps),
        )
        return part, block

    def _ahead(self, begin: int) -> Tensor | None:
        """Return what a masked model of whole canvases reads from `begin` on, or the text would seem to end there."""
        mask_id = self.plan.denoiser.vocabulary.mask_id
        if mask_id is None or self.plan.denoiser.block_length is not None or not self.plan.denoiser.process.selects:
            return None
        return self.canvas.tokens_BL.masked_fill(~self.canvas.fixed_BL, mask_id)[:, begin:]

    def after(self, part: Plan, tokens_BW: Tensor, carry: Carry) -> Blocks:
        """Return what stands after a block of these tokens."""
        return replace(
            self,
            state_B=self._advance(part, tokens_BW),
            written=torch.cat([self.written, tokens_BW], dim=1),
            carry=beyond_block(self.plan, carry),
        )

    def _advance(self, part: Plan, tokens_BW: Tensor) -> Tensor:
        """Return the state of each row after its block; of tokens with several readings one of the states, drawn.

        The draw is from the law of readings given the tokens, so tokens and readings together are one ancestral draw.
        """
        if self.automaton.symbols is None:
            return advance_states(self.automaton, self.state_B, tokens_BW)
        assert part.terminal_S is not None
        uniform_BW = part.randomness.uniform(0, Purpose.STATE, tokens_BW.shape[1])
        return self._law_of_known(tokens_BW, part.terminal_S).last_states(uniform_BW)

    def ended(self) -> Tensor:
        """Return which rows have the end of their text, bool `[B]`."""
        end = self.plan.denoiser.vocabulary.eos_id
        return self.written.eq(-1 if end is None else end).any(-1)

    def completed(self) -> Tensor:
        """Return the canvas with the shortest end there is after what is written, `[B, L]`."""
        given_BR = self.canvas.given_BL()[:, self.written.shape[1] :]
        return torch.cat([self.written, shortest(self.plan, self.automaton, self.state_B, given_BR)], dim=1)

    def log_drawn(self, part: Plan, tokens_BW: Tensor, state_B: Tensor) -> Tensor:
        """Return the log of a state's weight over that of all states that a block's tokens may lead to, fp64 `[B]`.

        It is 0 where tokens have one reading, so that they lead to one state.
        """
        assert part.terminal_S is not None
        if self.automaton.symbols is None:
            return torch.zeros(len(state_B), dtype=torch.float64, device=state_B.device)
        all_B = self._law_of_known(tokens_BW, part.terminal_S).log_z
        return part.terminal_S.double()[state_B].log() - all_B

    def _law_of_known(self, tokens_BW: Tensor, terminal_S: Tensor) -> Posterior:
        logits_BWV = torch.zeros(*tokens_BW.shape, len(self.automaton.vocabulary), device=tokens_BW.device)
        return Posterior(logits_BWV, self.automaton, self.state_B, terminal_S, tokens_BW)

    def log_ending(self, tokens_BL: Tensor) -> Tensor:
        """Return the log-weight, fp64 `[B]`, of a whole canvas that goes on like this and ends so."""
        rest_BR, weight_S = tokens_BL[:, self.written.shape[1] :], self.weight_RS[0].double()
        if not self.left:
            return weight_S[self.state_B].log()
        return self._law_of_known(rest_BR, weight_S).log_z

    def stopped(self, part: Plan, stop: Stopped) -> Stopped:
        """Return the stop of a block as that of the canvas: what was written, the block, the shortest end there is."""
        whole = self.after(part, stop.tokens_BL, NO_CARRY) if stop.tokens_BL.shape[1] else self
        open_B = stop.open_B | ~whole.ended() if whole.left else stop.open_B
        return Stopped(whole.completed(), open_B, stop.interrupted)


def sample_blocks(plan: Plan, canvas: Canvas, width: int, observe: Observe | None = None) -> Tensor:
    """Write the canvas in blocks of `width` positions, `plan.steps` steps each; return the clean tokens `[B, L]`.

    Raises:
        InvalidRequest: the rows have different automata, or `width` is not positive.
        Stopped: as for `sample`; after the block that was stopped comes the shortest end there is.
    """
    blocks = Blocks.start(plan, canvas, width)
    while blocks.left:
        part, block = blocks.block()
        try:
            tokens_BW, carry = sample_with(part, block, blocks.carry, observe)
        except Stopped as stop:
            raise blocks.stopped(part, stop) from None
        except KeyboardInterrupt:  # before the block's first step
            if not blocks.written.shape[1]:
                raise
            nothing = Stopped(blocks.written[:, :0], torch.zeros_like(blocks.ended()), interrupted=True)
            raise blocks.stopped(part, nothing) from None
        blocks = blocks.after(part, tokens_BW, carry)
        if bool(blocks.ended().all()):  # only padding can follow
            return blocks.completed()
    return blocks.written


def shortest(plan: Plan, automaton: TokenAutomaton, state_B: Tensor, given_BR: Tensor) -> Tensor:
    """Return positions that lead from each state to an accepted end with as few tokens of text as can be, `[B, R]`."""
    vocabulary = plan.denoiser.vocabulary
    if given_BR.shape[1] == 0:
        return given_BR
    cost_V = torch.full((len(vocabulary),), -_TEXT, device=given_BR.device)
    cost_V[[i for i in (vocabulary.eos_id, vocabulary.pad_id) if i is not None]] = 0.0
    logits_BRV = cost_V.expand(*given_BR.shape, len(vocabulary))
    return Posterior(logits_BRV, automaton, state_B, None, given_BR).mode()


def beyond_block(plan: Plan, carry: Carry) -> Carry:
    """Return what is carried to the next block: of models that write blocks themselves all, of others nothing."""
    contrast = None if plan.contrast is None else plan.contrast.denoiser
    own, other = (
        kept if denoiser is not None and denoiser.block_length is not None else None
        for denoiser, kept in zip((plan.denoiser, contrast), carry, strict=True)
    )
    return own, other


def feasible(automaton: TokenAutomaton, length: int) -> np.ndarray:
    """Return float64 `[length + 1, S]`: the weight of standing in each state with so many positions left to write.

    It is 0 where no way to write exactly these positions is accepted. Else it is 1, or with a weighted automaton the
    weight of a text that ended there: nothing is predicted beyond the block, so that is the guess. Where none may end
    it is the best of what can follow. With no position left it is the weight of ending there.
    """
    source, target = edges(automaton.transitions)
    ending_S = ending_weights(automaton)
    rows = [ending_S]
    for _ in range(length):
        before_S = np.zeros(automaton.num_states)
        np.maximum.at(before_S, source, rows[-1][target])
        rows.append(np.where((before_S > 0) & (ending_S > 0), ending_S, before_S))
    return np.stack(rows)


def lookahead(automaton: TokenAutomaton, length: int, prior_V: np.ndarray) -> np.ndarray:
    """Return float64 `[length + 1, S]`: as `feasible`, but how likely it is that what follows is accepted.

    What follows is taken as independent draws of text tokens from `prior_V`, each of them the last one with probability
    2 / `length`, and then padding. A guess, so that a keyword or a length is not put off until nothing else fits; it
    is positive exactly where `feasible` is. Under well-formed text alone every state counts alike.
    """
    vocabulary, table = automaton.vocabulary, automaton.transitions
    end = {i for i in (vocabulary.eos_id, vocabulary.pad_id) if i is not None}
    end_classes = sorted({int(c) for i in end for c in automaton.token_class[automaton.readings.token == i]} - {-1})
    weight_C = np.zeros(table.shape[1])
    token_E, weight_E = automaton.readings
    text_E = (automaton.token_class >= 0) & ~np.isin(token_E, sorted(end))
    np.add.at(weight_C, automaton.token_class[text_E], (prior_V[token_E] * weight_E)[text_E])
    goes_SC = table >= 0
    text_S = (goes_SC & (weight_C > 0)).any(-1)  # the others only end or pad, which is certain
    hazard = 2.0 / max(length, 3) if end_classes else 0.0
    weight_SC = np.where(goes_SC, (1.0 - hazard) * weight_C, 0.0)
    for column in end_classes:
        weight_SC[:, column] = np.where(goes_SC[:, column], np.where(text_S, hazard, 1.0), 0.0)
    possible_RS, rows = feasible(automaton, length), [ending_weights(automaton)]
    for _ in range(length):
        rows.append((weight_SC * np.where(goes_SC, rows[-1][table.clip(0)], 0.0)).sum(-1))
    weight_RS = np.stack(rows)
    best_R1 = weight_RS.max(-1, keepdims=True).clip(1e-300)
    return np.where(possible_RS > 0, (weight_RS / best_R1).clip(_LEAST), 0.0)


def advance_states(automaton: TokenAutomaton, state_B: Tensor, tokens_BW: Tensor) -> Tensor:
    """Return the state of each row after reading its tokens."""
    device = state_B.device
    table = torch.from_numpy(automaton.transitions.astype(np.int64)).to(device)
    token_class = torch.from_numpy(automaton.token_class.astype(np.int64)).to(device)
    for token_B in tokens_BW.T:
        state_B = table[state_B, token_class[token_B]]
    return state_B
