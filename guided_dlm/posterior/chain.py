"""The chain recursions: messages along the canvas, a sampled path, the best path (FORMULAS A).

Messages are fp64; weights `[L, G, R]` are per position, token group and column, and at most 1. `Linear` arithmetic
rescales every position and is several times faster than `Log`. What it flushes to zero is below 1e-308 per state and
position, so its error relative to Z is below L N e^(-709 - log Z): negligible down to `LINEAR_RANGE`. Callers repeat in
`Log` arithmetic, which has no such range, where some row's log Z is lower.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from guided_dlm.posterior.layout import Chain

NEVER = -1e30  # the logarithm of zero, finite so that differences never make a NaN
LINEAR_RANGE = -600.0  # nats; a log Z above this is as good as exact in linear arithmetic


class Arithmetic(Protocol):
    """How messages are stored, multiplied, added up and read; all `[..., R]`."""

    def enter(self, linear: Tensor) -> Tensor:
        """Store plain non-negative numbers."""

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply."""

    def total(self, terms: Tensor, into: Tensor, size: int) -> Tensor:
        """Add up terms `[T, R]` into `size` sums by the index `into` `[T]`."""

    def rescale(self, message: Tensor) -> tuple[Tensor, Tensor]:
        """Return the message in a comfortable range, and the log scale `[R]` that was taken out."""

    def log(self, message: Tensor) -> Tensor:
        """Return natural logarithms, `NEVER` for zero."""


