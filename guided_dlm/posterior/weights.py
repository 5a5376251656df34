"""From a model's factors over tokens to weights over token groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from guided_dlm.posterior.chain import NEVER
from guided_dlm.posterior.tables import GroupTables

# A class of tokens at least this likely has lost nothing that matters to underflow, and can divide by its weight.
SAFE = {torch.float32: 1e-30, torch.float64: 1e-280}


def class_weights(
    p_NV: Tensor, log_p: Callable[[], Tensor], tables: GroupTables
) -> tuple[Tensor, Literal["safe", "rare", "lost"]]:
    """Return the probability of each token class, fp64 `[N, C + 1]`, and how small the least of them is.

    `p_NV` is of tokens, `log_p()` of what the classes hold: tokens, or their readings.

    Precision is the input's, but classes that are not `SAFE` somewhere are added up again in fp64 from `log_p()`:
    "rare" says that there are such, and "lost" that fp64 cannot hold them either.
    """
    weight_NC = _by_class(p_NV, tables, "sum", 0.0) if tables.readings is None else tables.by_class(p_NV)
    rare_C = (weight_NC < SAFE[p_NV.dtype]).any(0)
    rare_C[-1] = False  # tokens that no arc reads
    if not bool(rare_C.any()):
        return weight_NC.double(), "safe"
    rare_T = rare_C[tables.class_of_token_V].nonzero()[:, 0]
    exact_NT = log_p().index_select(1, rare_T).double().exp()
    weight_NC = weight_NC.double().masked_fill(rare_C, 0.0)
    weight_NC.index_add_(1, tables.class_of_token_V[rare_T], exact_NT)
    return weight_NC, "rare" if bool((weight_NC[:, rare_C] >= SAFE[torch.float64]).all()) else "lost"


def log_class_weights(log_p_NV: Tensor, tables: GroupTables) -> Tensor:
    """Return log probabilities of the token classes, fp64 `[N, C + 1]`, exact at any range; `NEVER` for none."""
    log_p_NV = log_p_NV.double().clamp_min(NEVER)
    best_NC = class_maxima(log_p_NV, tables)
    index_NV = tables.class_of_token_V.expand_as(log_p_NV)
    scaled_NV = (log_p_NV - best_NC.gather(1, index_NV)).exp_()
    total_NC = torch.zeros_like(best_NC).index_add_(1, tables.class_of_token_V, scaled_NV)
    return (total_NC.clamp_min_(1e-300).log_() + best_NC).clamp_min_(NEVER)


def class_maxima(values_NV: Tensor, tables: GroupTables, empty: float = NEVER) -> Tensor:
    """Return the largest value in each class `[N, C + 1]`, `empty` in an empty one; no value is below that."""
    return _by_class(values_NV, tables, "amax", empty)


def _by_class(values_NV: Tensor, tables: GroupTables, reduce: Literal["sum", "amax"], empty: float) -> Tensor:
    """Reduce values by class `[N, C + 1]`, in an order that depends on nothing but the classes."""
    bin_V, class_J = tables.bins
    binned_NJ = values_NV.new_full((len(values_NV), len(class_J)), empty)
    binned_NJ.scatter_reduce_(1, bin_V.expand_as(values_NV), values_NV, reduce)
    classes_NC = values_NV.new_full((len(values_NV), len(tables.size_C)), empty)
    return classes_NC.scatter_reduce_(1, class_J.expand_as(binned_NJ), binned_NJ, reduce)


def log_sums(log_NJ: Tensor, member_KJ: Tensor) -> Tensor:
    """Return log of the sum over the members of each of K sets, fp64 `[N, K]`, exact at any range."""
    best_N1 = log_NJ.amax(1, keepdim=True)
    total_NK = (log_NJ - best_N1).exp() @ member_KJ.T
    close_NK = (total_NK.log() + best_N1).clamp_min(NEVER)
    lost_NK = total_NK < 1e-250
    if bool(lost_NK.any()):
        # Most of those are sets without any mass, for which the sum is right.
        lost_NK &= (log_NJ > NEVER / 2).to(log_NJ.dtype) @ member_KJ.T > 0
    if not bool(lost_NK.any()):
        return close_NK
    # Sets far below the best member of all have underflowed above: take each relative to its own best member.
    set_P, member_P = member_KJ.nonzero(as_tuple=True)
    own_NK = log_maxima(log_NJ, member_KJ)
    scaled_NP = (log_NJ[:, member_P] - own_NK[:, set_P]).exp()
    exact_NK = torch.zeros_like(own_NK).index_add_(1, set_P, scaled_NP).clamp_min(1e-300).log() + own_NK
    return torch.where(lost_NK, exact_NK.clamp_min(NEVER), close_NK)


def log_maxima(log_NJ: Tensor, member_KJ: Tensor) -> Tensor:
    """Return the largest member of each of K sets `[N, K]`, `NEVER` in an empty one."""
    set_P, member_P = member_KJ.nonzero(as_tuple=True)
    values_NP = log_NJ[:, member_P]
    best_NK = values_NP.new_full((len(log_NJ), len(member_KJ)), NEVER)
    return best_NK.scatter_reduce_(1, set_P.expand_as(values_NP), values_NP, "amax")
