"""The automaton as index tensors: arcs between states, and the token groups on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from guided_dlm.automata import TokenAutomaton
from guided_dlm.automata.dfa import log_weights
from guided_dlm.posterior.readings import Readings

TOKENS_IN_BIN, MOST_BINS = 64, 32
MOST_DENSE = 64  # classes
MOST_NATS = 50.0  # a preference stronger than this could drown what the model says altogether


@dataclass(frozen=True, eq=False)
class GroupTables:
    """One automaton's tokens, sorted into classes, and its arcs, sorted by source.

    An arc joins all classes that lead from one state to another, so a chain step costs one multiply per connected
    pair of states, however many tokens connect them. Tokens that are dead everywhere have class C, which no group has.
    `ending_S` is the weight of ending in each state: 0 or 1, or what a weighted automaton says. Where tokens have
    several `readings`, `class_of_token_V` and `size_C` are of these E symbols instead, and so are classes and groups;
    `by_token` and `by_class` go between tokens and classes.
    """

    class_of_token_V: Tensor
    groups_GC: Tensor
    src_A: Tensor
    dst_A: Tensor
    group_A: Tensor
    start: int
    ending_S: Tensor
    readings: Readings | None = None

    def by_token(self, value_NC: Tensor) -> Tensor:
        """Return the value of each token's class `[N, V]`; where it has readings, the weighted sum over theirs."""
        if self.readings is None:
            return value_NC.index_select(1, self.class_of_token_V)
        if self.dense:
            return value_NC @ self.weight_CV[value_NC.dtype]
        symbols_NE = value_NC.index_select(1, self.class_of_token_V) * self.readings.weight_E.to(value_NC.dtype)
        return self.readings.gather(symbols_NE)

    def by_class(self, p_NV: Tensor) -> Tensor:
        """Return the sum of each class over tokens that have readings, `[N, C + 1]`: the transpose of `by_token`."""
        assert self.readings is not None
        if self.dense:
            return p_NV @ self.weight_CV[p_NV.dtype].T
        zeros_NC = p_NV.new_zeros(len(p_NV), self.groups_GC.shape[1])
        return zeros_NC.index_add_(1, self.class_of_token_V, self.readings.spread(p_NV))

    @property
    def dense(self) -> bool:
        """Whether a product of matrices is quicker than to go over all readings; both give the same sums."""
        return self.groups_GC.shape[1] <= MOST_DENSE

    @cached_property
    def weight_CV(self) -> dict[torch.dtype, Tensor]:
        """What the readings of each token weigh in each class, `[C + 1, V]` in both precisions."""
        assert self.readings is not None
        zeros_CV = self.groups_GC.new_zeros(self.groups_GC.shape[1], len(self.readings.symbols_VK))
        place = (self.class_of_token_V, self.readings.token_E)
        exact_CV = zeros_CV.index_put(place, self.readings.weight_E, accumulate=True)
        return {torch.float64: exact_CV, torch.float32: exact_CV.float()}

    def spread_log(self, log_p_NV: Tensor) -> Tensor:
        """Return log-probabilities of tokens as log-weights of what the classes hold."""
        return log_p_NV if self.readings is None else self.readings.spread_log(log_p_NV)

    def known_groups(self, token_N: Tensor, best: bool) -> Tensor:
        """Return what known tokens weigh in each group, fp64 `[N, G]`: all their readings, or only the best."""
        if self.readings is None:
            return (self.groups_GC.T[self.class_of_token_V[token_N]] > 0).double()
        symbol_NK, weight_NK = self.readings.of_tokens(token_N)
        weight_NKG = weight_NK[..., None] * (self.groups_GC.T[self.class_of_token_V[symbol_NK]] > 0)
        return weight_NKG.amax(1) if best else weight_NKG.sum(1)

    def shifted(self, log_p_N: Tensor, token_N: Tensor, shift_NC: Tensor) -> Tensor:
        """Return the probability of tokens whose classes are multiplied by exp(shift), fp64 `[N]`."""
        if self.readings is None:
            return (log_p_N + shift_NC.gather(1, self.class_of_token_V[token_N][:, None])[:, 0]).exp()
        symbol_NK, weight_NK = self.readings.of_tokens(token_N)
        shift_NK = shift_NC.gather(1, self.class_of_token_V[symbol_NK])
        return (log_p_N[:, None] + weight_NK.log() + shift_NK).exp().sum(1)

    @cached_property
    def size_C(self) -> Tensor:
        """Int64 `[C + 1]`: how many tokens are in each class."""
        return torch.bincount(self.class_of_token_V, minlength=self.groups_GC.shape[1])

    @cached_property
    def bins(self) -> tuple[Tensor, Tensor]:
        """Return the bin of each token, int64 `[V]`, and the class of each bin: a class of many tokens has several.

        Sums by index wait for the last sum into the same place, so neighbours go to different bins.
        """
        bins_C = (self.size_C // TOKENS_IN_BIN).clamp(1, MOST_BINS)
        first_C = bins_C.cumsum(0) - bins_C
        place_V = torch.arange(len(self.class_of_token_V), device=bins_C.device)
        bin_V = first_C[self.class_of_token_V] + place_V % bins_C[self.class_of_token_V]
        return bin_V, torch.arange(len(bins_C), device=bins_C.device).repeat_interleave(bins_C)

    @property
    def num_groups(self) -> int:
        """G, the number of distinct token sets on arcs."""
        return len(self.groups_GC)


@lru_cache(maxsize=128)
def group_tables(automaton: TokenAutomaton, device: torch.device) -> GroupTables:
    """Return the tables of an automaton on a device, made once."""
    symbols = automaton.symbols
    src, dst, group, groups = automaton.arcs()
    order = np.lexsort((dst, src))
    num_classes = automaton.num_classes
    token_class = np.where(automaton.token_class < 0, num_classes, automaton.token_class)
    padded = np.zeros((len(groups), num_classes + 1), dtype=np.float64)
    padded[:, :num_classes] = np.asarray(groups, dtype=np.float64).reshape(len(groups), num_classes)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(array)).to(device)

    return GroupTables(
        class_of_token_V=tensor(token_class.astype(np.int64)),
        groups_GC=tensor(padded),
        src_A=tensor(src[order].astype(np.int64)),
        dst_A=tensor(dst[order].astype(np.int64)),
        group_A=tensor(group[order].astype(np.int64)),
        start=int(automaton.start),
        ending_S=tensor(ending_weights(automaton)),
        readings=None if symbols is None else Readings.of(symbols, len(automaton.vocabulary), device),
    )


def ending_weights(automaton: TokenAutomaton) -> np.ndarray:
    """Return float64 `[S]`: 0 or 1, or the weights of a weighted automaton, held to `MOST_NATS` either way."""
    final = log_weights(automaton.accepting if automaton.log_weight is None else automaton.log_weight)
    weights: np.ndarray = np.where(final > -np.inf, np.exp(np.clip(final, -MOST_NATS, MOST_NATS)), 0.0)
    return weights