class Linear:
    """Plain fp64 numbers, each position's best scaled to 1."""

    def enter(self, linear: Tensor) -> Tensor:
        """Store as is."""
        return linear

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply."""
        return a * b

    def total(self, terms: Tensor, into: Tensor, size: int) -> Tensor:
        """Add up."""
        return terms.new_zeros(size, terms.shape[1]).index_add_(0, into, terms)

    def rescale(self, message: Tensor) -> tuple[Tensor, Tensor]:
        """Divide by the best."""
        scale_R = message.amax(0).clamp_min(1e-300)
        return message.div_(scale_R), scale_R.log()

    def log(self, message: Tensor) -> Tensor:
        """Take logarithms."""
        return message.log().clamp_min(NEVER)


class Log:
    """Logarithms, each sum taken relative to its own largest term."""

    def enter(self, linear: Tensor) -> Tensor:
        """Take logarithms."""
        return linear.log().clamp_min(NEVER)

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """Add."""
        return (a + b).clamp_min(NEVER)

    def total(self, terms: Tensor, into: Tensor, size: int) -> Tensor:
        """Add up exponentials."""
        best = _largest(terms, into, size)
        sums = torch.zeros_like(best).index_add_(0, into, (terms - best.index_select(0, into)).exp_())
        return (sums.clamp_min_(1e-300).log_() + best).clamp_min_(NEVER)

    def rescale(self, message: Tensor) -> tuple[Tensor, Tensor]:
        """Leave as is."""
        return message, message.new_zeros(message.shape[1])

    def log(self, message: Tensor) -> Tensor:
        """Return as is."""
        return message


class Best(Log):
    """Logarithms under (max, +)."""

    def total(self, terms: Tensor, into: Tensor, size: int) -> Tensor:
        """Keep the largest."""
        return _largest(terms, into, size)


def _largest(terms: Tensor, into: Tensor, size: int) -> Tensor:
    best = terms.new_full((size, terms.shape[1]), NEVER)
    return best.scatter_reduce_(0, into[:, None].expand_as(terms), terms, "amax")


def backward(arithmetic: Arithmetic, chain: Chain, weights_LGR: Tensor, terminal_NR: Tensor) -> tuple[Tensor, Tensor]:
    """Return messages `[L + 1, N, R]` (mass of all completions from a state) and log scales `[L + 1, R]` to add."""
    message = terminal_NR
    messages, scales = [message], [message.new_zeros(message.shape[1])]
    for weight_GR in weights_LGR.flip(0):
        landed_PR = arithmetic.join(weight_GR.index_select(0, chain.group_P), message.index_select(0, chain.dst_P))
        terms_AR = landed_PR.index_select(0, chain.landing_A)
        message, scale_R = arithmetic.rescale(arithmetic.total(terms_AR, chain.src_A, chain.num_states))
        messages.append(message)
        scales.append(scales[-1] + scale_R)
    return torch.stack(messages[::-1]), torch.stack(scales[::-1])


def group_masses(
    arithmetic: Arithmetic, chain: Chain, weights_LGR: Tensor, start_NR: Tensor, backward_LNR: Tensor
) -> Tensor:
    """Return log masses `[L, G, R]` of the token groups under the posterior, each divided by the group's own weight.

    That is log of sum over arcs of a(src) b(dst) / Z: what conditioning multiplies the probability of a token in the
    group by (adding up over the groups that hold it).
    """
    message, reached = start_NR, []
    groups, landings = weights_LGR.shape[1], len(chain.group_P)
    for weight_GR in weights_LGR:
        reached_PR = arithmetic.total(message.index_select(0, chain.src_A), chain.landing_A, landings)
        reached.append(reached_PR)
        written_PR = arithmetic.join(reached_PR, weight_GR.index_select(0, chain.group_P))
        message, _ = arithmetic.rescale(arithmetic.total(written_PR, chain.dst_P, chain.num_states))
    # All positions at once; positions stand beside the columns, since sums run over the first axis.
    reached_PX = torch.stack(reached, dim=1).flatten(1)
    after_PX = backward_LNR[1:].transpose(0, 1).index_select(0, chain.dst_P).flatten(1)
    mass_GX = arithmetic.total(arithmetic.join(reached_PX, after_PX), chain.group_P, groups)
    mass_LGR = mass_GX.view(groups, len(weights_LGR), -1).transpose(0, 1)
    # Each row's masses, times the weights, add up to one.
    share_GX = arithmetic.join(mass_LGR, weights_LGR).transpose(0, 1).flatten(1)
    rows = int(chain.row_of_group_G.max()) + 1
    log_total_GX = arithmetic.log(arithmetic.total(share_GX, chain.row_of_group_G, rows))[chain.row_of_group_G]
    return arithmetic.log(mass_LGR) - log_total_GX.view(groups, len(mass_LGR), -1).transpose(0, 1)


def walk(
    arithmetic: Arithmetic,
    chain: Chain,
    weights_LGR: Tensor,
    backward_LNR: Tensor,
    state_B: Tensor,
    uniform_BL: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Walk forward from `state_B`; return the token group written at each position `[B, L]` and the last state `[B]`.

    Draws from the posterior by inverse CDF with `uniform_BL`, or follows the best arc without.
    """
    column_B1, columns = chain.column_B[:, None], chain.columns
    slot_K = torch.arange(int(chain.degree_N.max()), device=state_B.device)
    last_arc = len(chain.src_A) - 1
    nothing = arithmetic.enter(weights_LGR.new_zeros(()))
    groups = []
    for position, weight_GR in enumerate(weights_LGR):
        arc_BK = (chain.first_N[state_B][:, None] + slot_K).clamp_max_(last_arc)
        real_BK = slot_K < chain.degree_N[state_B][:, None]
        landing_BK = chain.landing_A[arc_BK]
        group_BK, target_BK = chain.group_P[landing_BK], chain.dst_P[landing_BK]
        mass_BK = arithmetic.join(
            weight_GR.reshape(-1)[group_BK * columns + column_B1],
            backward_LNR[position + 1].reshape(-1)[target_BK * columns + column_B1],
        )
        mass_BK = torch.where(real_BK, mass_BK, nothing)
        pick_B1 = _pick(arithmetic, mass_BK, None if uniform_BL is None else uniform_BL[:, position])
        state_B = target_BK.gather(1, pick_B1)[:, 0]
        groups.append(group_BK.gather(1, pick_B1)[:, 0])
    return torch.stack(groups, dim=1), state_B


def _pick(arithmetic: Arithmetic, mass_BK: Tensor, uniform_B: Tensor | None) -> Tensor:
    if uniform_B is None:
        return mass_BK.argmax(1, keepdim=True)
    if isinstance(arithmetic, Log):
        mass_BK = (mass_BK - mass_BK.amax(1, keepdim=True)).exp()
    return inverse_cdf(mass_BK, uniform_B)


def inverse_cdf(mass: Tensor, uniform: Tensor) -> Tensor:
    """Return the index `[..., 1]` drawn from masses `[..., K]` by a uniform in [0, 1); never one of zero mass.

    In fp64 a uniform below 1 times the total stays below the total, so the search always ends at a positive mass.
    """
    cumulative = mass.cumsum(-1, dtype=torch.float64)
    threshold = uniform[..., None].double() * cumulative[..., -1:]
    return torch.searchsorted(cumulative, threshold, right=True).clamp_max_(mass.shape[-1] - 1)
