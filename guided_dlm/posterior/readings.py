"""From tokens to their readings and back, for automata over symbols (`guided_dlm.automata.symbols`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from guided_dlm.automata.symbols import Symbols


@dataclass(frozen=True, eq=False)
class Readings:
    """The symbols of a vocabulary of V tokens: `token_E` and `weight_E` (fp64), and each token's symbols, padded.

    `symbols_VK` int64 holds the symbols of each token, E where it has fewer than K.
    """

    token_E: Tensor
    weight_E: Tensor
    symbols_VK: Tensor

    @classmethod
    def of(cls, symbols: Symbols, size: int, device: torch.device) -> Readings:
        """Lay out symbols that are sorted by token."""
        count_V = np.bincount(symbols.token, minlength=size)
        place_E = np.arange(symbols.token.size) - (np.cumsum(count_V) - count_V)[symbols.token]
        table_VK = np.full((size, int(count_V.max(initial=1))), symbols.token.size, dtype=np.int64)
        table_VK[symbols.token, place_E] = np.arange(symbols.token.size)
        arrays = (symbols.token.astype(np.int64), symbols.weight, table_VK)
        return cls(*(torch.from_numpy(np.array(array)).to(device) for array in arrays))

    def spread(self, p_NV: Tensor) -> Tensor:
        """Return the weight of each symbol `[N, E]` under probabilities of tokens."""
        return p_NV.index_select(1, self.token_E) * self.weight_E.to(p_NV.dtype)

    def spread_log(self, log_p_NV: Tensor) -> Tensor:
        """Return the log-weight of each symbol `[N, E]`."""
        return log_p_NV.index_select(1, self.token_E) + self.weight_E.log().to(log_p_NV.dtype)

    def gather(self, q_NE: Tensor) -> Tensor:
        """Add up symbols by token: `[N, V]`."""
        return q_NE.new_zeros(len(q_NE), len(self.symbols_VK)).index_add_(1, self.token_E, q_NE)

    def of_tokens(self, token_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the symbols of known tokens `[N, K]`, and their weights, fp64, 0 where a token has fewer."""
        symbol_NK = self.symbols_VK[token_N]
        weight_NK = torch.cat([self.weight_E, self.weight_E.new_zeros(1)])[symbol_NK]
        return symbol_NK.clamp_max(len(self.token_E) - 1), weight_NK
