"""How the rows of a batch share one chain: one automaton for all of them, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from guided_dlm.automata import TokenAutomaton
from guided_dlm.errors import InvalidRequest
from guided_dlm.posterior.tables import GroupTables, group_tables


@dataclass(frozen=True, eq=False)
class Chain:
    """The arcs that all rows walk, as one graph of N states with R columns, arcs sorted by source.

    With one automaton for all rows, N is its number of states and R the batch: every row is a column. With an automaton
    for each row the graphs stand side by side, N and G are their sums, and R is 1.
    `start_B`, `column_B` and `group_offset_B` say where a row lives; `first_N` and `degree_N` where a state's arcs are.

    Many arcs carry the same group to the same state: arc a leaves `src_A[a]` and has landing `landing_A[a]`, one of P
    pairs (`group_P`, `dst_P`), so that weights and messages are multiplied once per pair.
    """

    src_A: Tensor
    landing_A: Tensor
    group_P: Tensor
    dst_P: Tensor
    ending_N: Tensor
    columns: int
    start_B: Tensor
    column_B: Tensor
    group_offset_B: Tensor
    row_of_group_G: Tensor
    first_N: Tensor
    degree_N: Tensor

    @property
    def num_states(self) -> int:
        """N, the number of states of the whole graph."""
        return len(self.ending_N)

    def start_NR(self, start_B: Tensor) -> Tensor:
        """Return a message of 1 at each row's start state, 0 elsewhere, fp64 `[N, R]`."""
        message = torch.zeros(self.num_states, self.columns, dtype=torch.float64, device=start_B.device)
        message[start_B, self.column_B] = 1.0
        return message


@dataclass(frozen=True, eq=False)
class Part:
    """One distinct automaton of the batch and the rows it rules."""

    tables: GroupTables
    rows: Tensor


@lru_cache(maxsize=64)
def layout(automaton: TokenAutomaton | tuple[TokenAutomaton, ...], rows: int, device: torch.device) -> Layout:
    """Return the layout of a batch, made once: every step of a run asks for the same one."""
    return Layout(automaton, rows, device)


class Layout:
    """The distinct automata of a batch, and the chain that carries all of them at once."""

    def __init__(self, automaton: TokenAutomaton | Sequence[TokenAutomaton], rows: int, device: torch.device) -> None:
        """Lay out one automaton for all rows, or one for each row."""
        if isinstance(automaton, TokenAutomaton):
            tables = group_tables(automaton, device)
            self.parts = [Part(tables, torch.arange(rows, device=device))]
            self.chain = _shared_chain(tables, rows)
        else:
            if len(automaton) != rows:
                raise InvalidRequest(
                    f"Got {len(automaton)} automata for a batch of {rows} rows; give one, or one for each row."
                )
            each = [group_tables(one, device) for one in automaton]
            self.parts = [
                Part(tables, torch.tensor([i for i, other in enumerate(each) if other is tables], device=device))
                for tables in dict.fromkeys(each)
            ]
            self.chain = _side_by_side(each)

    def join(self, blocks: list[Tensor]) -> Tensor:
        """Turn values `[n, L, G]` of each part into `[L, G, R]` over the chain."""
        if self.chain.columns == len(self.chain.start_B):
            return blocks[0].permute(1, 2, 0).contiguous()
        joined_LG1 = blocks[0].new_zeros(blocks[0].shape[1], len(self.chain.row_of_group_G), 1)
        for part, block in zip(self.parts, blocks, strict=True):
            joined_LG1[:, self._columns_of(part).flatten(), 0] = block.transpose(0, 1).flatten(1)
        return joined_LG1

    def split(self, values_LGR: Tensor) -> list[Tensor]:
        """Turn values `[L, G, R]` over the chain into `[n, L, G]` of each part."""
        if self.chain.columns == len(self.chain.start_B):
            return [values_LGR.permute(2, 0, 1)]
        return [values_LGR[:, self._columns_of(part), 0].transpose(0, 1) for part in self.parts]

    def _columns_of(self, part: Part) -> Tensor:
        local_G = torch.arange(part.tables.num_groups, device=part.rows.device)
        return self.chain.group_offset_B[part.rows][:, None] + local_G


def _shared_chain(tables: GroupTables, rows: int) -> Chain:
    device = tables.src_A.device
    zeros_B = torch.zeros(rows, dtype=torch.int64, device=device)
    return _chain(
        tables.src_A,
        tables.dst_A,
        tables.group_A,
        tables.ending_S,
        columns=rows,
        start_B=zeros_B + tables.start,
        column_B=torch.arange(rows, device=device),
        group_offset_B=zeros_B,
        row_of_group_G=torch.zeros(tables.num_groups, dtype=torch.int64, device=device),
    )


def _side_by_side(each: list[GroupTables]) -> Chain:
    device, rows = each[0].src_A.device, len(each)
    num_groups = torch.tensor([tables.num_groups for tables in each], device=device)
    num_states = torch.tensor([len(tables.ending_S) for tables in each], device=device)
    groups, states = num_groups.cumsum(0) - num_groups, num_states.cumsum(0) - num_states
    return _chain(
        torch.cat([tables.src_A + offset for tables, offset in zip(each, states, strict=True)]),
        torch.cat([tables.dst_A + offset for tables, offset in zip(each, states, strict=True)]),
        torch.cat([tables.group_A + offset for tables, offset in zip(each, groups, strict=True)]),
        torch.cat([tables.ending_S for tables in each]),
        columns=1,
        start_B=states + torch.tensor([tables.start for tables in each], device=device),
        column_B=torch.zeros(rows, dtype=torch.int64, device=device),
        group_offset_B=groups,
        row_of_group_G=torch.arange(rows, device=device).repeat_interleave(num_groups),
    )


def _chain(
    src_A: Tensor,
    dst_A: Tensor,
    group_A: Tensor,
    ending_N: Tensor,
    columns: int,
    start_B: Tensor,
    column_B: Tensor,
    group_offset_B: Tensor,
    row_of_group_G: Tensor,
) -> Chain:
    degree_N = torch.bincount(src_A, minlength=len(ending_N))
    pairs_P2, landing_A = torch.stack([group_A, dst_A], dim=1).unique(dim=0, return_inverse=True)
    return Chain(
        src_A=src_A,
        landing_A=landing_A,
        group_P=pairs_P2[:, 0].contiguous(),
        dst_P=pairs_P2[:, 1].contiguous(),
        ending_N=ending_N,
        columns=columns,
        start_B=start_B,
        column_B=column_B,
        group_offset_B=group_offset_B,
        row_of_group_G=row_of_group_G,
        first_N=degree_N.cumsum(0) - degree_N,
        degree_N=degree_N,
    )
