"""Exact inference for one denoising step: independent factors times one automaton."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from guided_dlm.automata import TokenAutomaton
from guided_dlm.errors import Infeasible, InvalidRequest
from guided_dlm.posterior.chain import (
    LINEAR_RANGE,
    NEVER,
    Arithmetic,
    Best,
    Linear,
    Log,
    backward,
    group_masses,
    inverse_cdf,
    walk,
)
from guided_dlm.posterior.factors import all_open, open_rows
from guided_dlm.posterior.layout import Part, layout
from guided_dlm.posterior.tables import GroupTables
from guided_dlm.posterior.weights import class_maxima, class_weights, log_class_weights, log_maxima, log_sums


class Posterior:
    """The law proportional to prod_l p_l(x_l) * weight(x) [x accepted], for each row of a batch (FORMULAS A).

    Args:
        logits_BLV: float `[B, L, V]`, normalised here; a position that is known ignores its logits.
        automaton: one for all rows, or a sequence with one for each row.
        start: int64 `[B]`, the automaton state before the first position; the automaton's start by default.
        terminal: float `[B, S]` or `[S]` (one automaton only), the weight of ending in each state; by default 1 in the
            accepting states, or the weights of a weighted automaton, at most 50 nats either way.
        known_BL: int64 `[B, L]`, the token where it is already decided, -1 where it is open.

    Work is O(open positions * V + L * arcs). Inference is fp64 and exact. Everything but `log_z` raises `Infeasible`
    if a row has no accepted canvas at all.
    """

    def __init__(
        self,
        logits_BLV: Tensor,
        automaton: TokenAutomaton | Sequence[TokenAutomaton],
        start: Tensor | None = None,
        terminal: Tensor | None = None,
        known_BL: Tensor | None = None,
    ) -> None:
        """Run the backward pass."""
        self.shape = logits_BLV.shape
        self.known_BL = all_open(logits_BLV) if known_BL is None else known_BL
        self.open_BL = self.known_BL < 0
        self._logits = logits_BLV
        self._logits_MV = open_rows(logits_BLV.detach(), self.open_BL)
        self._p_MV = self._logits_MV.softmax(-1)
        whole = automaton if isinstance(automaton, TokenAutomaton) else tuple(automaton)
        self._layout = layout(whole, self.shape[0], logits_BLV.device)
        self._chain = self._layout.chain
        self._start_B = self._first_states(start)
        self._terminal_NR = self._last_weights(terminal)
        self._arithmetic: Arithmetic = Linear()
        self._weights_LGR = self._linear_weights()
        self._log_z_B = self._run_backward()
        if "lost" in self._ranges or bool((self._log_z_B < LINEAR_RANGE).any()):
            self._arithmetic = Log()
            self._weights_LGR = self._log_weights(log_class_weights, log_sums)
            self._log_z_B = self._run_backward()

    @property
    def log_z(self) -> Tensor:
        """Log of the probability that the factors satisfy the automaton, fp64 `[B]`, differentiable in the logits.

        Its gradient with respect to the logits is marginals - softmax(logits).
        """
        log_z_B: Tensor = _LogZ.apply(self._logits, self) if self._logits.requires_grad else self._log_z_B
        return log_z_B.masked_fill(self._log_z_B < NEVER / 2, -torch.inf)

    def marginals(self) -> Tensor:
        """Return the posterior probability of each token `[B, L, V]`, one-hot where known."""
        q_BLV = self._p_MV.new_zeros(self.shape)
        q_BLV.scatter_(-1, self.known_BL.clamp_min(0)[..., None], 1.0)
        q_BLV[self.open_BL] = self._marginals_MV()
        return q_BLV

    def confidence(self, without: int | None = None) -> Tensor:
        """Return the largest marginal `[B, L]`, leaving out one token id if asked; 1 where known."""
        self._require_feasible()
        best_M = self._p_MV.new_empty(len(self._p_MV))
        for part, here, shift_NC in zip(self._layout.parts, self._places, self._class_shifts, strict=True):
            best_M[here] = self._best_N(part, here, shift_NC, without)
        return self._fill(best_M, 1.0)

    def entropy(self) -> Tensor:
        """Return the entropy of each marginal `[B, L]`, in nats; 0 where known."""
        q_MV = self._marginals_MV()
        return self._fill(-torch.xlogy(q_MV, q_MV).sum(-1), 0.0)

    def probability(self, token: int | Tensor) -> Tensor:
        """Return the marginal `[B, L]`, fp64, of one token, or of the token at each position of int64 `[B, L]`."""
        self._require_feasible()
        token_BL = token if isinstance(token, Tensor) else torch.full_like(self.known_BL, token)
        token_M = token_BL[self.open_BL]
        q_M = self._log_p_MV.new_empty(len(token_M), dtype=torch.float64)
        for part, here, shift_NC in zip(self._layout.parts, self._places, self._class_shifts, strict=True):
            log_q_N = self._log_p_MV[here].gather(1, token_M[here][:, None])[:, 0].double()
            q_M[here] = part.tables.shifted(log_q_N, token_M[here], shift_NC)
        probability_BL = (self.known_BL == token_BL).double()
        probability_BL[self.open_BL] = q_M
        return probability_BL

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return one joint draw `[B, L]`, int64."""
        uniform = torch.rand(
            2, *self.known_BL.shape, generator=generator, dtype=torch.float64, device=self.known_BL.device
        )
        return self.draw(uniform[0], uniform[1])

    def draw(self, path_BL: Tensor, token_BL: Tensor, where_BL: Tensor | None = None) -> Tensor:
        """Return one joint draw `[B, L]` by inverse CDF from two sets of uniforms; -1 at open positions not asked for.

        The tokens asked for come from one joint draw, so the ones left out are a witness that a completion exists.
        """
        self._require_feasible()
        group_BL, _ = self._walk(path_BL)
        wanted_BL = self.open_BL if where_BL is None else self.open_BL & where_BL

        def choose(tables: GroupTables, here_M: Tensor, member_NC: Tensor, mine_BL: Tensor) -> Tensor:
            if self._is_linear:
                mass_NV = _rows(self._p_MV, here_M) * tables.by_token(member_NC.to(self._p_MV.dtype))
            else:
                log_q_NV = _rows(self._logits_MV, here_M).double() + tables.by_token(member_NC.double()).log()
                mass_NV = (log_q_NV - log_q_NV.amax(-1, keepdim=True)).exp()
            return inverse_cdf(mass_NV, token_BL[mine_BL])[:, 0]

        return self._write(group_BL, wanted_BL, choose)

    def last_states(self, path_BL: Tensor) -> Tensor:
        """Return the state after the last position in one joint draw, int64 `[B]`; one automaton for all rows.

        Where tokens have several readings it is drawn even if all tokens are known.
        """
        self._require_feasible()
        return self._walk(path_BL)[1]

    def mode(self) -> Tensor:
        """Return the most probable canvas `[B, L]` (the best string and path)."""
        self._require_feasible()
        best = Best()
        weights_LGR = self._log_weights(class_maxima, log_maxima)
        messages_LNR, _ = backward(best, self._chain, weights_LGR, best.enter(self._terminal_NR))
        group_BL, _ = walk(best, self._chain, weights_LGR, messages_LNR, self._start_B, None)

        def choose(tables: GroupTables, here_M: Tensor, member_NC: Tensor, _: Tensor) -> Tensor:
            member_NV = member_NC.index_select(1, tables.class_of_token_V)
            logits_NV = tables.spread_log(_rows(self._logits_MV, here_M))
            best_N = logits_NV.masked_fill(~member_NV, -torch.inf).argmax(-1)
            return best_N if tables.readings is None else tables.readings.token_E[best_N]

        return self._write(group_BL, self.open_BL, choose)

    def onward(self) -> Tensor:
        """Return the log of the mass of what can follow each state, fp64 `[L + 1, S, B]`, up to a constant per place.

        Place l is before position l. It makes `log p_l(v) + onward[l + 1, state after v]` the law of position l given
        those before it, up to a constant.

        Raises:
            InvalidRequest: the rows have different automata.
        """
        if len(self._layout.parts) > 1:
            raise InvalidRequest("What follows a state needs one automaton for all rows.")
        return self._arithmetic.log(self._messages_LNR)[..., self._chain.column_B]

    def _walk(self, path_BL: Tensor) -> tuple[Tensor, Tensor]:
        return walk(self._arithmetic, self._chain, self._weights_LGR, self._messages_LNR, self._start_B, path_BL)

    def _first_states(self, start: Tensor | None) -> Tensor:
        if start is None:
            return self._chain.start_B
        if len(self._layout.parts) > 1:
            raise InvalidRequest("A start state needs one automaton for all rows.")
        return start.to(self._chain.start_B)

    def _last_weights(self, terminal: Tensor | None) -> Tensor:
        if terminal is None:
            return self._chain.ending_N.double()[:, None].expand(-1, self._chain.columns)
        if len(self._layout.parts) > 1:
            raise InvalidRequest("A terminal weight needs one automaton for all rows.")
        return terminal.double().reshape(-1, self._chain.num_states).T.expand(-1, self._chain.columns)

    def _require_feasible(self) -> None:
        dead_B = self._log_z_B < NEVER / 2
        if bool(dead_B.any()):
            row = int(dead_B.nonzero()[0, 0])
            raise Infeasible(
                f"Row {row} has no canvas of {self.shape[1]} tokens that the automaton accepts and the factors allow."
            )

    def _run_backward(self) -> Tensor:
        terminal_NR = self._arithmetic.enter(self._terminal_NR)
        self._messages_LNR, scales_LR = backward(self._arithmetic, self._chain, self._weights_LGR, terminal_NR)
        at_start_B = self._messages_LNR[0][self._start_B, self._chain.column_B]
        return (self._arithmetic.log(at_start_B) + scales_LR[0][self._chain.column_B]).clamp_min(NEVER)

    @cached_property
    def _log_p_MV(self) -> Tensor:
        return self._logits_MV.log_softmax(-1)

    @cached_property
    def _places(self) -> list[Tensor | slice]:
        """Which of the open positions belong to each part."""
        if len(self._layout.parts) == 1:
            return [slice(None)]
        row_M = self.open_BL.nonzero()[:, 0]
        return [torch.isin(row_M, part.rows) for part in self._layout.parts]

    def _fill(self, open_M: Tensor, known: float) -> Tensor:
        filled_BL = torch.full(self.known_BL.shape, known, dtype=open_M.dtype, device=open_M.device)
        filled_BL[self.open_BL] = open_M
        return filled_BL

    def _linear_weights(self) -> Tensor:
        blocks = []
        self._ranges: set[str] = set()
        for part, here in zip(self._layout.parts, self._places, strict=True):
            log_p = partial(self._log_p_of, part, here)
            weight_NC, smallest = class_weights(self._p_MV[here], log_p, part.tables)
            self._ranges.add(smallest)
            blocks.append(self._with_known(part, weight_NC @ part.tables.groups_GC.T))
        return self._layout.join(blocks)

    def _log_p_of(self, part: Part, here: Tensor | slice) -> Tensor:
        return part.tables.spread_log(self._log_p_MV[here])

    def _log_weights(
        self, classes: Callable[[Tensor, GroupTables], Tensor], groups: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        blocks = []
        for part, here in zip(self._layout.parts, self._places, strict=True):
            log_p_NV = part.tables.spread_log(self._log_p_MV[here].double()).clamp_min(NEVER)
            log_NG = groups(classes(log_p_NV, part.tables), part.tables.groups_GC)
            blocks.append(self._with_known(part, log_NG, groups is log_maxima))
        return self._layout.join(blocks)

    def _with_known(self, part: Part, open_NG: Tensor, best: bool | None = None) -> Tensor:
        """Put the weights of open positions beside those of known tokens: `[n, L, G]`; logarithms if `best` is said."""
        known_nL, open_nL = self.known_BL[part.rows], self.open_BL[part.rows]
        weight_nLG = open_NG.new_empty(*known_nL.shape, part.tables.num_groups)
        weight_nLG[open_nL] = open_NG
        known_NG = part.tables.known_groups(known_nL[~open_nL], bool(best))
        weight_nLG[~open_nL] = (known_NG if best is None else known_NG.log().clamp_min(NEVER)).to(open_NG)
        return weight_nLG

    @cached_property
    def _class_shifts(self) -> list[Tensor]:
        """For each part, the log of what conditioning multiplies its token classes by, `[N, C + 1]`."""
        start_NR = self._arithmetic.enter(self._chain.start_NR(self._start_B))
        masses_LGR = group_masses(self._arithmetic, self._chain, self._weights_LGR, start_NR, self._messages_LNR)
        return [
            log_sums(block_nLG[self.open_BL[part.rows]], part.tables.groups_GC.T)
            for part, block_nLG in zip(self._layout.parts, self._layout.split(masses_LGR), strict=True)
        ]

    def _marginals_MV(self) -> Tensor:
        """Return the marginals of the open positions `[M, V]`."""
        self._require_feasible()
        blocks = [
            self._block_NV(*block) for block in zip(self._layout.parts, self._places, self._class_shifts, strict=True)
        ]
        if len(blocks) == 1:
            return blocks[0]
        q_MV = torch.empty_like(self._p_MV)
        for here, q_NV in zip(self._places, blocks, strict=True):
            q_MV[here] = q_NV
        return q_MV

    def _best_N(self, part: Part, here: Tensor | slice, shift_NC: Tensor, without: int | None) -> Tensor:
        """Return the largest marginal of each position: of a class it is that of its most probable token."""
        plain = self._is_linear and part.tables.readings is None
        own_class = None if without is None or not plain else part.tables.class_of_token_V[without]
        if not plain or (own_class is not None and part.tables.size_C[own_class] > 1):
            q_NV = self._block_NV(part, here, shift_NC)
            if without is not None:
                q_NV[:, without] = 0.0
            return q_NV.amax(-1)
        q_NC = class_maxima(self._p_MV[here], part.tables, 0.0) * shift_NC.exp().to(self._p_MV.dtype)
        if own_class is not None:
            q_NC[:, own_class] = 0.0
        return q_NC.amax(-1)

    @property
    def _is_linear(self) -> bool:
        """Whether every class is likely enough that no factor overflows, so that products do without logarithms."""
        return isinstance(self._arithmetic, Linear) and self._ranges == {"safe"}

    def _block_NV(self, part: Part, here: Tensor | slice, shift_NC: Tensor) -> Tensor:
        tables = part.tables
        if self._is_linear:
            return tables.by_token(shift_NC.exp().to(self._p_MV.dtype)).mul_(self._p_MV[here])
        factor_NV = shift_NC.to(self._p_MV.dtype).index_select(1, tables.class_of_token_V)
        factor_NV.add_(tables.spread_log(self._log_p_MV[here])).exp_()
        return factor_NV if tables.readings is None else tables.readings.gather(factor_NV)

    def _write(
        self, group_BL: Tensor, wanted_BL: Tensor, choose: Callable[[GroupTables, Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Choose a token within its group at each wanted position.

        `choose` is told which open positions these are, bool `[M]`, the classes of their groups, bool `[N, C + 1]`, and
        where they stand, bool `[B, L]`; it returns the tokens.
        """
        tokens_BL = self.known_BL.clone()
        local_BL = group_BL - self._chain.group_offset_B[:, None]
        for part in self._layout.parts:
            mine_BL = torch.zeros_like(wanted_BL)
            mine_BL[part.rows] = wanted_BL[part.rows]
            member_NC = part.tables.groups_GC[local_BL[mine_BL]] > 0
            tokens_BL[mine_BL] = choose(part.tables, mine_BL[self.open_BL], member_NC, mine_BL)
        return tokens_BL


class _LogZ(torch.autograd.Function):
    """log Z with its closed-form gradient, marginals - softmax(logits)."""

    @staticmethod
    def forward(ctx: Any, logits_BLV: Tensor, posterior: Posterior) -> Tensor:
        """Return the value the backward pass already found."""
        ctx.posterior = posterior
        ctx.save_for_backward(logits_BLV)
        return posterior._log_z_B.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Scale marginals - softmax by the incoming gradient `[B]`; known positions have none."""
        (logits_BLV,) = ctx.saved_tensors
        difference = ctx.posterior.marginals() - logits_BLV.softmax(-1)
        difference = difference * ctx.posterior.open_BL[..., None]
        return (grads[0][:, None, None] * difference).to(logits_BLV.dtype), None


def _rows(values_MV: Tensor, here_M: Tensor) -> Tensor:
    """Return the rows asked for, without a copy where that is all of them."""
    return values_MV if bool(here_M.all()) else values_MV[here_M]
